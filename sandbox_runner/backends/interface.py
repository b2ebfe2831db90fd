"""What every backend promises. Each method may be called twice."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import IO, Literal, Protocol

from sandbox_runner.spec import SandboxResult, SandboxSpec


@dataclass(frozen=True)
class Line:
    """One line of the doctor: what was tried, whether it held, and what to do where it did not.

    ``weak`` means that it is enforced by watching, not by the kernel. A ``required`` line that is
    ``missing`` makes the backend refuse to run.
    """

    name: str
    state: Literal["held", "weak", "missing"]
    detail: str = ""
    advice: str = ""
    required: bool = True


class RunningSandbox(Protocol):
    """A sandbox that has started; ``stdin`` and ``stdout`` are unbuffered pipes to its process."""

    stdin: IO[bytes]
    stdout: IO[bytes]

    def wait(self, timeout: float | None = None) -> SandboxResult:
        """Return how it ended; idempotent. Raises TimeoutError when ``timeout`` seconds passed."""

    def kill(self) -> None:
        """End every process of it at once; ``wait`` then answers stopped, cancelled."""


class Backend(Protocol):
    """One way to seal a process tree on this machine."""

    name: str

    def version(self) -> str:
        """Return the version that stands in the bundle, ``""`` where it is not installed."""

    def check(self) -> list[Line]:
        """Try, and say line by line what this machine enforces."""

    def run(self, spec: SandboxSpec, cancel: threading.Event | None = None) -> SandboxResult:
        """Run to the end, or until ``cancel`` is set. Raises CannotRun where it cannot seal."""

    def start(self, spec: SandboxSpec) -> RunningSandbox:
        """Start with pipes on standard input and output; the caller must wait() or kill()."""

    def sweep(self) -> int:
        """Remove what dead runners left behind; return how many things were removed."""
