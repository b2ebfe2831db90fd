"""Every way a pod can end has the architecture's word for it."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox_runner.backends.kubernetes_outcome import Ended, Going, has_run, judge
from sandbox_runner.spec import REASONS
from tests.sandbox_runner.kubernetes_api import RUNNING, ended, event, pod

JOB: dict[str, Any] = {"metadata": {"name": "gb-x", "uid": "job-uid"}, "spec": {}}
DONE = ended(0)


def waiting(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason}}


def failed_job(reason: str) -> dict[str, Any]:
    condition = {"type": "Failed", "status": "True", "reason": reason}
    return {**JOB, "status": {"conditions": [condition]}}


def disrupted(reason: str) -> dict[str, Any]:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
    return pod(ended(137), phase="Failed", conditions=[condition])


PODS = [
    (pod(DONE, DONE, phase="Succeeded"), "finished", "exit"),
    (pod(ended(1), phase="Failed"), "failed", "exit"),
    (pod(ended(137), phase="Failed"), "failed", "exit"),
    (pod(ended(137, "OOMKilled"), phase="Failed"), "failed", "memory"),
    (pod(ended(128, "StartError"), phase="Failed"), "failed", "image"),
    (pod(ended(137, "ContainerStatusUnknown"), phase="Failed"), "stopped", "node-lost"),
    (pod({"terminated": {}}, phase="Failed"), "stopped", "node-lost"),
    (pod(DONE, ended(1), phase="Failed"), "stopped", "node-lost"),
    (pod(phase="Failed"), "stopped", "node-lost"),
    (pod(phase="Succeeded"), "stopped", "node-lost"),
    (pod(ended(137), phase="Failed", reason="DeadlineExceeded"), "stopped", "timeout"),
    (pod(ended(137), phase="Failed", reason="NodeLost"), "stopped", "node-lost"),
    (pod(ended(137), phase="Failed", reason="Terminated"), "stopped", "node-lost"),
    (pod(phase="Failed", reason="UnexpectedAdmissionError"), "stopped", "node-lost"),
    (pod(phase="Failed", reason="Preempting"), "stopped", "evicted"),
    (
        pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
        "stopped",
        "evicted",
    ),
    (
        pod(
            phase="Failed",
            reason="Evicted",
            message="Pod ephemeral local storage usage exceeds the total limit of containers 72Mi.",
        ),
        "failed",
        "output-limit",
    ),
    (
        pod(
            phase="Failed",
            reason="Evicted",
            message='Usage of EmptyDir volume "output" exceeds the limit "2Gi".',
        ),
        "failed",
        "output-limit",
    ),
    (disrupted("PreemptionByScheduler"), "stopped", "evicted"),
    (disrupted("EvictionByEvictionAPI"), "stopped", "evicted"),
    (disrupted("DeletionByTaintManager"), "stopped", "node-lost"),
    (disrupted("DeletionByPodGC"), "stopped", "node-lost"),
    (disrupted("SomethingNew"), "stopped", "evicted"),
    (pod(waiting("ImagePullBackOff"), phase="Pending"), "failed", "image"),
    (pod(waiting("ErrImagePull"), phase="Pending"), "failed", "image"),
    (pod(waiting("InvalidImageName"), phase="Pending"), "failed", "image"),
    (pod(waiting("CreateContainerError"), phase="Pending"), "failed", "image"),
    (pod(DONE, waiting("ImagePullBackOff"), phase="Pending"), "failed", "image"),
]
EVENTS = [
    ('pods "x" is forbidden: violates PodSecurity "restricted:v1.34"', "isolation"),
    ('pods "x" is forbidden: ValidatingAdmissionPolicy "gb" denied request', "isolation"),
    ('pods "x" is forbidden: pod rejected: RuntimeClass "gvisor" not found', "isolation"),
    ('pods "x" is forbidden: maximum memory usage per Pod is 1Gi, but limit is 4Gi', "resources"),
    ('Pod "x" is invalid: spec.containers[0]', "resources"),
]


@pytest.mark.parametrize(("seen", "state", "reason"), PODS)
def test_pod_state_has_its_word(seen: dict[str, Any], state: str, reason: str) -> None:
    verdict = judge(JOB, [seen], [])
    assert isinstance(verdict, Ended)
    assert (verdict.state, verdict.reason) == (state, reason)
    assert reason in REASONS[state]


@pytest.mark.parametrize(("message", "reason"), EVENTS)
def test_accepted_job_with_refused_pods_is_refused(message: str, reason: str) -> None:
    assert judge(JOB, [], [event("FailedCreate", message)]) == Ended("refused", reason)


def test_node_that_cannot_seal_is_a_refusal() -> None:
    told = event(
        "FailedCreatePodSandBox",
        'can\'t set `spec.hostUsers: false`, RuntimeClass handler "runsc" does not support '
        "user namespaces",
        uid="pod-uid",
    )
    assert judge(JOB, [pod(phase="Pending")], [told]) == Ended("refused", "isolation")


@pytest.mark.parametrize(
    "told",
    [
        event("FailedCreate", "exceeded quota: sandbox, requested: pods=1, used: pods=20"),
        event("FailedScheduling", "0/3 nodes are available: 3 Insufficient cpu"),
        event("FailedMount", "MountVolume.SetUp failed, retrying"),
        event("Killing", "violates PodSecurity"),
    ],
)
def test_what_may_pass_is_waited_for(told: dict[str, Any]) -> None:
    assert judge(JOB, [pod(phase="Pending")], [told]) == Going()
    assert judge(JOB, [], [told]) == Going()


def test_job_alone_is_waited_for() -> None:
    assert judge(JOB, [], []) == Going()
    assert judge({**JOB, "spec": {"suspend": True}}, [], []) == Going(queued=True)


def test_running_job_says_since_when() -> None:
    verdict = judge(JOB, [pod(RUNNING)], [])
    assert isinstance(verdict, Going)
    assert verdict.started is not None
    assert verdict.started.isoformat() == "2099-01-01T00:00:00+00:00"


def test_carrying_is_neither_running_nor_ended() -> None:
    assert judge(JOB, [pod(DONE, RUNNING)], []) == Going()
    assert judge(JOB, [pod(DONE, waiting("PodInitializing"))], []) == Going()


def test_finished_job_is_not_undone_by_an_old_event() -> None:
    told = event("FailedCreate", "violates PodSecurity")
    assert judge(JOB, [pod(DONE, DONE, phase="Succeeded")], [told]) == Ended("finished", "exit", 0)


def test_running_job_is_not_ended_by_an_old_refusal() -> None:
    told = [
        event("FailedCreate", "violates PodSecurity"),
        event("FailedCreatePodSandBox", "no runtime for runsc is configured", uid="pod-uid"),
    ]
    assert judge(JOB, [pod(RUNNING)], told) == judge(JOB, [pod(RUNNING)], [])
    assert judge(JOB, [pod(phase="Pending")], told[:1]) == Going()


def test_job_whose_pods_are_gone() -> None:
    assert judge(failed_job("DeadlineExceeded"), [], []) == Ended("stopped", "timeout")
    assert judge(failed_job("BackoffLimitExceeded"), [], []) == Ended("stopped", "node-lost")
    assert judge(None, [], []) == Ended("stopped", "cancelled")


def test_pod_without_carrier_finishes_by_itself() -> None:
    alone = pod(phase="Succeeded", containerStatuses=[{"name": "job", "state": DONE}])
    assert judge(JOB, [alone], []) == Ended("finished", "exit", 0)


def test_what_the_job_writes_about_itself_is_not_read() -> None:
    """/dev/termination-log is the job's to write; its words stand in the pod's status."""
    state = ended(1)
    state["terminated"]["message"] = "OOMKilled Evicted ephemeral local storage"
    assert judge(JOB, [pod(state, phase="Failed")], []) == Ended("failed", "exit", 1)


def test_newest_pod_counts() -> None:
    old = pod(ended(1), phase="Failed")
    old["metadata"]["creationTimestamp"] = "2025-01-01T00:00:00Z"
    assert judge(JOB, [pod(RUNNING), old], []) == judge(JOB, [pod(RUNNING)], [])


@pytest.mark.parametrize("text", ["", "yesterday", None, 5, "2026-01-01T00:00:00"])
def test_time_that_is_none_is_no_start(text: object) -> None:
    assert judge(JOB, [pod({"running": {"startedAt": text}})], []) == Going()


def test_log_exists_once_the_job_has_run() -> None:
    assert has_run(pod(RUNNING)) and has_run(pod(DONE))
    assert not has_run(pod(waiting("PodInitializing"))) and not has_run(pod())
