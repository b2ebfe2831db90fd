"""What the backends of one machine share: claim, groups, loan, supervisor, pipes.

A backend says how its own program is called (:meth:`LocalBackend.command`); everything around it,
and so every limit and every ending, is the same for all of them.
"""

from __future__ import annotations

import abc
import array
import contextlib
import functools
import json
import marshal
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from policies.errors import CannotRun, Conflict, Invalid
from sandbox_runner import image as images
from sandbox_runner.backends import cgroups, gpus, trial
from sandbox_runner.backends.interface import Line
from sandbox_runner.lending import Loan
from sandbox_runner.place import WAIT_SECONDS, Claim, orphans, outer_uid
from sandbox_runner.running import Channels, Handle, Running
from sandbox_runner.spec import Mount, SandboxResult, SandboxSpec

#: Who one is inside.
INNER_ID: Final = 1000
#: Some more than the 200,000 small files that a program may unpack there.
TMP_INODES: Final = 250_000
STAGE: Final = "/tmp"  # noqa: S108 - covered by the supervisor in its own view
SUPERVISOR: Final = Path(__file__).with_name("supervisor.py")
#: How long laying out the mounts may take before the runner gives up on it.
PREPARE_SECONDS: Final = 60


@dataclass(frozen=True)
class Ends:
    """The descriptors that a sandbox's program may hold, to write its progress and status to."""

    progress: int
    status: int


@dataclass(frozen=True)
class Command:
    """How a backend's own program is called, and what it needs of the supervisor.

    ``keep`` are descriptors it inherits. ``plan`` is added to the supervisor's plan.
    """

    argv: tuple[str, ...]
    keep: tuple[int, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)


