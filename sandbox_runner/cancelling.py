"""End everything of a job at once: its sandboxes, and our own work on it between them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import IO, BinaryIO, cast

from policies.errors import GloveboxError
from sandbox_runner.backends.interface import Backend, Line, RunningSandbox
from sandbox_runner.spec import SandboxResult, SandboxSpec

#: How soon a sandbox that waits for nobody hears that it must end.
LOOK_SECONDS = 0.1


class Cancelled(GloveboxError):
    """Somebody asked for the end; what was being done must stop and leave nothing."""


def check(cancel: threading.Event | None) -> None:
    """Raise :class:`Cancelled` where the end was asked for."""
    if cancel is not None and cancel.is_set():
        raise Cancelled("the end was asked for")


class CancelledStream:
    """A stream whose reading ends with :class:`Cancelled` as soon as the end is asked for."""

    def __init__(self, stream: BinaryIO, cancel: threading.Event | None) -> None:
        self._stream, self._cancel = stream, cancel

    def read(self, size: int = -1) -> bytes:
        """Read, if nobody has asked for the end."""
        check(self._cancel)
        return self._stream.read(size)

    def __enter__(self) -> BinaryIO:
        self._stream.__enter__()
        return cast(BinaryIO, self)

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def stream(opened: BinaryIO, cancel: threading.Event | None) -> BinaryIO:
    """Return a stream that stops giving bytes when the end is asked for."""
    return cast(BinaryIO, CancelledStream(opened, cancel))


def opened(path: Path, cancel: threading.Event | None) -> BinaryIO:
    """Open a file of ours for reading, until the end is asked for."""
    return stream(path.open("rb"), cancel)


class _Running:
    """A sandbox with pipes that is killed when the end is asked for."""

    def __init__(self, running: RunningSandbox, cancel: threading.Event) -> None:
        self._running, self._cancel = running, cancel
        self.stdin: IO[bytes] = running.stdin
        self.stdout: IO[bytes] = running.stdout
        threading.Thread(target=self._watch, name="cancel", daemon=True).start()

    def _watch(self) -> None:
        while not self._cancel.wait(LOOK_SECONDS):
            try:
                self._running.wait(0)
            except TimeoutError:
                continue
            except Exception:
                return  # its own caller is told
            return
        self._running.kill()

    def wait(self, timeout: float | None = None) -> SandboxResult:
        """Return how it ended."""
        return self._running.wait(timeout)

    def kill(self) -> None:
        """End it."""
        self._running.kill()


class CancellableBackend:
    """A backend whose sandboxes end when the end is asked for, and which then starts no other."""

    def __init__(self, backend: Backend, cancel: threading.Event) -> None:
        self._backend, self._cancel = backend, cancel
        self.name = backend.name

    def version(self) -> str:
        """Return the backend's version."""
        return self._backend.version()

    def check(self) -> list[Line]:
        """Try what it enforces."""
        return self._backend.check()

    def sweep(self) -> int:
        """Remove what dead runners left."""
        return self._backend.sweep()

    def run(self, spec: SandboxSpec, cancel: threading.Event | None = None) -> SandboxResult:
        """Run to the end, or raise :class:`Cancelled`."""
        check(self._cancel)
        result = self._backend.run(spec, cancel or self._cancel)
        check(self._cancel)
        return result

    def start(self, spec: SandboxSpec) -> RunningSandbox:
        """Start with pipes, or raise :class:`Cancelled`."""
        check(self._cancel)
        return _Running(self._backend.start(spec), self._cancel)
