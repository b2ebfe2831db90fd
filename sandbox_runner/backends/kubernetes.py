"""Run a sandbox as a hardened Job of a Kubernetes cluster.

The Job's name comes from the sandbox's id, so a runner that died takes its Job up again. The
cluster's own words (pods, events) are judged in kubernetes_outcome; the Job itself is made in
kubernetes_manifests. It refuses where the cluster lacks what seals a pod.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from policies.errors import CannotRun
from sandbox_runner.backends import kubernetes_storage as storage
from sandbox_runner.backends.interface import Line, RunningSandbox
from sandbox_runner.backends.kubernetes_cluster import Cluster, Refused, Unreachable
from sandbox_runner.backends.kubernetes_manifests import CARRIER, JOB, job_manifest, job_name
from sandbox_runner.backends.kubernetes_outcome import Ended, Going, has_run, judge
from sandbox_runner.backends.kubernetes_settings import (
    ClusterSettings,
    RuntimeClass,
    load_settings,
)
from sandbox_runner.progress import ProgressReader
from sandbox_runner.regular_files import shown
from sandbox_runner.spec import Rejected, SandboxResult, SandboxSpec

#: An API server may be away so long (an upgrade of the control plane) before we give up watching.
AWAY_SECONDS: Final = 600.0
#: For pods to end after their Job was deleted, on top of their grace.
DELETE_SECONDS: Final = 60.0
#: What a program says of the limit that it met (sandbox_runner.progress.CAUSES) -> our reason.
CAUSES: Final = {"memory": "memory", "processes": "processes", "output-full": "output-limit"}
CARRIER_LOG_BYTES: Final = 64 * 1024
#: For the last of a log to arrive.
LOG_SECONDS: Final = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class _Look:
    """What one look at the cluster gave; ``pod`` is empty until a container has run in one."""

    verdict: Ended | Going
    pod: str


class _LogReader(threading.Thread):
    """Follows the job's log: into the file, and its progress lines to where they are proven."""

    def __init__(self, cluster: Cluster, spec: SandboxSpec, pod: str) -> None:
        super().__init__(name="glovebox-log", daemon=True)
        self._cluster = cluster
        self._spec = spec
        self._pod = pod
        self._line = b""
        self._taken = 0
        self._ended = threading.Event()
        self.reader = ProgressReader(spec.metrics, spec.code, spec.progress)

    def finish(self) -> None:
        """Say that nothing more will be written, and wait for what was."""
        self._ended.set()
        self.join(LOG_SECONDS)

    def run(self) -> None:
        """Read until the container ends or the log's limit is reached; reconnect in between."""
        limit = int(self._spec.limits.log_bytes)
        with self._opened() as log:
            while self._taken < limit:
                last = self._ended.is_set()
                at = 0
                for data in self._cluster.log(self._pod, JOB, limit):
                    # After a broken connection the log comes from its start again.
                    new = data[max(0, self._taken - at) :]
                    at += len(data)
                    log.write(new)
                    log.flush()
                    self._taken += len(new)
                    self._take(new)
                if last:
                    return
                self._ended.wait(1.0)

    def _opened(self) -> contextlib.AbstractContextManager[IO[bytes]]:
        log = self._spec.log
        if log is None or isinstance(log, Path):
            return (log or Path(os.devnull)).open("wb")
        return contextlib.nullcontext(log)

    def _take(self, data: bytes) -> None:
        # Ordinary prints go by; only what looks like our lines is given on to be proven.
        *lines, self._line = (self._line + data).split(b"\n")
        self._line = self._line[-65536:]
        for line in lines:
            if line.startswith((b'{"step"', b'{"fault"')):
                self.reader.feed(line + b"\n")


@dataclass
class _Watched:
    """How watching ended; ``since`` is when the job began to run, on our monotonic clock."""

    ended: Ended
    pod: str = ""
    since: float | None = None
    log: _LogReader | None = None