class Descriptors:
    """Descriptors that are closed here once the supervisor has them, or when something fails."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def memory(self, name: str, content: bytes) -> int:
        """Return a descriptor to read ``content`` from, which exists in memory only."""
        descriptor = self.own(os.memfd_create(name, os.MFD_CLOEXEC))
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def own(self, descriptor: int) -> int:
        """Take responsibility for one more."""
        self._open.append(descriptor)
        return descriptor

    def give_up(self, descriptor: int) -> int:
        """Hand one back to the caller."""
        self._open.remove(descriptor)
        return descriptor

    def close(self) -> None:
        """Close them all."""
        while self._open:
            os.close(self._open.pop())


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


class LocalBackend(abc.ABC):
    """A backend of one machine. One object may run many sandboxes at once."""

    name: str
    program: str
    #: What to do where the program is not installed.
    advice: str
    #: What the backend's own program takes of the control group, on top of the job's limits.
    own_processes: int
    own_bytes: int = 0

    def __init__(self) -> None:
        self._path = shutil.which(self.program)
        self._root = os.geteuid() == 0
        self._hierarchy = cgroups.find()

    @abc.abstractmethod
    def version(self) -> str:
        """Return the version that stands in the bundle, ``""`` where it is not installed."""

    @abc.abstractmethod
    def command(
        self,
        spec: SandboxSpec,
        image: images.Image,
        mounts: tuple[Mount, ...],
        descriptors: Descriptors,
        ends: Ends,
        uid: int | None,
    ) -> Command:
        """Return how to call the program for one sandbox."""

    @abc.abstractmethod
    def terminator(self, pid: int, control: socket.socket) -> Callable[[], None]:
        """Return how to send SIGTERM to the sandboxed program.

        ``pid`` is the backend's process, ``control`` leads to the supervisor.
        """

    def gpu_flags(self, gpus: int) -> tuple[str, ...]:
        """Return what the program is told so that it gives GPUs. Raises CannotRun if it cannot."""
        return ()

    @property
    def auto(self) -> bool:
        """Return whether ``auto`` should take this one before a weaker one that is enough too."""
        return True

    def check(self) -> list[Line]:
        """Try, and say line by line what this machine enforces."""
        return trial.lines(self, self._hierarchy, root=self._root, advice=self.advice)

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
        if self._path is None:
            raise CannotRun(
                "{program} is not installed; {advice}",
                code="sandbox.isolation",
                program=self.program,
                advice=self.advice,
            )
        check_mounts(spec)
        image = images.find(spec.image)
        claim = Claim(spec.id, wait=WAIT_SECONDS)
        group = cgroups.Group(spec.id, self._hierarchy)
        uid = outer_uid(spec.id) if self._root else None
        loan = Loan([mount.source for mount in spec.mounts if mount.writable], uid)
        with contextlib.ExitStack() as undo:
            # The last first. Whatever of it fails, the name must be free for the next attempt.
            undo.callback(claim.release)
            lent: gpus.Lent | None = None
            if spec.limits.gpus:
                lent = gpus.lend(spec.limits.gpus)
                undo.callback(lent.release)
                image = gpus.dress(image, lent)
            # Whatever a dead runner left under this name: a living one would hold the claim.
            if not group.remove():
                raise Conflict(
                    "A process of the last sandbox named {name} does not end.",
                    code="sandbox.busy",
                    name=spec.id,
                )
            limits = spec.limits
            undo.callback(loan.take_back)
            undo.callback(group.remove)
            group.create(
                replace(
                    limits,
                    processes=limits.processes + self.own_processes,
                    memory_bytes=limits.memory_bytes + self.own_bytes,
                )
            )
            loan.give()
            clean = functools.partial(_put_away, loan, lent)
            running = self._launch(spec, image, group, claim, clean, uid, piped=piped)
            undo.pop_all()
        return running

    def _launch(
        self,
        spec: SandboxSpec,
        image: images.Image,
        group: cgroups.Group,
        claim: Claim,
        clean: Callable[[], None],
        uid: int | None,
        *,
        piped: bool,
    ) -> Running:
        theirs, ours = Descriptors(), Descriptors()
        with contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            with contextlib.closing(theirs):
                (log, log_write), (progress, progress_write), (status, status_write) = (
                    _pipe(ours, theirs) for _ in range(3)
                )
                mounts = (*image.mounts, *spec.mounts)
                ends = Ends(progress_write, status_write)
                command = self.command(spec, image, mounts, theirs, ends, uid)
                plan = {
                    **self._plan(spec, image, mounts, group, uid),
                    **command.plan,
                    "keep": [*command.keep, *spec.extra_fds],
                    "program": self._path,
                    "argv": list(command.argv),
                }
                # A description of its own for each: gVisor makes the first one not wait, and
                # would then take the second for one that the program itself made so.
                errors = theirs.own(os.open(f"/proc/self/fd/{log_write}", os.O_WRONLY))
                plan_fd = theirs.memory("plan", marshal.dumps(plan))
                control, control_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(control.close)
                with control_theirs:
                    supervisor = subprocess.Popen(
                        [
                            *(sys.executable, "-I", "-S", str(SUPERVISOR)),
                            *(str(plan_fd), str(control_theirs.fileno())),
                        ],
                        # A file in memory, read once and gone: no pipe to block on.
                        stdin=subprocess.PIPE if piped else theirs.memory("in", spec.stdin or b""),
                        stdout=subprocess.PIPE if piped else log_write,
                        stderr=errors,
                        pass_fds=[*plan["keep"], plan_fd, control_theirs.fileno()],
                        env={},
                        cwd="/",
                        bufsize=0,
                    )
                undo.callback(supervisor.wait)
                undo.callback(supervisor.kill)
            words, doors = _first_words(control)
            if "progress" in doors:
                os.close(ours.give_up(progress))
                progress = ours.own(doors["progress"])
            output = ours.own(doors["output"]) if "output" in doors else None
            handle = Handle(
                backend=self.name,
                version=self.version(),
                group=group,
                claim=claim,
                supervisor=supervisor,
                terminate=self.terminator(words, control),
                clean=clean,
                memory_now=_memory_watch(group, words),
                began_by_progress="progress" in doors,
            )
            channels = Channels(control, log, progress, status, output)
            # Not before it watches may anything be left to it: it opens files, which can fail.
            running = Running(spec, handle, channels, supervisor.stdin, supervisor.stdout)
            undo.pop_all()
        return running

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
            # A core dump would be a copy of the data. With 0 the kernel still starts a handler
            # that reads from a pipe; with 1 neither (core(5), fs/coredump.c).
            "RLIMIT_CORE": 1,
            "RLIMIT_NOFILE": limits.open_files,
            "RLIMIT_MSGQUEUE": 0,
        }
        if "pids" not in group.enforced:
            rlimits["RLIMIT_NPROC"] = limits.processes + self.own_processes
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
                {
                    "source": str(mount.source),
                    "name": f"m{index}",
                    "target": mount.target,
                    "writable": mount.writable,
                }
                for index, mount in enumerate(mounts)
            ]
            + [
                {"source": str(source), "name": f"d{index}", "target": path, "writable": True}
                for index, (path, source, _, _) in enumerate(image.devices)
            ],
            "memory": [
                {"name": name, "target": target, "bytes": size, "inodes": inodes, "exec": runs}
                for name, target, size, inodes, runs in memory
            ],
            "rlimits": rlimits,
            "env": {},
        }


def _put_away(loan: Loan, lent: gpus.Lent | None) -> None:
    try:
        loan.take_back()
    finally:
        if lent is not None:
            lent.release()


def _pipe(ours: Descriptors, theirs: Descriptors) -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    # Without root the sandbox is of our user and may open a pipe of its own for reading, too: what
    # it takes between our look and our read must not leave us waiting, for whoever waits here
    # keeps no time. The other end is a description of its own and waits as ever.
    os.set_blocking(read, False)
    return ours.own(read), theirs.own(write)


def _first_words(control: socket.socket) -> tuple[int, dict[str, int]]:
    """Return the sandbox's process id and the descriptors that came with it, by name."""
    control.settimeout(PREPARE_SECONDS)
    try:
        message, descriptors = _receive(control)
    except TimeoutError:
        message, descriptors = b"", []
    words = json.loads(message) if message else {}
    if "started" not in words:
        raise CannotRun(
            "The sandbox could not be prepared on this machine: {why}. See `glovebox sandbox "
            "doctor`.",
            code="sandbox.setup",
            why=words.get("failed", "it gave no answer"),
        )
    control.settimeout(None)
    return int(words["started"]), dict(zip(words["doors"], descriptors, strict=True))


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """Return a message and its descriptors, which no program that we start inherits."""
    # Not recv_fds(), which forgets the flags that it is given.
    room = socket.CMSG_LEN(4 * 4)
    message, handed, _, _ = control.recvmsg(4096, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, data in handed:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return message, list(descriptors)


def _memory_watch(group: cgroups.Group, pid: int) -> Callable[[], int] | None:
    """Return how to measure memory where no control group bounds it."""
    if "memory" in group.enforced:
        return None
    return functools.partial(tree_memory, pid)


def thread_counts(spec: SandboxSpec) -> dict[str, str]:
    """Return the settings that keep numeric libraries to the processors of the sandbox."""
    cores = str(max(1, int(spec.limits.cpus)))
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), cores)
    # Left to itself MKL takes fewer than it is told, under gVisor one of two.
    return {**counts, "MKL_DYNAMIC": "FALSE"}


def children(pid: int) -> list[int]:
    """Return the process ids whose parent is ``pid``, whichever of its threads started them."""
    found: list[int] = []
    # A process may end between any two of these steps.
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                text = (thread / "children").read_text(encoding="ascii")
                found += [int(word) for word in text.split()]
    return found


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
