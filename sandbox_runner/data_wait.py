"""How much of its time a sandbox waits for data: seen from outside, not said by the program."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 0.5
#: Of a sandbox with more threads only so many are looked at: looking must stay cheap.
THREADS: Final = 256


class DataWait:
    """Looks twice a second whether any thread of a sandbox waits for a disk (state D)."""

    def __init__(self, processes: Callable[[], Iterable[int]]) -> None:
        self._processes = processes
        self._next = 0.0
        self._looks = self._waits = 0

    def look(self) -> None:
        """Look, if it is time to."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LOOK_SECONDS
            self._looks += 1
            self._waits += self._waiting()

    @property
    def share(self) -> float | None:
        """The share of the looks that found it waiting; None without any."""
        return self._waits / self._looks if self._looks else None

    def _waiting(self) -> bool:
        left = THREADS
        for process in self._processes():
            with contextlib.suppress(OSError):
                for thread in Path(f"/proc/{process}/task").iterdir():
                    left -= 1
                    # The name before it is the program's own, and may hold anything but its end:
                    # brackets, and bytes that are no text.
                    if (thread / "stat").read_bytes().rpartition(b")")[2].split()[:1] == [b"D"]:
                        return True
                    if not left:
                        return False
        return False
