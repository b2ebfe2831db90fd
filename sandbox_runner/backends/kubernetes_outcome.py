"""What a Job's pods and events say about it, in the words of the architecture: pure.

The API server accepts a Job whose pods it then refuses: such a refusal stands only in the Job's
events, so those are read as well. Nothing that the job itself could have written (a termination
message, a log) is read here.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sandbox_runner.backends.kubernetes_manifests import CARRIER, JOB

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a sandbox ended: a state and reason of spec.REASONS, and the job's exit status."""

    state: str
    reason: str
    exit_code: int | None = None


@dataclass(frozen=True)
class Going:
    """It has not ended. ``started`` is when the job's container began to run, if it has."""

    started: dt.datetime | None = None
    #: Waits in the queue: nothing of it stands in the cluster yet.
    queued: bool = False


#: Waiting reasons of a container whose image cannot be had.
IMAGE_REASONS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
#: Waiting reasons of a container that the image's content does not let start.
START_REASONS: Final = frozenset(
    {"CreateContainerError", "RunContainerError", "CreateContainerConfigError", "StartError"}
)
NODE_REASONS: Final = frozenset(
    {
        "NodeLost",
        "Shutdown",
        "NodeShutdown",
        "Terminated",
        "NodeAffinity",
        "UnexpectedAdmissionError",
    }
)
#: Reasons of the DisruptionTarget condition.
DISRUPTIONS: Final[Mapping[str, str]] = {
    "PreemptionByScheduler": "evicted",
    "EvictionByEvictionAPI": "evicted",
    "DeletionByTaintManager": "node-lost",
    "DeletionByPodGC": "node-lost",
    "TerminationByKubelet": "evicted",
}
_DISK: Final = re.compile(r"ephemeral local storage|emptydir|ephemeral-storage", re.IGNORECASE)
#: (reason of the event, what its message holds) -> why the pod cannot be; first match.
REFUSALS: Final[Sequence[tuple[str, re.Pattern[str], str]]] = (
    ("FailedCreate", re.compile(r"violates PodSecurity"), "isolation"),
    ("FailedCreate", re.compile(r"ValidatingAdmissionPolicy"), "isolation"),
    ("FailedCreate", re.compile(r"RuntimeClass .*not found"), "isolation"),
    ("FailedCreate", re.compile(r"(maximum|minimum) .* usage per"), "resources"),
    ("FailedCreate", re.compile(r"must specify|failed quota"), "resources"),
    ("FailedCreate", re.compile(r"is invalid:"), "resources"),
    ("FailedCreatePodSandBox", re.compile(r"does not support user namespaces"), "isolation"),
    ("FailedCreatePodSandBox", re.compile(r"no runtime for .* is configured"), "isolation"),
    ("FailedCreatePodSandBox", re.compile(r"RuntimeHandler .* not supported"), "isolation"),
)


def _at(text: object) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _statuses(pod: Object) -> dict[str, Object]:
    status = pod.get("status", {})
    rows = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return {row.get("name", ""): row for row in rows}


def _refused(events: Iterable[Object], kind: str) -> Ended | None:
    """Return the refusal that an event of this reason tells."""
    for event in events:
        for reason, pattern, why in REFUSALS:
            if event.get("reason") == reason == kind and pattern.search(
                str(event.get("message", ""))
            ):
                return Ended("refused", why)
    return None


def _disrupted(pod: Object) -> Ended | None:
    status = pod.get("status", {})
    reason = status.get("reason", "")
    if reason == "DeadlineExceeded":
        return Ended("stopped", "timeout")
    if reason == "Evicted":
        # The kubelet evicts a pod for its own excess in the same words as for a full node.
        own = _DISK.search(str(status.get("message", ""))) is not None
        return Ended("failed", "output-limit") if own else Ended("stopped", "evicted")
    if reason in NODE_REASONS:
        return Ended("stopped", "node-lost")
    if reason == "Preempting":
        return Ended("stopped", "evicted")
    for condition in status.get("conditions", ()):
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            word = DISRUPTIONS.get(condition.get("reason", ""), "evicted")
            return Ended("stopped", word)
    return None


def _container_end(statuses: Mapping[str, Object]) -> Ended | None:
    """Return how the containers ended, None while one may still run."""
    job = statuses.get(JOB, {}).get("state", {}).get("terminated")
    if job is None:
        return None
    code = job.get("exitCode")
    if job.get("reason") == "OOMKilled":
        return Ended("failed", "memory", code)
    if job.get("reason") in START_REASONS:
        return Ended("failed", "image", code)
    if job.get("reason") == "ContainerStatusUnknown" or not isinstance(code, int):
        return Ended("stopped", "node-lost")
    if code != 0:
        return Ended("failed", "exit", code)
    if CARRIER not in statuses:
        return Ended("finished", "exit", code)
    carrier = statuses[CARRIER].get("state", {}).get("terminated")
    if carrier is None:
        return None
    if carrier.get("exitCode") == 0:
        return Ended("finished", "exit", code)
    # Ours failed after the job had ended well: the node or the storage, never the applicant.
    return Ended("stopped", "node-lost", code)


def _cannot_start(statuses: Mapping[str, Object]) -> Ended | None:
    for row in statuses.values():
        reason = row.get("state", {}).get("waiting", {}).get("reason", "")
        if reason in IMAGE_REASONS or reason in START_REASONS:
            return Ended("failed", "image")
    return None


def _newest(pods: Sequence[Object]) -> Object | None:
    return max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), default=None)


def judge(job: Object | None, pods: Sequence[Object], events: Iterable[Object]) -> Ended | Going:
    """Return how the Job of these objects ended, or that it goes on.

    ``job`` is None when it is no longer there; ``events`` are those about it and its pods. Where
    two reasons are seen, what the cluster did (deadline, eviction) goes before an exit status.
    """
    pod = _newest(pods)
    if pod is None:
        if job is None:
            return Ended("stopped", "cancelled")
        return _refused(events, "FailedCreate") or _job_end(job) or Going(queued=_is_suspended(job))
    statuses = _statuses(pod)
    phase = pod.get("status", {}).get("phase")
    ended = _disrupted(pod) or _container_end(statuses)
    if ended is not None:
        return ended
    if phase in ("Failed", "Succeeded"):
        # Its containers' ends were lost with the node that ran them.
        return Ended("stopped", "node-lost")
    if pod["metadata"].get("deletionTimestamp"):
        # A pod that somebody deleted is no longer ours to wait for, whatever still runs in it.
        return Ended("stopped", "cancelled") if job is None else Going()
    running = statuses.get(JOB, {}).get("state", {}).get("running")
    if running is not None:
        return Going(started=_at(running.get("startedAt")))
    # A refusal that was told before this pod came is over.
    return _cannot_start(statuses) or _refused(events, "FailedCreatePodSandBox") or Going()


def _is_suspended(job: Object) -> bool:
    return bool(job.get("spec", {}).get("suspend"))


def _job_end(job: Object) -> Ended | None:
    """Return how a Job without pods ended: its own deadline, or a pod that was taken away."""
    for condition in job.get("status", {}).get("conditions", ()):
        if condition.get("type") in ("Failed", "FailureTarget") and condition["status"] == "True":
            late = condition.get("reason") == "DeadlineExceeded"
            return Ended("stopped", "timeout" if late else "node-lost")
    return None


def has_run(pod: Object) -> bool:
    """Return whether the job's container runs or ran in this pod, so that it has a log."""
    state = _statuses(pod).get(JOB, {}).get("state", {})
    return "running" in state or "terminated" in state
