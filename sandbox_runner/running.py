"""Watch one sandbox from start to end: its words, its time, its disk, and how it ended.

One thread a sandbox reads everything it says, so that nothing it does (a flood of output, a full
pipe, silence) can block the runner. The supervisor beside it holds the other half: it ends the
sandbox when this process disappears.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from policies.errors import CannotRun
from sandbox_runner.backends.cgroups import Group
from sandbox_runner.data_wait import DataWait
from sandbox_runner.disk import DiskWatch
from sandbox_runner.place import Claim
from sandbox_runner.progress import ProgressReader
from sandbox_runner.regular_files import copy_tree
from sandbox_runner.spec import Rejected, SandboxResult, SandboxSpec

TICK: Final = 0.2  # seconds between looks at time and disk
READ: Final = 1 << 16
#: How long the kernel may take to end a killed tree before the runner goes on without it.
DEATH_SECONDS: Final = 10
#: Who asked for the end waits no longer than this for the program to save something; with looking,
#: killing and burying it is gone within 5 seconds.
CANCEL_SECONDS: Final = 2.0


@dataclass
class Channels:
    """The runner's ends of a sandbox's descriptors."""

    control: socket.socket
    log: int
    progress: int
    status: int
    output: int | None


@dataclass(frozen=True)
class Handle:
    """What a backend gives the watcher: how to ask its sandbox to end, and what it enforces."""

    backend: str
    version: str
    group: Group
    claim: Claim
    supervisor: subprocess.Popen[bytes]
    terminate: Callable[[], None]
    #: Called once after the last process is gone.
    clean: Callable[[], None]
    #: Bytes of memory held now, where no control group bounds them.
    memory_now: Callable[[], int] | None = None
    #: The first word on the progress pipe is the backend's own, and says that the program began.
    began_by_progress: bool = False


@dataclass
class _Ending:
    """What is known when the supervisor's last word has come."""

    exit_code: int | None = None
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    stopped_for: str | None = None
    output_full: bool = False
    memory_passed: bool = False
    began: bool = False
    error: BaseException | None = None
    left_behind: tuple[Rejected, ...] = field(default=())


class _Log:
    """A file with an end: what comes after ``limit`` bytes, or a full disk, is read and dropped.

    A log tells of a job and decides nothing of it, so that a disk that takes no more ends the log
    and not the job.
    """

    def __init__(self, path: Path | IO[bytes] | None, limit: int) -> None:
        self._left = limit
        self._limit = limit
        self._file: IO[bytes] | None = None
        self._ours = isinstance(path, Path)
        if not isinstance(path, Path):
            self._file = path
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0)

    def write(self, data: bytes) -> None:
        if self._file is None or self._left < 0:
            return
        taken = self._put(data[: self._left])
        if taken < min(len(data), self._left):
            self._left = -1
            mark = b"\n[cut: the disk takes no more]\n"
            with contextlib.suppress(OSError):
                # Over the last words: there is no room behind them.
                self._file.seek(max(0, self._file.tell() - len(mark)))
                self._put(mark)
            return
        self._left -= len(data)
        if self._left < 0:
            self._put(f"\n[cut after {self._limit} bytes]\n".encode())

    def _put(self, data: bytes) -> int:
        """Write all that the disk takes; return how many bytes that were."""
        assert self._file is not None
        done = 0
        with contextlib.suppress(OSError):
            # The file has no buffer, so that one write may take only a part.
            while done < len(data) and (count := self._file.write(data[done:])):
                done += count
        return done

    def close(self) -> None:
        if self._file is not None and self._ours:
            self._file.close()


def _read(descriptor: int) -> bytes | None:
    """Return what is in a pipe that does not wait: b"" at its end, None for nothing yet."""
    try:
        return os.read(descriptor, READ)
    except BlockingIOError:
        return None


