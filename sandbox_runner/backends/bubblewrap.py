"""Seal a process tree with bubblewrap: namespaces, a system call filter and control groups.

The supervisor lays the mounts out and gives up all rights; ``bwrap`` then makes the namespaces as
a user without rights. Nothing here needs bwrap to be set-uid.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from policies.errors import CannotRun, Invalid
from sandbox_runner import image as images
from sandbox_runner.backends import cgroups, seccomp
from sandbox_runner.backends.interface import Line
from sandbox_runner.lending import Loan
from sandbox_runner.place import Claim, orphans
from sandbox_runner.running import Channels, Handle, Running
from sandbox_runner.spec import Mount, SandboxResult, SandboxSpec

#: Outer users of sandboxes, one a sandbox: beyond people, services and the usual container ranges.
FIRST_UID: Final = 1_900_000_000
UIDS: Final = 100_000_000
#: Who one is inside.
INNER_ID: Final = 1000
TMP_INODES: Final = 200_000
STAGE: Final = "/tmp"  # noqa: S108 - covered by the supervisor in its own view
SUPERVISOR: Final = Path(__file__).with_name("supervisor.py")

# Always given. The reason for each:
FLAGS: Final = (
    "--unshare-user",  # rights over nothing but what is inside
    "--unshare-ipc",  # no System V memory, semaphores or queues of others
    "--unshare-pid",  # sees, signals and traces nobody else
    "--unshare-net",  # an own network without any device but loopback
    "--unshare-uts",  # not the host's name
    "--unshare-cgroup",  # not the host's control group paths
    "--disable-userns",  # no second user namespace, and so no capabilities over new namespaces
    "--new-session",  # no typing on the terminal it was started from (TIOCSTI, CVE-2017-5226)
    "--die-with-parent",  # no survivor when the supervisor dies
    "--clearenv",
    "--cap-drop",
    "ALL",
)


def memory_file(name: str, content: bytes) -> int:
    """Return a descriptor to read ``content`` from, which exists in memory only."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def outer_uid(identifier: str) -> int:
    """Return the user of this machine as which a sandbox of this name runs when we are root."""
    return FIRST_UID + zlib.crc32(identifier.encode()) % UIDS


def check_mounts(spec: SandboxSpec) -> None:
    """Raise :class:`Invalid` for a target that is not a plain absolute path of its own."""
    reserved = {"/", "/proc", "/dev", "/sys", "/etc", "/usr", "/tmp", "/output", "/opt"}  # noqa: S108
    seen: set[str] = set()
    for mount in spec.mounts:
        parts = Path(mount.target).parts
        plain = mount.target == "/" + "/".join(parts[1:]) and ".." not in parts
        if not plain or mount.target in reserved | seen or not mount.source.is_absolute():
            raise Invalid(
                "A mount needs an absolute source and a target of its own.",
                field="mounts",
                code="sandbox.mount",
            )
        seen.add(mount.target)


