"""Run a sandbox as a hardened Job of a Kubernetes cluster.

The Job's name comes from the sandbox's id, so a runner that died takes its Job up again. The
cluster's own words (pods, events) are judged in kubernetes_outcome; the Job itself is made in
kubernetes_manifests. It refuses where the cluster lacks what seals a pod.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from policies.errors import CannotRun
from sandbox_runner.backends import kubernetes_storage as storage
from sandbox_runner.backends.interface import Line, RunningSandbox
from sandbox_runner.backends.kubernetes_cluster import Cluster, Refused, Unreachable
from sandbox_runner.backends.kubernetes_manifests import CARRIER, JOB, job_manifest, job_name
from sandbox_runner.backends.kubernetes_outcome import Ended, Going, judge
from sandbox_runner.backends.kubernetes_settings import (
    ClusterSettings,
    RuntimeClass,
    load_settings,
)
from sandbox_runner.progress import ProgressReader
from sandbox_runner.spec import Rejected, SandboxResult, SandboxSpec

#: An API server may be away so long (an upgrade of the control plane) before we give up watching.
AWAY_SECONDS: Final = 600.0
#: For pods to end after their Job was deleted, on top of their grace.
DELETE_SECONDS: Final = 60.0
#: What a program says of the limit that it met (sandbox_runner.progress.CAUSES) -> our reason.
CAUSES: Final = {"memory": "memory", "processes": "processes", "output-full": "output-limit"}
CARRIER_LOG_BYTES: Final = 64 * 1024


@dataclass
class _Seen:
    """What one look at the cluster gave."""

    verdict: Ended | Going
    pod: str = ""
    scheduled: bool = False


class _LogReader(threading.Thread):
    """Follows the job's log: into the file, and its progress lines to where they are proven."""

    def __init__(self, cluster: Cluster, spec: SandboxSpec, pod: str) -> None:
        super().__init__(name=f"log-{pod}", daemon=True)
        self._cluster = cluster
        self._spec = spec
        self._pod = pod
        self._line = b""
        self.reader = ProgressReader(spec.metrics, spec.code, spec.progress)

    def run(self) -> None:
        """Read until the container ends or the log's limit is reached."""
        limit = int(self._spec.limits.log_bytes)
        log = self._spec.log.open("wb") if self._spec.log is not None else None
        try:
            for data in self._cluster.log(self._pod, JOB, limit):
                if log is not None:
                    log.write(data)
                    log.flush()
                self._take(data)
        finally:
            if log is not None:
                log.close()

    def _take(self, data: bytes) -> None:
        # Ordinary prints go by; only what looks like our lines is given on to be proven.
        *lines, self._line = (self._line + data).split(b"\n")
        self._line = self._line[-65536:]
        for line in lines:
            if line.startswith((b'{"step"', b'{"fault"')):
                self.reader.feed(line + b"\n")


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
        """Ask the cluster for what seals a pod. Whether its network plug-in enforces
        NetworkPolicy cannot be asked, only tried; that line is weak."""
        try:
            runtime = self.settings.runtime_class(self._minimum)
            version = self._cluster.version()
            labels = self._cluster.namespace_labels()
            policies = self._cluster.network_policies()
            there = self._cluster.has_runtime_class(runtime.name)
        except CannotRun as error:
            return [Line("cluster", "missing", str(error), "install the chart")]
        except Unreachable:
            return [Line("cluster", "missing", "the API does not answer", "look at KUBECONFIG")]
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
        missing = [line for line in self.check() if line.required and line.state == "missing"]
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

        Raises CannotRun where the cluster cannot seal a pod, Invalid for a spec that no pod can
        be, Conflict where another sandbox of this id runs.
        """
        runtime = self._runtime()
        began = time.monotonic()
        job_manifest(spec_without_sources(spec, self.settings), self.settings, runtime)
        lent = storage.lend(spec, self.settings)
        manifest = job_manifest(lent, self.settings, runtime)
        storage.outbox(spec.id, self.settings)
        try:
            self._create(manifest)
        except Refused:
            storage.forget(spec.id, self.settings)
            return self._result(spec, Ended("refused", "resources"), 0.0, None, ())
        ended, reader = self._watch(spec, cancel or threading.Event())
        left: tuple[Rejected, ...] = ()
        if ended.state == "finished" and spec.output is not None:
            left = (*self._carrier_left(spec), *storage.bring(spec, spec.output, self.settings))
        self._delete(spec)
        storage.forget(spec.id, self.settings)
        return self._result(spec, ended, time.monotonic() - began, reader, left)

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

    def _create(self, manifest: dict[str, Any]) -> None:
        """Make the Job. Raises Refused, Conflict, and CannotRun when the API stays away."""
        self._persist(lambda: self._cluster.create(manifest))

    def _persist[T](self, call: Any) -> Any:
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