class Running:
    """A sandbox that has started. ``stdin`` and ``stdout`` exist if pipes were asked for."""

    def __init__(
        self,
        spec: SandboxSpec,
        handle: Handle,
        channels: Channels,
        stdin: IO[bytes] | None,
        stdout: IO[bytes] | None,
    ) -> None:
        self._spec = spec
        self._handle = handle
        self._channels = channels
        if stdin is not None and stdout is not None:
            self.stdin, self.stdout = stdin, stdout
        self._reader = ProgressReader(spec.metrics, spec.code, spec.progress)
        self._log = _Log(spec.log, spec.limits.log_bytes)
        self._ending = _Ending()
        self._result: SandboxResult | None = None
        self._waits = DataWait(handle.group.processes)
        self._done = threading.Event()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._disk = DiskWatch(
            [mount.source for mount in spec.mounts if mount.writable],
            spec.limits.output_bytes,
            handle.group.processes,
        )
        self._thread = threading.Thread(target=self._watch, name=f"sandbox-{spec.id}", daemon=True)
        self._thread.start()

    def wait(self, timeout: float | None = None) -> SandboxResult:
        """Return how it ended; idempotent. Raises TimeoutError, or CannotRun if it never began."""
        if not self._done.wait(timeout):
            raise TimeoutError
        if self._ending.error is not None:
            raise self._ending.error
        assert self._result is not None
        return self._result

    def stop(self, reason: str) -> None:
        """Ask it to end, and end it after the grace period; ``wait`` then says why."""
        with self._lock:
            if self._ending.stopped_for is None:
                self._ending.stopped_for = reason
        self._wake()

    def kill(self) -> None:
        """End every process of it at once; ``wait`` answers stopped, cancelled."""
        self.stop("cancelled")
        self._end_now()

    def _wake(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            os.write(self._wake_write, b"x")

    def _end_now(self) -> None:
        with contextlib.suppress(OSError):
            self._channels.control.send(b"end")
        if not self._done.is_set():
            self._handle.group.kill()

    def _watch(self) -> None:
        """Read and look until the supervisor has said its last word; then put things away."""
        try:
            self._listen()
        except BaseException as error:
            self._ending.error = error
            self._end_now()
        finally:
            try:
                self._finish()
            except BaseException as error:
                self._ending.error = self._ending.error or error
            self._done.set()

    def _listen(self) -> None:
        channels, spec = self._channels, self._spec
        sinks: Mapping[int, Callable[[bytes], None]] = {
            channels.log: self._log.write,
            channels.progress: self._progress,
            channels.status: self._status,
        }
        deadline = self._started + spec.limits.wall_seconds
        kill_at: float | None = None
        with selectors.DefaultSelector() as selector:
            for descriptor in (*sinks, channels.control.fileno(), self._wake_read):
                selector.register(descriptor, selectors.EVENT_READ)
            while True:
                now = time.monotonic()
                next_look = min(now + TICK, deadline if kill_at is None else kill_at)
                for key, _ in selector.select(max(0.0, next_look - now)):
                    if key.fd == self._wake_read:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._wake_read, 64)
                    elif key.fd == channels.control.fileno():
                        self._last_word(self._hear())
                        return
                    elif data := _read(key.fd):
                        sinks[key.fd](data)
                    elif data is not None:
                        selector.unregister(key.fd)
                now = time.monotonic()
                if now >= deadline and kill_at is None:
                    self.stop("timeout")
                self._look()
                if self._ending.stopped_for is not None:
                    if kill_at is None:
                        grace = spec.limits.grace_seconds
                        if self._ending.stopped_for == "cancelled":
                            grace = min(grace, CANCEL_SECONDS)
                        kill_at = now + grace
                        if self._ending.stopped_for in ("output-limit", "memory"):
                            kill_at = now
                        else:
                            self._handle.terminate()
                    if now >= kill_at:
                        self._end_now()
                        kill_at = now + TICK

    def _hear(self) -> bytes:
        """Return the supervisor's last word, empty where it was killed before it could speak."""
        for _ in range(2):
            # A word of ours that came too late to be read shows as an error before the answer.
            with contextlib.suppress(ConnectionResetError):
                return self._channels.control.recv(4096)
        return b""

    def _look(self) -> None:
        """Notice limits that the kernel enforces silently or not at all."""
        if self._channels.output is not None:
            room = os.fstatvfs(self._channels.output)
            if room.f_bavail == 0 or room.f_favail == 0:
                self._ending.output_full = True
        if self._disk.passed():
            self.stop("output-limit")
        self._waits.look()
        if (
            self._handle.memory_now is not None
            and self._handle.memory_now() > self._spec.limits.memory_bytes
        ):
            self._ending.memory_passed = True
            self.stop("memory")

    def _status(self, data: bytes) -> None:
        # bubblewrap writes this key when the program itself has run and ended.
        if b'"exit-code"' in data:
            self._ending.began = True

    def _progress(self, data: bytes) -> None:
        self._ending.began |= self._handle.began_by_progress
        self._reader.feed(data)

    def _last_word(self, message: bytes) -> None:
        if not message:  # the supervisor was killed, and the sandbox with it
            self._ending.stopped_for = self._ending.stopped_for or "node-lost"
            return
        document: Mapping[str, Any] = json.loads(message)
        self._ending.exit_code = int(document["ended"])
        self._ending.cpu_seconds = float(document["cpu_seconds"])
        self._ending.peak_bytes = int(document["peak_bytes"])

    def _drain(self) -> None:
        """Read what was still in the pipes; every writer is dead, so they end."""
        until = time.monotonic() + DEATH_SECONDS
        for descriptor, sink in (
            (self._channels.status, self._status),
            (self._channels.log, self._log.write),
            (self._channels.progress, self._progress),
        ):
            # Not select(), which takes no descriptor above 1023.
            ready = select.poll()
            ready.register(descriptor, select.POLLIN)
            while time.monotonic() < until:
                if not ready.poll(500):
                    break
                data = _read(descriptor)
                if not data:
                    break
                sink(data)

    def _finish(self) -> None:
        """Make sure that nothing is left, take the output, and write the result down."""
        wall = time.monotonic() - self._started
        handle, ending, spec = self._handle, self._ending, self._spec
        with contextlib.suppress(OSError):
            self._channels.control.shutdown(socket.SHUT_RDWR)
        try:
            handle.supervisor.wait(DEATH_SECONDS)
        except subprocess.TimeoutExpired:
            handle.supervisor.kill()
            handle.supervisor.wait()
        self._look_at_output_once_more()
        memory = ending.memory_passed or handle.group.memory_exceeded()
        processes = handle.group.processes_exceeded()
        cpu = handle.group.cpu_seconds()
        peak = handle.group.peak_memory_bytes()
        try:
            if not handle.group.remove(DEATH_SECONDS):
                raise CannotRun(
                    "A process of the sandbox does not end; its control group is kept.",
                    code="sandbox.immortal",
                )
            self._drain()
            if spec.output is not None and self._channels.output is not None:
                self._take_output(spec.output, self._channels.output)
        finally:
            # Whatever one of them meets, the name must be free for the next attempt.
            with contextlib.ExitStack() as last:
                last.callback(handle.claim.release)
                last.callback(handle.clean)
                last.callback(self._close)
        if not ending.began and ending.stopped_for is None and not memory:
            raise CannotRun(
                "The sandbox could not be set up on this machine; see `glovebox sandbox doctor`.",
                code="sandbox.setup",
            )
        state, reason = self._judge(memory, processes)
        self._result = SandboxResult(
            state=state,
            reason=reason,
            exit_code=ending.exit_code,
            wall_seconds=wall,
            cpu_seconds=ending.cpu_seconds if cpu is None else cpu,
            peak_memory_bytes=ending.peak_bytes if peak is None else peak,
            backend=handle.backend,
            backend_version=handle.version,
            fault=self._reader.fault,
            data_wait=self._waits.share,
            left_behind=ending.left_behind,
        )

    def _look_at_output_once_more(self) -> None:
        if self._channels.output is not None:
            room = os.fstatvfs(self._channels.output)
            self._ending.output_full |= room.f_bavail == 0 or room.f_favail == 0

    def _take_output(self, target: Path, descriptor: int) -> None:
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        limits = self._spec.limits
        self._ending.left_behind = copy_tree(
            descriptor, target, limit=limits.output_bytes, entries=limits.output_inodes
        )

    def _close(self) -> None:
        self._log.close()
        self._channels.control.close()
        channels = self._channels
        for descriptor in (channels.log, channels.progress, channels.status, channels.output):
            if descriptor is not None:
                os.close(descriptor)
        os.close(self._wake_read)
        with self._lock:
            write, self._wake_write = self._wake_write, -1
        os.close(write)

    def _judge(self, memory: bool, processes: bool) -> tuple[str, str]:
        """Return state and reason by the table of the architecture."""
        ending = self._ending
        if ending.stopped_for in ("output-limit", "memory"):
            return "failed", ending.stopped_for
        if ending.stopped_for is not None:
            return "stopped", ending.stopped_for
        if ending.exit_code == 0:
            return "finished", "exit"
        if memory or self._reader.cause == "memory":
            return "failed", "memory"
        if ending.output_full or self._reader.cause == "output-full":
            return "failed", "output-limit"
        if processes or self._reader.cause == "processes":
            return "failed", "processes"
        return "failed", "exit"