class KubernetesBackend:
    """Seals a process tree in a pod under gVisor or Kata, without network."""

    name = "kubernetes"

    def __init__(
        self, minimum: str = "bubblewrap", settings: ClusterSettings | None = None
    ) -> None:
        """``minimum`` isolation is a word of ISOLATION; settings default to the chart's."""
        self._minimum = minimum
        self._given = settings

    @functools.cached_property
    def settings(self) -> ClusterSettings:
        """The cluster's settings. Raises CannotRun without any."""
        return self._given if self._given is not None else load_settings()

    @functools.cached_property
    def _cluster(self) -> Cluster:
        return Cluster(self.settings.namespace)

    def version(self) -> str:
        """Return the API server's version and the runtime class, ``""`` without a cluster."""
        try:
            runtime = self.settings.runtime_class(self._minimum)
            return f"{self._cluster.version()} {runtime.name}".strip()
        except (CannotRun, Unreachable):
            return ""

    def check(self) -> list[Line]:
        """Ask the cluster for what seals a pod, line by line.

        Whether its network plug-in enforces NetworkPolicy cannot be asked, only tried: that line
        is weak at best.
        """
        try:
            return self._lines()
        except CannotRun as error:
            return [Line("cluster", "missing", str(error), "install the chart")]
        except Unreachable:
            return [Line("cluster", "missing", "the API does not answer", "look at KUBECONFIG")]

    def _lines(self) -> list[Line]:
        runtime = self.settings.runtime_class(self._minimum)
        version = self._cluster.version()
        labels = self._cluster.namespace_labels()
        policies = self._cluster.network_policies()
        there = self._cluster.has_runtime_class(runtime.name)
        restricted = labels.get("pod-security.kubernetes.io/enforce") == "restricted"
        denied = any(_denies_all(policy) for policy in policies)
        roots = all(p.is_dir() for p in (self.settings.staging_root, self.settings.outbox_root))
        return [
            Line("cluster", "held", version),
            _line("runtime-class", there, runtime.name, "install gVisor or Kata on the nodes"),
            _line("pod-security", restricted, "restricted", "label the sandbox namespace"),
            Line(
                "network",
                "weak" if denied else "missing",
                "a policy denies all traffic" if denied else "no policy denies all traffic",
                "use a network plug-in that enforces NetworkPolicy, egress too",
            ),
            _line("storage", roots, "staging and outbox", "mount both claims in the worker"),
            Line(
                "processes",
                "weak",
                "by RLIMIT_NPROC inside",
                "set podPidsLimit in the kubelet's configuration",
                required=False,
            ),
        ]

    def _runtime(self) -> RuntimeClass:
        """Return the runtime class to use. Raises CannotRun unless all required lines hold."""
        lines = self._persist(self._lines)
        missing = [line for line in lines if line.required and line.state == "missing"]
        if missing:
            raise CannotRun(
                "This cluster does not give {name}: {detail}. {advice}.",
                code="sandbox.isolation",
                name=missing[0].name,
                detail=missing[0].detail,
                advice=missing[0].advice,
            )
        return self.settings.runtime_class(self._minimum)

    def run(self, spec: SandboxSpec, cancel: threading.Event | None = None) -> SandboxResult:
        """Run to the end, or until ``cancel`` is set; take up a Job of the same spec.

        Processor seconds and peak memory are 0: the API does not tell them. Raises CannotRun
        where the cluster cannot seal a pod or stays away, Invalid for a spec that no pod can be,
        Conflict where another sandbox of this id runs.
        """
        runtime = self._runtime()
        # Proven before anything is copied for it.
        anywhere = tuple(
            replace(mount, source=self.settings.staging_root / "any") for mount in spec.mounts
        )
        job_manifest(replace(spec, mounts=anywhere), self.settings, runtime)
        lent = storage.lend(spec, self.settings)
        storage.outbox(spec.id, self.settings)
        began = time.monotonic()
        try:
            self._persist(lambda: self._cluster.create(job_manifest(lent, self.settings, runtime)))
        except Refused:
            storage.forget(spec.id, self.settings)
            return self._result(Ended("refused", "resources"), 0.0)
        watched = self._watch(spec, cancel or threading.Event())
        left: tuple[Rejected, ...] = ()
        if watched.ended.state == "finished" and spec.output is not None:
            left = self._left(watched.pod) + storage.bring(spec, spec.output, self.settings)
        self._delete(spec)
        if watched.log is not None:
            watched.log.finish()
        storage.forget(spec.id, self.settings)
        seconds = time.monotonic() - (watched.since or began)
        return self._result(watched.ended, seconds, watched.log, left)

    def start(self, spec: SandboxSpec) -> RunningSandbox:
        """Raise CannotRun: a pod has no pipes that the runner may hold."""
        raise CannotRun(
            "A pod cannot be held by pipes; oracles run on one machine.",
            code="sandbox.kubernetes.pipes",
        )

    def sweep(self) -> int:
        """Remove directories whose Job is gone; finished Jobs go by themselves."""
        try:
            return storage.sweep(self._cluster.jobs(), self.settings)
        except (CannotRun, Unreachable):
            return 0

    def _persist(self, call: Callable[[], T]) -> T:
        """Ask until the API answers. Raises CannotRun after AWAY_SECONDS."""
        until = time.monotonic() + AWAY_SECONDS
        while True:
            try:
                return call()
            except Unreachable as error:
                if time.monotonic() > until:
                    raise CannotRun(
                        "The cluster's API is away; the job is taken up again when it is back.",
                        code="sandbox.kubernetes.away",
                    ) from error
                time.sleep(self.settings.poll_seconds)

    def _look(self, name: str) -> _Look:
        job = self._cluster.job(name)
        pods = self._cluster.pods(name)
        objects = [*pods, *([job] if job else [])]
        events = self._cluster.events(frozenset(item["metadata"]["uid"] for item in objects))
        ran = [pod["metadata"]["name"] for pod in pods if has_run(pod)]
        return _Look(judge(job, pods, events), ran[-1] if ran else "")

    def _watch(self, spec: SandboxSpec, cancel: threading.Event) -> _Watched:
        """Look until it ends, is cancelled, or is late; keep the job's own wall clock."""
        watched = _Watched(Ended("stopped", "cancelled"))
        waiting_since = time.monotonic()
        while True:
            look = self._persist(lambda: self._look(job_name(spec.id)))
            watched.pod = look.pod or watched.pod
            if watched.log is None and watched.pod:
                watched.log = _LogReader(self._cluster, spec, watched.pod)
                watched.log.start()
            if isinstance(look.verdict, Ended):
                watched.ended = look.verdict
                if watched.log is not None:
                    watched.log.finish()
                return watched
            now = time.monotonic()
            going = look.verdict
            if going.started is not None and watched.since is None:
                # By the node's clock, for a job that another runner started; never in the future.
                age = (dt.datetime.now(dt.UTC) - going.started).total_seconds()
                watched.since = now - max(0.0, age)
            if going.queued:
                waiting_since = now
            if cancel.is_set():
                return watched
            if going.started is not None and watched.since is not None:
                if now - watched.since > spec.limits.wall_seconds:
                    watched.ended = Ended("stopped", "timeout")
                    return watched
            elif watched.since is None and now - waiting_since > self.settings.start_seconds:
                watched.ended = Ended("refused", "resources")
                return watched
            cancel.wait(self.settings.poll_seconds)

    def _left(self, pod: str) -> tuple[Rejected, ...]:
        """Return what the carrier says that it left; shown inert, believed in nothing else."""
        text = b"".join(self._cluster.log(pod, CARRIER, CARRIER_LOG_BYTES))
        try:
            rows = json.loads(text)["left"]
            return tuple(Rejected(shown(str(path)), shown(str(why))) for path, why in rows)
        except (ValueError, KeyError, TypeError, RecursionError):
            return ()

    def _delete(self, spec: SandboxSpec) -> None:
        """Delete the Job and wait until its pods are gone, or a minute after their grace."""
        name = job_name(spec.id)
        self._persist(lambda: self._cluster.delete(name))
        until = time.monotonic() + spec.limits.grace_seconds + DELETE_SECONDS
        while time.monotonic() < until:
            if self._persist(lambda: self._cluster.job(name)) is None:
                return
            time.sleep(self.settings.poll_seconds)

    def _result(
        self,
        ended: Ended,
        seconds: float,
        log: _LogReader | None = None,
        left: tuple[Rejected, ...] = (),
    ) -> SandboxResult:
        reason, fault = ended.reason, None
        if log is not None and (ended.state, ended.reason) == ("failed", "exit"):
            reason = CAUSES.get(log.reader.cause or "", ended.reason)
            fault = log.reader.fault
        return SandboxResult(
            state=ended.state,
            reason=reason,
            exit_code=ended.exit_code,
            wall_seconds=seconds,
            cpu_seconds=0.0,
            peak_memory_bytes=0,
            backend=self.name,
            backend_version=self.version(),
            fault=fault,
            left_behind=left,
        )


def _line(name: str, held: bool, detail: str, advice: str) -> Line:
    return Line(name, "held" if held else "missing", detail, "" if held else advice)


def _denies_all(policy: Mapping[str, Any]) -> bool:
    """Return whether a NetworkPolicy selects every pod and allows nothing in or out."""
    spec = policy.get("spec", {})
    return (
        not spec.get("podSelector")
        and set(spec.get("policyTypes", ())) == {"Ingress", "Egress"}
        and not spec.get("ingress")
        and not spec.get("egress")
    )
