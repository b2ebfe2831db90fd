"""The backend against an API server that answers as Kubernetes does, through the real client."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policies.errors import CannotRun, Conflict, Invalid
from sandbox_runner.backends.kubernetes import KubernetesBackend
from sandbox_runner.backends.kubernetes_manifests import job_name
from sandbox_runner.backends.kubernetes_settings import ClusterSettings
from sandbox_runner.spec import Limits, Mount, SandboxSpec
from tests.sandbox_runner.kubernetes_api import (
    NAMESPACE,
    RUNNING,
    FakeApi,
    ended,
    event,
    pod,
    serve,
)
from tests.sandbox_runner.test_kubernetes_manifests import SETTINGS

NAME = job_name("job-1")
DONE = ended(0)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    fake = FakeApi()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with serve(fake, tmp_path / "kubeconfig"):
        yield fake


@pytest.fixture
def settings(tmp_path: Path) -> ClusterSettings:
    for name in ("staging", "outbox"):
        (tmp_path / name).mkdir()
    return replace(
        SETTINGS,
        namespace=NAMESPACE,
        staging_root=tmp_path / "staging",
        outbox_root=tmp_path / "outbox",
        poll_seconds=0.01,
    )


@pytest.fixture
def spec(tmp_path: Path, settings: ClusterSettings) -> SandboxSpec:
    code = tmp_path / "submission"
    code.mkdir()
    (code / "train.py").write_text("print('hello')")
    data = settings.staging_root / "mammography-1"
    data.mkdir()
    return SandboxSpec(
        id="job-1",
        argv=("python", "/code/train.py"),
        mounts=(Mount(code, "/code"), Mount(data, "/data/mammography")),
        output=tmp_path / "out",
        log=tmp_path / "log",
        metrics=frozenset({"loss"}),
        code={"train.py": 1},
        limits=Limits(wall_seconds=60),
    )


def bring_output(settings: ClusterSettings) -> None:
    """What the carrier does in its pod, and what a carrier gone bad might."""
    box = settings.outbox_root / NAME
    (box / "model.safetensors").write_bytes(b"weights")
    (box / "link").symlink_to("/etc/passwd")
    os.mkfifo(box / "pipe")


def test_job_runs_and_its_files_come_back(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec, tmp_path: Path
) -> None:
    ticks: list[tuple[int, Mapping[str, float]]] = []
    created: list[dict[str, Any]] = []
    api.script = [
        ([], []),
        ([pod(phase="Pending")], []),
        ([pod(RUNNING)], []),
        ([pod(DONE, RUNNING)], []),
        ([pod(DONE, DONE, phase="Succeeded")], []),
    ]
    api.logs = {
        "job": b'hello\n{"step": 1, "values": {"loss": 0.5, "x": 1}}\n{"step": 2}\n',
        "carrier": json.dumps({"left": [["evil\x1b[2J", "a link"]]}).encode(),
    }
    api.on_create = lambda job: (created.append(job), bring_output(settings))[0]  # type: ignore[func-returns-value]
    result = KubernetesBackend(settings=settings).run(
        replace(spec, progress=lambda step, values: ticks.append((step, values)))
    )
    assert (result.state, result.reason, result.exit_code) == ("finished", "exit", 0)
    assert result.backend_version == "v1.37.0 gvisor"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    assert ticks == [(1, {"loss": 0.5})]
    assert (tmp_path / "log").read_bytes().startswith(b"hello\n")
    left = {rejected.path: rejected.why for rejected in result.left_behind}
    assert {"link", "pipe"} <= set(left)
    assert not any("\x1b" in path for path in left)
    mounts = created[0]["spec"]["template"]["spec"]["initContainers"][0]["volumeMounts"]
    subs = {mount["mountPath"]: mount.get("subPath") for mount in mounts}
    assert subs["/data/mammography"] == "mammography-1"
    assert subs["/code"] == f"lent/{NAME}/0"


def test_nothing_is_left_after_a_job(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec
) -> None:
    api.script = [([pod(ended(1), phase="Failed")], [])]
    result = KubernetesBackend(settings=settings).run(spec)
    assert (result.state, result.reason, result.exit_code) == ("failed", "exit", 1)
    assert api.jobs == {}
    assert list(settings.outbox_root.iterdir()) == []
    assert list((settings.staging_root / "lent").iterdir()) == []
    assert (settings.staging_root / "mammography-1").is_dir(), "staged data is shared, not ours"


def test_output_of_a_failed_job_is_not_brought(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec, tmp_path: Path
) -> None:
    api.on_create = lambda job: bring_output(settings)
    api.script = [([pod(ended(1), phase="Failed")], [])]
    KubernetesBackend(settings=settings).run(spec)
    assert not (tmp_path / "out").exists()


def test_fault_names_the_limit_that_was_met(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec
) -> None:
    fault = {"type": "OSError", "file": "train.py", "line": 1, "cause": "output-full"}
    api.logs = {"job": json.dumps({"fault": fault}).encode() + b"\n"}
    api.script = [([pod(ended(1), phase="Failed")], [])]
    result = KubernetesBackend(settings=settings).run(spec)
    assert (result.state, result.reason) == ("failed", "output-limit")
    assert result.fault is not None and result.fault.file == "train.py"


def test_runner_that_died_takes_its_job_up_again(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec
) -> None:
    class Killed(BaseException):
        pass

    def die(step: int, values: Mapping[str, float]) -> None:
        raise AssertionError("no progress in this test")

    stop = threading.Event()
    backend = KubernetesBackend(settings=settings)
    api.script = [([pod(RUNNING)], [])]

    class Dying(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            raise Killed

    with pytest.raises(Killed):
        backend.run(replace(spec, progress=die), Dying())
    assert list(api.jobs) == [NAME]
    api.script = [([pod(DONE, DONE, phase="Succeeded")], [])]
    result = KubernetesBackend(settings=settings).run(spec, stop)
    assert result.state == "finished"
    assert [line for line in api.requests if line.startswith("POST")].__len__() == 2
    assert api.jobs == {}


def test_another_sandbox_of_the_same_id_is_a_conflict(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec
) -> None:
    backend = KubernetesBackend(settings=settings)
    api.script = [([pod(RUNNING)], [])]
    cancel = threading.Event()
    first = threading.Thread(target=backend.run, args=(spec, cancel))
    first.start()
    while NAME not in api.jobs:
        time.sleep(0.01)
    with pytest.raises(Conflict):
        KubernetesBackend(settings=settings).run(replace(spec, argv=("python", "other.py")))
    assert list(api.jobs) == [NAME], "the first one's Job stays"
    assert (settings.outbox_root / NAME).is_dir(), "and so does its outbox"
    cancel.set()
    first.join(10)


def test_cancel_stops_and_removes(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec
) -> None:
    cancel = threading.Event()
    cancel.set()
    api.script = [([pod(RUNNING)], [])]
    result = KubernetesBackend(settings=settings).run(spec, cancel)
    assert (result.state, result.reason) == ("stopped", "cancelled")
    assert api.jobs == {}


def test_wall_clock_is_kept_by_the_runner_too(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec
) -> None:
    """A Job that an earlier runner started a minute ago has no new minute."""
    old = {"running": {"startedAt": "2020-01-01T00:00:00Z"}}
    api.script = [([pod(old)], [])]
    result = KubernetesBackend(settings=settings).run(spec)
    assert (result.state, result.reason) == ("stopped", "timeout")


def test_pod_that_never_starts_is_given_up(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec
) -> None:
    api.script = [([pod(phase="Pending")], [])]
    result = KubernetesBackend(settings=replace(settings, start_seconds=1)).run(spec)
    assert (result.state, result.reason) == ("refused", "resources")


def test_refused_pods_of_an_accepted_job(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec
) -> None:
    api.script = [([], [event("FailedCreate", 'violates PodSecurity "restricted:v1.34"')])]
    result = KubernetesBackend(settings=settings).run(spec)
    assert (result.state, result.reason) == ("refused", "isolation")


def test_api_that_stumbles_is_asked_again(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec
) -> None:
    backend = KubernetesBackend(settings=settings)
    backend.check()
    api.script = [([pod(DONE, DONE, phase="Succeeded")], [])]
    api.on_create = lambda job: api.failures.extend([500, 503, 429, 504])
    assert backend.run(spec).state == "finished"


def test_api_without_rights_says_so(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec
) -> None:
    api.on_create = lambda job: api.failures.append(403)
    with pytest.raises(CannotRun, match="role"):
        KubernetesBackend(settings=settings).run(spec)


@pytest.mark.parametrize("lack", ["runtime", "policy", "allowing", "label", "claim", "cluster"])
def test_cluster_that_cannot_seal_is_refused(
    api: FakeApi,
    settings: ClusterSettings,
    spec: SandboxSpec,
    lack: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if lack == "runtime":
        api.runtime_classes = set()
    elif lack == "policy":
        api.policies = []
    elif lack == "allowing":
        api.policies[0]["spec"]["egress"] = [{}]
    elif lack == "label":
        api.labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    elif lack == "claim":
        (tmp_path / "outbox").rmdir()
    else:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(CannotRun):
        KubernetesBackend(settings=settings).run(spec)
    assert api.jobs == {}
    assert not (settings.staging_root / "lent").exists(), "nothing is copied for a refused job"


def test_minimum_isolation_is_never_stepped_down(api: FakeApi, settings: ClusterSettings) -> None:
    with pytest.raises(CannotRun):
        only_gvisor = replace(settings, runtime_classes=settings.runtime_classes[:1])
        KubernetesBackend("kata", only_gvisor).run(SandboxSpec(id="a", argv=("true",)))


def test_hostile_spec_is_refused_before_anything_is_copied(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec
) -> None:
    with pytest.raises(Invalid):
        KubernetesBackend(settings=settings).run(replace(spec, id="../../etc"))
    assert not (settings.staging_root / "lent").exists()


def test_source_that_is_a_link_out_of_staging_is_not_mounted(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec, tmp_path: Path
) -> None:
    """A link under the staging root would be followed by the node, in the claim."""
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (settings.staging_root / "trap").symlink_to(secret)
    seen: list[str] = []
    api.on_create = lambda job: seen.extend(
        mount.get("subPath", "")
        for mount in job["spec"]["template"]["spec"]["initContainers"][0]["volumeMounts"]
    )
    api.script = [([pod(DONE, DONE, phase="Succeeded")], [])]
    trap = replace(spec, mounts=(Mount(settings.staging_root / "trap", "/data/a"),))
    KubernetesBackend(settings=settings).run(trap)
    assert "trap" not in seen and f"lent/{NAME}/0" in seen


def test_staged_data_that_the_pod_could_not_read_is_lent_as_a_copy(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec
) -> None:
    """The sandbox's user is another than the runner's; private modes keep it out of the claim."""
    private = settings.staging_root / "mammography-1"
    (private / "1.dcm").write_bytes(b"pixels")
    (private / "1.dcm").chmod(0o400)
    private.chmod(0o700)
    copied: list[int] = []
    lent = settings.staging_root / "lent" / NAME / "1" / "1.dcm"
    api.on_create = lambda job: copied.append(lent.stat().st_mode & 0o777)
    api.script = [([pod(DONE, DONE, phase="Succeeded")], [])]
    KubernetesBackend(settings=settings).run(spec)
    assert copied == [0o644]
    assert private.stat().st_mode & 0o777 == 0o700, "what is staged keeps its mode"


def test_links_in_a_lent_submission_stay_links(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec, tmp_path: Path
) -> None:
    (tmp_path / "submission" / "shadow").symlink_to("/etc/shadow")
    kinds: list[bool] = []
    lent = settings.staging_root / "lent" / NAME / "0" / "shadow"
    api.on_create = lambda job: kinds.append(lent.is_symlink())
    api.script = [([pod(DONE, DONE, phase="Succeeded")], [])]
    KubernetesBackend(settings=settings).run(spec)
    assert kinds == [True]


def test_submission_with_a_fifo_is_refused_not_waited_for(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "submission" / "pipe")
    with pytest.raises(Invalid):
        KubernetesBackend(settings=settings).run(spec)


def test_pipes_are_refused(settings: ClusterSettings, spec: SandboxSpec) -> None:
    with pytest.raises(CannotRun):
        KubernetesBackend(settings=settings).start(spec)


def test_without_settings_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOVEBOX_KUBERNETES", raising=False)
    backend = KubernetesBackend()
    assert backend.version() == ""
    assert [line.state for line in backend.check()] == ["missing"]
    with pytest.raises(CannotRun):
        backend.run(SandboxSpec(id="a", argv=("true",)))


def test_sweep_takes_what_no_job_needs(api: FakeApi, settings: ClusterSettings) -> None:
    backend = KubernetesBackend(settings=settings)
    for name in ("gb-dead", "gb-alive", "gb-young", "mine"):
        (settings.outbox_root / name / "below").mkdir(parents=True)
        if name != "gb-young":
            os.utime(settings.outbox_root / name, (0, 0))
    api.jobs["gb-alive"] = {"metadata": {"name": "gb-alive"}}
    assert backend.sweep() == 1
    assert backend.sweep() == 0
    kept = sorted(path.name for path in settings.outbox_root.iterdir())
    assert kept == ["gb-alive", "gb-young", "mine"]


def test_sweep_without_an_api_takes_nothing(api: FakeApi, settings: ClusterSettings) -> None:
    (settings.outbox_root / "gb-dead").mkdir()
    os.utime(settings.outbox_root / "gb-dead", (0, 0))
    api.failures = [500]
    assert KubernetesBackend(settings=settings).sweep() == 0
    assert (settings.outbox_root / "gb-dead").is_dir()


def test_log_is_bounded(
    api: FakeApi, settings: ClusterSettings, spec: SandboxSpec, tmp_path: Path
) -> None:
    api.logs = {"job": b"x" * 100_000}
    api.script = [([pod(DONE, DONE, phase="Succeeded")], [])]
    small = replace(spec, limits=replace(spec.limits, log_bytes=1000))
    KubernetesBackend(settings=settings).run(small)
    assert (tmp_path / "log").stat().st_size == 1000
