"""From a SandboxSpec to the Job that seals it: a pure function over plain values.

Every field says no to something; the reason stands beside it. The chart's admission policy holds
pods to the same form, so that a fault here is refused by the API server too.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from policies.errors import CannotRun, Invalid
from sandbox_runner.backends.kubernetes_settings import ClusterSettings, RuntimeClass
from sandbox_runner.spec import Limits, Mount, SandboxSpec

Manifest = dict[str, Any]

#: The untrusted container, and ours that carries /output away after its end.
JOB: Final = "job"
CARRIER: Final = "carrier"
ROLE_LABEL: Final = "glovebox/role"
JOB_LABEL: Final = "glovebox/job"
DIGEST: Final = "glovebox/spec-sha256"

#: For the carrier to copy /output, on top of the job's own time.
CARRY_SECONDS: Final = 900
#: The container's own log files; the kubelet turns them at 10 MiB and keeps five.
LOG_SPACE: Final = 64 * 1024 * 1024
CARRIER_MEMORY: Final = 512 * 1024 * 1024
#: argv and env end in one object of the cluster, which may hold little more than a megabyte.
COMMAND_BYTES: Final = 64 * 1024
MAX_SECONDS: Final = 7 * 24 * 3600

ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - the sandbox's own, in memory
    "TMPDIR": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONPATH": "/opt/sdk",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "GLOVEBOX_CODE": "/code",
    "GLOVEBOX_DATA": "/data",
    "GLOVEBOX_OUTPUT": "/output",
    # A pod has no further descriptor: progress travels in the log, where anything may stand, and
    # is proven line by line as on one machine.
    "GLOVEBOX_PROGRESS_FD": "1",
}

_ID: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# An allow-list: nothing can be mounted over /var/run/secrets, /etc, /proc or the interpreter.
# Of /opt only the places of our own small programs.
_TARGET: Final = re.compile(
    r"/(code|data|mnt)(/[A-Za-z0-9_][-A-Za-z0-9_.]{0,127}){0,8}|/opt/(glovebox|recipes|oracle)"
)
_SUB_PATH: Final = re.compile(r"[^\x00-\x1f\x7f\\:]{1,1024}")


def job_name(spec_id: str) -> str:
    """Return the name of the Job of a sandbox: always valid, the same for the same id.

    Raises Invalid for an id that is not a label's value.
    """
    if _ID.fullmatch(spec_id) is None:
        raise Invalid(
            "A sandbox's id has at most 63 letters, digits, dots, dashes and underscores.",
            field="id",
            code="sandbox.id",
        )
    return "gb-" + hashlib.sha256(spec_id.encode()).hexdigest()[:40]


def literal(value: str) -> str:
    """Return ``value`` so that the kubelet's expansion of ``$(NAME)`` gives it back unchanged.

    The kubelet replaces $(NAME) in command and args by the container's environment, in which the
    cluster's own KUBERNETES_* variables always stand; $$ is its way to write one $.
    """
    return value.replace("$", "$$")


def sealed_command(spec: SandboxSpec) -> list[str]:
    """Return the command: limits by prlimit, an empty environment by env -i, then the program.

    ``enableServiceLinks: false`` leaves KUBERNETES_SERVICE_HOST and its kin in the environment,
    and no field of a pod removes them; ``env -i`` starts the program without. No shell reads it.
    Raises Invalid for a value that would mean something else to prlimit or env.
    """
    environment = {**ENVIRONMENT, **spec.env}
    for name, value in environment.items():
        if _ENV_NAME.fullmatch(name) is None or "\x00" in value:
            raise Invalid("An environment variable's name or value is wrong.", field="env")
    if not spec.argv or any("\x00" in word for word in spec.argv):
        raise Invalid("A sandbox needs a program, without NUL.", field="argv")
    if spec.argv[0].startswith("-") or "=" in spec.argv[0] or not spec.argv[0]:
        raise Invalid("The program's name may not look like an option.", field="argv")
    limits = spec.limits
    words = [
        "/usr/bin/prlimit",
        f"--nproc={limits.processes}:{limits.processes}",
        f"--nofile={limits.open_files}:{limits.open_files}",
        "--core=0:0",
        "/usr/bin/env",
        "-i",
        *(f"{name}={value}" for name, value in sorted(environment.items())),
        *spec.argv,
    ]
    if sum(len(os.fsencode(word)) + 1 for word in words) > COMMAND_BYTES:
        raise Invalid("The command and its environment are too long.", field="argv")
    return [literal(word) for word in words]


def check_limits(limits: Limits) -> None:
    """Raise Invalid, naming the field, for a limit that is not a finite positive number."""
    for name, value in vars(limits).items():
        lowest = 0 if name == "gpus" else 1e-3
        if isinstance(value, bool) or not math.isfinite(value) or not lowest <= value < 2**50:
            raise Invalid("A limit is a positive number.", field=f"limits.{name}")
    if limits.wall_seconds > MAX_SECONDS:
        raise Invalid("A sandbox may run for a week.", field="limits.wall_seconds")


def _check_only_what_pods_can(spec: SandboxSpec) -> None:
    if spec.stdin is not None or spec.extra_fds:
        raise CannotRun(
            "A pod has no standard input and inherits no descriptor; run this on one machine.",
            code="sandbox.kubernetes.pipes",
        )
    if any(mount.writable for mount in spec.mounts):
        raise CannotRun(
            "A pod gets no writable mount but its own /output.",
            code="sandbox.kubernetes.writable",
        )


def sub_path(root: Path, source: Path) -> str:
    """Return where ``source`` lies under the claim mounted at ``root``. Raises CannotRun."""
    relative = os.path.relpath(source, root) if source.is_absolute() else ".."
    parts = Path(relative).parts
    if not parts or ".." in source.parts or ".." in parts or _SUB_PATH.fullmatch(relative) is None:
        raise CannotRun(
            "What a pod mounts must lie under the staging directory of the cluster's settings.",
            code="sandbox.kubernetes.staging",
        )
    return relative


def _mounts(spec: SandboxSpec, settings: ClusterSettings) -> list[Manifest]:
    targets = [mount.target for mount in spec.mounts]
    if len(set(targets)) != len(targets):
        raise Invalid("Two mounts have the same place.", field="mounts")
    return [_mount(mount, settings) for mount in spec.mounts]


def _mount(mount: Mount, settings: ClusterSettings) -> Manifest:
    if _TARGET.fullmatch(mount.target) is None:
        raise Invalid("Mounts lie under /code, /data, /mnt or in a place of ours.", field="mounts")
    return {
        "name": "staging",
        "mountPath": mount.target,
        "subPath": sub_path(settings.staging_root, mount.source),
        "readOnly": True,
    }


def _quantities(cpus: float, memory: int, disk: int, gpus: Mapping[str, int]) -> Manifest:
    amounts = {
        "cpu": f"{max(1, math.ceil(cpus * 1000))}m",
        "memory": str(memory),
        # Logs and the few bytes of the runtime; everything else the job writes is memory.
        "ephemeral-storage": str(disk),
        **{name: str(count) for name, count in gpus.items() if count},
    }
    # Requests equal limits: nobody is promised less than they may use, and no node is overbooked.
    return {"requests": dict(amounts), "limits": dict(amounts)}


CONTAINER_SECURITY: Final[Manifest] = {
    "allowPrivilegeEscalation": False,  # no_new_privs: no setuid program helps
    "readOnlyRootFilesystem": True,
    "privileged": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}


def _container(name: str, image: str, command: list[str], **rest: Any) -> Manifest:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",  # a digest names the same bytes for ever
        "command": command,
        "securityContext": json.loads(json.dumps(CONTAINER_SECURITY)),
        # Never FallbackToLogsOnError: the log would stand in the pod's status.
        "terminationMessagePolicy": "File",
        **rest,
    }


def _memory_volume(name: str, size: int) -> Manifest:
    # A tmpfs of this size: a hard limit, no plain text on the node's disk, gone with the pod.
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": str(size)}}


def _claim_volume(name: str, claim: str, *, read_only: bool) -> Manifest:
    return {
        "name": name,
        "persistentVolumeClaim": {"claimName": claim, "readOnly": read_only},
    }


def _containers(spec: SandboxSpec, settings: ClusterSettings) -> tuple[Manifest, Manifest | None]:
    limits = spec.limits
    memory_mounts = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the sandbox's own
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        {"name": "output", "mountPath": "/output"},
    ]
    job = _container(
        JOB,
        settings.image(spec.image),
        sealed_command(spec),
        workingDir=spec.workdir,
        resources=_quantities(
            limits.cpus,
            int(limits.memory_bytes),
            LOG_SPACE + int(limits.log_bytes),
            {settings.gpu_resource: limits.gpus},
        ),
        volumeMounts=memory_mounts + _mounts(spec, settings),
    )
    if spec.output is None:
        return job, None
    command = [
        "/usr/bin/env",
        "-i",
        f"PATH={ENVIRONMENT['PATH']}",
        "python",
        "-I",  # nothing of the working directory or the environment is imported
        "-m",
        "sandbox_runner.backends.kubernetes_carry",
        "/output",
        "/outbox",
        str(int(limits.output_bytes)),
        str(limits.output_inodes),
    ]
    carrier = _container(
        CARRIER,
        settings.carrier_image,
        command,
        workingDir="/",
        resources=_quantities(1, CARRIER_MEMORY, LOG_SPACE, {}),
        volumeMounts=[
            {"name": "output", "mountPath": "/output", "readOnly": True},
            {"name": "outbox", "mountPath": "/outbox", "subPath": job_name(spec.id)},
        ],
    )
    return job, carrier


def _seccomp(settings: ClusterSettings) -> Manifest:
    if settings.seccomp_profile:
        return {"type": "Localhost", "localhostProfile": settings.seccomp_profile}
    return {"type": "RuntimeDefault"}


def deadline_seconds(spec: SandboxSpec, settings: ClusterSettings) -> int:
    """Return after how many seconds the kubelet ends the pod, whoever still watches.

    The job's own wall clock starts with its container and is kept by the runner; this one starts
    with the pulling of images and holds when the runner is gone.
    """
    limits = spec.limits
    own = math.ceil(limits.wall_seconds) + math.ceil(limits.grace_seconds)
    return min(settings.start_seconds + own + CARRY_SECONDS, MAX_SECONDS)


def pod_spec(spec: SandboxSpec, settings: ClusterSettings, runtime: RuntimeClass) -> Manifest:
    """Return the pod's spec. Raises Invalid or CannotRun for what a sealed pod cannot be."""
    _check_only_what_pods_can(spec)
    check_limits(spec.limits)
    if spec.workdir != "/tmp" and _TARGET.fullmatch(spec.workdir) is None:  # noqa: S108
        raise Invalid("The working directory is /tmp or a mount.", field="workdir")
    job, carrier = _containers(spec, settings)
    limits = spec.limits
    volumes = [
        _memory_volume("tmp", int(limits.tmp_bytes)),
        _memory_volume("shm", int(limits.shm_bytes)),
        _memory_volume("output", int(limits.output_bytes)),
    ]
    if spec.mounts:
        volumes.append(_claim_volume("staging", settings.staging_claim, read_only=True))
    if carrier is not None:
        volumes.append(_claim_volume("outbox", settings.outbox_claim, read_only=False))
    pod: Manifest = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": deadline_seconds(spec, settings),
        "terminationGracePeriodSeconds": math.ceil(limits.grace_seconds),
        "runtimeClassName": runtime.name,
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostNetwork": False,
        "hostPID": False,
        "hostIPC": False,
        "shareProcessNamespace": False,
        "hostname": "sandbox",  # not the Job's name
        # Nobody listens there and no packet for it leaves the pod.
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": [settings.nameserver]},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.uid,
            "runAsGroup": settings.uid,
            "seccompProfile": _seccomp(settings),
        },
        "volumes": volumes,
    }
    if runtime.user_namespaces:
        pod["hostUsers"] = False
    if settings.priority_class:
        pod["priorityClassName"] = settings.priority_class
    if settings.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.pull_secrets]
    if carrier is None:
        pod["containers"] = [job]
    else:
        # An init container must have ended, with all its processes, before ours starts; where it
        # fails ours never starts, and a failed job leaves nothing.
        pod["initContainers"] = [job]
        pod["containers"] = [carrier]
    return pod


def job_manifest(spec: SandboxSpec, settings: ClusterSettings, runtime: RuntimeClass) -> Manifest:
    """Return the Job. Its annotation is a digest of all the rest: the same spec, the same Job."""
    name = job_name(spec.id)
    pod = pod_spec(spec, settings, runtime)
    labels = {ROLE_LABEL: "sandbox", JOB_LABEL: spec.id}
    if settings.queue:
        labels["kueue.x-k8s.io/queue-name"] = settings.queue
    manifest: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": labels,
        },
        "spec": {
            "backoffLimit": 0,  # a job is run once; whether again is not the cluster's choice
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",  # never a second pod beside a terminating one
            "activeDeadlineSeconds": deadline_seconds(spec, settings) + settings.start_seconds,
            "ttlSecondsAfterFinished": settings.keep_seconds,
            # Kueue admits it. Were Kueue away, an unsuspended Job would pass by the queue.
            "suspend": bool(settings.queue),
            "template": {
                "metadata": {"labels": {ROLE_LABEL: "sandbox", JOB_LABEL: spec.id}},
                "spec": pod,
            },
        },
    }
    plain = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    manifest["metadata"]["annotations"] = {DIGEST: hashlib.sha256(plain.encode()).hexdigest()}
    return manifest
