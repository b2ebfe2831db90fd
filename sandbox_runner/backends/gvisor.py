"""Seal a process tree with gVisor: a kernel of its own between the program and this machine's.

``runsc run`` with an OCI bundle of ours, never ``runsc do``, which shows the host's root. The
supervisor stays root here, because runsc sets up its own confinement, but everything of it lives
in a process namespace that ends with its first process.

Which platform intercepts system calls is found by trying. Debian 12 packages a runsc of 2022,
which has only ptrace (slow: every call stops the program twice) and kvm; newer ones from
https://gvisor.dev/docs/user_guide/install/ have systrap.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from policies.errors import CannotRun
from sandbox_runner import image as images
from sandbox_runner import scratch
from sandbox_runner.backends import gpus as graphics
from sandbox_runner.backends import seccomp
from sandbox_runner.backends.interface import Line
from sandbox_runner.backends.local import (
    INNER_ID,
    STAGE,
    Command,
    Descriptors,
    Ends,
    LocalBackend,
    thread_counts,
)
from sandbox_runner.place import FIRST_UID, UIDS, directory
from sandbox_runner.spec import MiB, Mount, SandboxSpec

#: Fastest first.
PLATFORMS: Final = ("systrap", "kvm", "ptrace")
TRY_SECONDS: Final = 3
PR_SET_PDEATHSIG: Final = 1
DOORS: Final = "/opt/doors"
PROGRESS_FD: Final = 9

# runsc hands no descriptors on, so a shell opens the progress pipe under its number first. The
# empty line says that the program began.
OPEN_DOORS: Final = f'exec {PROGRESS_FD}>>{DOORS}/progress; echo >&{PROGRESS_FD}; exec "$@"'

FLAGS: Final = (
    "--network=none",  # nothing but a loopback of its own
    "--ignore-cgroups",  # the groups around it are ours
    "--host-fifo=open",  # of the mounts only the progress pipe is one
    "--host-uds=none",
    "--oci-seccomp",  # the same calls as with bubblewrap, before its own kernel sees them
    # Nobody else writes to what is mounted while it runs, so names and sizes may be remembered.
    "--file-access-mounts=exclusive",
    "--overlay2=none",
)


class GVisor(LocalBackend):
    """The backend. One object may run many sandboxes at once."""

    name = "gvisor"
    program = "runsc"
    advice = "see https://gvisor.dev/docs/user_guide/install/"
    # Threads of runsc, its gofer and its kernel; under ptrace also a stub a process and thread.
    own_processes = 256
    own_bytes = 192 * MiB

    def version(self) -> str:
        """Return version and platform, ``""`` where runsc is not installed."""
        if self._path is None:
            return ""
        return f"{_version(self._path)} {self.platform or 'no platform'}"

    @functools.cached_property
    def platform(self) -> str | None:
        """The fastest platform that works here; None where none does.

        Tried once a boot and release: a platform that hangs takes seconds to find out about.
        """
        if self._path is None or not self._root:
            return None
        status = Path(self._path).stat()
        key = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
        note = directory() / "gvisor-platform.json"
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(note.read_text(encoding="ascii"))
            if found["key"] == key and found["platform"]:
                return str(found["platform"])
        platform = next((name for name in PLATFORMS if _works(self._path, name)), None)
        if platform is None:
            return None  # asked again by the next process: it may lie in this one's rights
        # In place: half of it is no JSON, and under a second name a kill would leave it for good.
        note.write_text(json.dumps({"key": key, "platform": platform}), encoding="ascii")
        return platform

    @property
    def auto(self) -> bool:
        """ptrace is many times slower, so it is used only where it is asked for."""
        return self.platform not in (None, "ptrace")

    def check(self) -> list[Line]:
        """Try, and say line by line what this machine enforces."""
        if self._path is not None and not self._root:
            return [Line("starts", "missing", "needs root", "run as root, or use bubblewrap")]
        if self._path is not None and self.platform is None:
            return [Line("starts", "missing", "no platform of gVisor works here", self.advice)]
        lines = super().check()
        if self.platform == "ptrace":
            lines.append(
                Line(
                    "a fast platform",
                    "weak",
                    "ptrace only: auto prefers bubblewrap where the policy lets it",
                    f"a runsc with systrap: {self.advice}",
                    required=False,
                )
            )
        return lines

    def command(
        self,
        spec: SandboxSpec,
        image: images.Image,
        mounts: tuple[Mount, ...],
        descriptors: Descriptors,
        ends: Ends,
        uid: int | None,
    ) -> Command:
        """Return how to call runsc for one sandbox."""
        if uid is None or self.platform is None:
            raise CannotRun(
                "gVisor cannot run here: it needs root and a platform that works.",
                code="sandbox.isolation",
            )
        if spec.extra_fds:
            raise CannotRun("gVisor hands no descriptors on.", code="sandbox.isolation")
        flags = self.gpu_flags(spec.limits.gpus)
        config = bundle(spec, image, mounts, uid)
        return Command(
            argv=(
                *("runsc", f"--root={STAGE}/state", f"--platform={self.platform}", *FLAGS),
                *flags,
                *("run", f"--bundle={STAGE}/bundle", spec.id),
            ),
            plan={
                "terminate": ["runsc", f"--root={STAGE}/state", "kill", spec.id, "TERM"],
                "apart": True,
                "fifo": DOORS,
                "bundle": {"config.json": json.dumps(config)},
                "env": {"PATH": "/usr/bin:/bin"},
                # The limits of descriptors and processes hold inside; outside is gVisor itself.
                "rlimits": {"RLIMIT_CORE": 1},
            },
        )

    def gpu_flags(self, gpus: int) -> tuple[str, ...]:
        """Return the flags for GPUs. Raises CannotRun where this runsc cannot speak to the driver.

        It forwards the calls that it knows of the driver's own version, and no others.
        """
        if not gpus:
            return ()
        assert self._path is not None
        if "nvproxy" not in _flags(self._path):
            raise CannotRun(
                "This runsc ({version}) has no nvproxy, and so no GPU: a newer one is needed, or "
                "gpus = 0.",
                field="resources.gpus",
                code="sandbox.resources",
                version=_version(self._path),
            )
        driver = graphics.find()
        known = _drivers(self._path)
        if known and driver.version not in known:
            raise CannotRun(
                "This runsc does not know the NVIDIA driver {driver}; it knows: {known}.",
                field="resources.gpus",
                code="sandbox.resources",
                driver=driver.version,
                known=", ".join(sorted(known)),
            )
        return ("--nvproxy", f"--nvproxy-driver-version={driver.version}")

    def terminator(self, pid: int, control: socket.socket) -> Callable[[], None]:
        """Return how to send SIGTERM to the program: runsc itself would end, and not pass it on."""

        def terminate() -> None:
            with contextlib.suppress(OSError):
                control.send(b"term")

        return terminate


def bundle(
    spec: SandboxSpec,
    image: images.Image,
    mounts: tuple[Mount, ...],
    uid: int,
) -> dict[str, Any]:
    """Return the OCI configuration (runtime-spec 1.0.2) of one sandbox."""
    limits = spec.limits
    environment = {
        **image.env,
        **thread_counts(spec),
        **spec.env,
        "GLOVEBOX_PROGRESS_FD": str(PROGRESS_FD),
    }
    binds = [
        _bind(f"{STAGE}/m{index}", mount.target, "rw" if mount.writable else "ro",
              *(["noexec"] if os.statvfs(mount.source).f_flag & os.ST_NOEXEC else []))
        for index, mount in enumerate(mounts)
    ]  # fmt: skip
    binds += [
        _bind(f"{STAGE}/doors", DOORS, "rw"),
        _bind(f"{STAGE}/tmp", "/tmp", "rw"),  # noqa: S108 - inside
        _bind(f"{STAGE}/shm", "/dev/shm", "rw", "noexec"),  # noqa: S108
    ]
    if spec.output is not None:
        binds.append(_bind(f"{STAGE}/output", "/output", "rw", "noexec"))
    return {
        "ociVersion": "1.0.2",
        "root": {"path": f"{STAGE}/root", "readonly": True},
        "hostname": "glovebox",
        "process": {
            "terminal": False,
            "user": {"uid": INNER_ID, "gid": INNER_ID},
            "args": ["/bin/sh", "-c", OPEN_DOORS, "sh", *spec.argv],
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": spec.workdir,
            "noNewPrivileges": True,
            "capabilities": {
                kind: [] for kind in ("bounding", "effective", "inheritable", "permitted")
            },
            "rlimits": [
                {"type": name, "hard": value, "soft": value}
                for name, value in (
                    ("RLIMIT_CORE", 0),
                    ("RLIMIT_NOFILE", limits.open_files),
                    ("RLIMIT_NPROC", limits.processes),
                )
            ],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            *binds,
        ],
        "linux": {
            "namespaces": [
                {"type": kind}
                for kind in ("user", "pid", "network", "ipc", "uts", "mount", "cgroup")
            ],
            "uidMappings": _mappings(uid),
            "gidMappings": _mappings(uid),
            "devices": [
                {
                    "path": path,
                    "type": "c",
                    "major": major,
                    "minor": minor,
                    "fileMode": 0o666,
                    "uid": 0,
                    "gid": 0,
                }
                for path, _, major, minor in image.devices
            ],
            "seccomp": seccomp.oci(gpus=spec.limits.gpus > 0),
        },
    }


def _mappings(uid: int) -> list[dict[str, int]]:
    """Return who is whom: runsc's own processes are nobody on this machine, either.

    The first user of the namespace is theirs, and another than the program's: as the owner of the
    program's files it could not be told from it.
    """
    return [
        {"containerID": 0, "hostID": uid + UIDS, "size": 1},
        {"containerID": INNER_ID, "hostID": uid, "size": 1},
    ]


def _bind(source: str, target: str, *options: str) -> dict[str, Any]:
    # What the mount below has is named again: in a user namespace runsc may not take it away.
    options = ("bind", "nosuid", "nodev", *options)
    return {"destination": target, "type": "bind", "source": source, "options": list(options)}


@functools.cache
def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    first = done.stdout.splitlines()[0] if done.stdout else ""
    return first.removeprefix("runsc version ").strip()


@functools.cache
def _flags(program: str) -> str:
    done = subprocess.run([program, "flags"], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@functools.cache
def _drivers(program: str) -> frozenset[str]:
    """Return the driver versions that this runsc names, empty where it does not say."""
    done = subprocess.run(
        [program, "nvproxy", "list-supported-drivers"], capture_output=True, text=True, check=False
    )
    return frozenset(re.findall(r"^\d+(?:\.\d+)+$", done.stdout, re.MULTILINE))


def _works(program: str, platform: str) -> bool:
    """Return whether a trivial program runs under a platform."""
    if platform == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    with scratch.folder() as folder:
        shell = Path("/bin/sh").resolve()
        config = {
            "ociVersion": "1.0.2",
            # Not read-only: remounting the host's root is more than a user namespace may do.
            "root": {"path": "/"},
            "process": {"user": {"uid": INNER_ID, "gid": INNER_ID}, "cwd": "/", "env": [],
                        "args": [str(shell), "-c", "exit 7"], "noNewPrivileges": True},
            "linux": {"namespaces": [{"type": "user"}, {"type": "network"}, {"type": "pid"}],
                      "uidMappings": _mappings(FIRST_UID), "gidMappings": _mappings(FIRST_UID)},
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        try:
            # A platform that does not work may hang. In a namespace of its own nothing of the trial
            # outlives its first process, nor that one us, however we end.
            done = subprocess.run(
                ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
                 program, f"--root={folder}/state", f"--platform={platform}", "--network=none",
                 "--ignore-cgroups", "run", f"--bundle={folder}", f"try-{platform}"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                timeout=TRY_SECONDS, check=False, start_new_session=True,
                preexec_fn=_die_with_us,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 7


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