class Bubblewrap:
    """The backend. One object may run many sandboxes at once."""

    name = "bubblewrap"

    def __init__(self) -> None:
        self._program = shutil.which("bwrap")
        self._root = os.geteuid() == 0
        self._hierarchy = cgroups.find()

    def version(self) -> str:
        """Return the version of bwrap, ``""`` where it is not installed."""
        if self._program is None:
            return ""
        return _version(self._program)

    def check(self) -> list[Line]:
        """Try, and say line by line what this machine enforces."""
        from sandbox_runner.backends import trial

        return trial.lines(self, self._hierarchy, root=self._root)

    def run(self, spec: SandboxSpec, cancel: threading.Event | None = None) -> SandboxResult:
        """Run to the end, or until ``cancel`` is set. Raises CannotRun where it cannot seal."""
        running = self._start(spec, piped=False)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    return running.wait(None if cancel is None else 0.1)
                if cancel is not None and cancel.is_set():
                    running.stop("cancelled")
        finally:
            # An exception in this thread (KeyboardInterrupt) must not leave it running.
            running.kill()

    def start(self, spec: SandboxSpec) -> Running:
        """Start with pipes on standard input and output; the caller must wait() or kill()."""
        return self._start(spec, piped=True)

    def sweep(self) -> int:
        """End and remove what dead runners left: processes, control groups, locks."""
        removed = 0
        for claim in orphans(cgroups.leftovers(self._hierarchy)):
            try:
                cgroups.Group(claim.path.stem, self._hierarchy).remove()
                removed += 1
            finally:
                claim.release()
        return removed

    def _start(self, spec: SandboxSpec, *, piped: bool) -> Running:
        if self._program is None:
            raise CannotRun(
                "bubblewrap is not installed; on Debian: apt install bubblewrap",
                code="sandbox.isolation",
            )
        if spec.limits.gpus:
            raise CannotRun(
                "This backend gives no GPU yet; ask for gpus = 0.",
                field="resources.gpus",
                code="sandbox.resources",
            )
        check_mounts(spec)
        image = images.find(spec.image)
        claim = Claim(spec.id)
        group = cgroups.Group(spec.id, self._hierarchy)
        uid = outer_uid(spec.id) if self._root else None
        loan = Loan([mount.source for mount in spec.mounts if mount.writable], uid)
        try:
            # Whatever a dead runner left under this name: a living one would hold the claim.
            group.remove()
            group.create(spec.limits)
            loan.give()
            return self._launch(spec, image, group, claim, loan, uid, piped)
        except BaseException:
            group.remove()
            loan.take_back()
            claim.release()
            raise

    def _launch(
        self,
        spec: SandboxSpec,
        image: images.Image,
        group: cgroups.Group,
        claim: Claim,
        loan: Loan,
        uid: int | None,
        piped: bool,
    ) -> Running:
        ours: list[int] = []  # kept by the runner
        theirs: list[int] = []  # closed here once the supervisor has them

        def pipe() -> tuple[int, int]:
            read, write = os.pipe2(os.O_CLOEXEC)
            ours.append(read)
            theirs.append(write)
            return read, write

        try:
            log, log_write = pipe()
            progress, progress_write = pipe()
            status, status_write = pipe()
            bpf = memory_file("filter", seccomp.build(gpus=spec.limits.gpus > 0))
            theirs.append(bpf)
            mounts = (*image.mounts, *spec.mounts)
            options = self._options(spec, image, mounts, bpf, status_write, progress_write)
            arguments = memory_file("arguments", b"\0".join(map(os.fsencode, options)) + b"\0")
            theirs.append(arguments)
            keep = [bpf, arguments, progress_write, status_write, *spec.extra_fds]
            plan = self._plan(spec, image, mounts, group, uid)
            plan["keep"] = keep
            plan["program"] = self._program
            # The options travel in a descriptor: process 1 inside shows its command line.
            plan["argv"] = ["bwrap", "--args", str(arguments), "--", *spec.argv]
            plan_fd = memory_file("plan", json.dumps(plan).encode())
            theirs.append(plan_fd)
            control, control_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with control_theirs:
                # Standard input is a file in memory, read once and gone: no pipe to block on.
                given = subprocess.PIPE if piped else memory_file("input", spec.stdin or b"")
                if not piped:
                    theirs.append(given)
                supervisor = subprocess.Popen(
                    [
                        *(sys.executable, "-I", "-S", str(SUPERVISOR)),
                        *(str(plan_fd), str(control_theirs.fileno())),
                    ],
                    stdin=given,
                    stdout=subprocess.PIPE if piped else log_write,
                    stderr=log_write,
                    pass_fds=[*keep, plan_fd, control_theirs.fileno()],
                    env={},
                    cwd="/",
                    bufsize=0,
                )
        except BaseException:
            for descriptor in (*ours, *theirs):
                os.close(descriptor)
            raise
        for descriptor in theirs:
            os.close(descriptor)
        try:
            message, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
            if b'"started"' not in message:
                raise CannotRun(
                    "The sandbox could not be prepared on this machine: {why}. See `glovebox "
                    "sandbox doctor`.",
                    code="sandbox.setup",
                    why=json.loads(message).get("failed") if message else "it ended at once",
                )
        except BaseException:
            supervisor.kill()
            supervisor.wait()
            control.close()
            for descriptor in ours:
                os.close(descriptor)
            raise
        output = descriptors[0] if descriptors else None
        channels = Channels(control, log, progress, status, output)
        handle = Handle(
            backend=self.name,
            version=self.version(),
            group=group,
            claim=claim,
            supervisor=supervisor,
            terminate=_terminator(json.loads(message)["started"]),
            clean=loan.take_back,
            memory_now=self._memory_watch(group, json.loads(message)["started"]),
        )
        return Running(spec, handle, channels, supervisor.stdin, supervisor.stdout)

    def _memory_watch(self, group: cgroups.Group, pid: int) -> Callable[[], int] | None:
        """Return how to measure memory where no control group bounds it."""
        if "memory" in group.enforced:
            return None
        return lambda: tree_memory(pid)

    def _plan(
        self,
        spec: SandboxSpec,
        image: images.Image,
        mounts: tuple[Mount, ...],
        group: cgroups.Group,
        uid: int | None,
    ) -> dict[str, Any]:
        limits = spec.limits
        memory = [
            ("tmp", "/tmp", limits.tmp_bytes, TMP_INODES, True),  # noqa: S108
            ("shm", "/dev/shm", limits.shm_bytes, TMP_INODES, False),  # noqa: S108
        ]
        if spec.output is not None:
            inodes = limits.output_inodes
            memory.append(("output", "/output", limits.output_bytes, inodes, False))
        rlimits = {
            "RLIMIT_CORE": 0,  # a core dump would be a copy of the data
            "RLIMIT_NOFILE": limits.open_files,
            "RLIMIT_MSGQUEUE": 0,
        }
        if "pids" not in group.enforced:
            rlimits["RLIMIT_NPROC"] = limits.processes + cgroups.OWN_PROCESSES
        if "memory" not in group.enforced:
            rlimits["RLIMIT_DATA"] = limits.memory_bytes
        return {
            "uid": uid,
            "gid": uid,
            "cgroups": group.entrances(),
            "directories": [*image.directories, spec.workdir],
            "files": dict(image.files),
            "links": dict(image.links),
            "binds": [
                {"source": str(mount.source), "name": f"m{index}", "target": mount.target}
                for index, mount in enumerate(mounts)
            ],
            "memory": [
                {"name": name, "target": target, "bytes": size, "inodes": inodes, "exec": runs}
                for name, target, size, inodes, runs in memory
            ],
            "rlimits": rlimits,
            "env": {},
        }

    def _options(
        self,
        spec: SandboxSpec,
        image: images.Image,
        mounts: tuple[Mount, ...],
        bpf: int,
        status: int,
        progress: int,
    ) -> list[str]:
        options = [*FLAGS, "--uid", str(INNER_ID), "--gid", str(INNER_ID)]
        options += ["--hostname", "glovebox", "--ro-bind", f"{STAGE}/root", "/"]
        for index, mount in enumerate(mounts):
            kind = "--bind" if mount.writable else "--ro-bind"
            options += [kind, f"{STAGE}/m{index}", mount.target]
        options += ["--proc", "/proc"]
        for path in image.hidden_files:
            if Path(path).exists():
                options += ["--ro-bind", "/dev/null", path]
        for path in image.hidden_directories:
            if Path(path).exists():
                options += ["--ro-bind", f"{STAGE}/root/mnt", path]
        # A device directory with null, zero, full, random, urandom and tty only.
        options += ["--dev", "/dev", "--bind", f"{STAGE}/shm", "/dev/shm"]  # noqa: S108
        options += ["--bind", f"{STAGE}/tmp", "/tmp"]  # noqa: S108
        if spec.output is not None:
            options += ["--bind", f"{STAGE}/output", "/output"]
        options += ["--remount-ro", "/dev", "--remount-ro", "/"]
        environment: Mapping[str, str] = {
            **image.env,
            **thread_counts(spec),
            **spec.env,
            "GLOVEBOX_PROGRESS_FD": str(progress),
        }
        for name, value in environment.items():
            options += ["--setenv", name, value]
        options += ["--chdir", spec.workdir, "--seccomp", str(bpf)]
        return [*options, "--json-status-fd", str(status)]


def thread_counts(spec: SandboxSpec) -> dict[str, str]:
    """Return the settings that keep numeric libraries to the processors of the sandbox."""
    cores = str(max(1, int(spec.limits.cpus)))
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), cores)


@functools.cache
def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip().removeprefix("bubblewrap ")


def children(pid: int) -> list[int]:
    """Return the process ids whose parent is ``pid``."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return [int(word) for word in text.split()]
    return []


def _terminator(pid: int) -> Callable[[], None]:
    """Return how to send SIGTERM to the program: bwrap > process 1 inside > the program."""

    def terminate() -> None:
        for first in children(pid):
            for program in children(first):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(program, signal.SIGTERM)

    return terminate


def tree_memory(pid: int) -> int:
    """Return the bytes that a process and its descendants hold for themselves alone."""
    total = 0
    page = os.sysconf("SC_PAGE_SIZE")
    waiting = [pid]
    while waiting:
        process = waiting.pop()
        with contextlib.suppress(OSError, ValueError):
            fields = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()
            total += (int(fields[1]) - int(fields[2])) * page
        waiting += children(process)
    return total


def machine() -> str:
    """Return the kernel and architecture, for the doctor."""
    return f"Linux {platform.release()} {platform.machine()}"
