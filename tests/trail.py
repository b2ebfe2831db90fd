"""What a job starts on this machine while it lives, and what of it is still there afterwards."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from sandbox_runner import place

NAMESPACES = ("mnt", "net", "pid", "ipc", "uts", "user", "cgroup")
CGROUPS = Path("/sys/fs/cgroup")


def children(pid: int) -> Iterator[int]:
    """Yield every descendant of a process."""
    waiting = [pid]
    while waiting:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{waiting.pop()}/task").iterdir():
                found = [int(word) for word in (thread / "children").read_text().split()]
                yield from found
                waiting += found


def _born(pid: int) -> str | None:
    """Return when a living process began, None for one that is gone or waits for its burial."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    return None


def _namespaces(pid: int | str) -> set[str]:
    found = set()
    for name in NAMESPACES:
        with contextlib.suppress(OSError):
            found.add(str(Path(f"/proc/{pid}/ns/{name}").readlink()))
    return found


def _groups(pid: int) -> set[str]:
    """Return the names of the sandboxes whose control groups a process is in."""
    with contextlib.suppress(OSError):
        rows = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        return {row.rpartition("/glovebox/")[2] for row in rows if "/glovebox/" in row}
    return set()


def _let_go(namespaces: dict[str, int]) -> None:
    while namespaces:
        os.close(namespaces.popitem()[1])


class Trail:
    """Follows a process and all its descendants, a hundred times a second, until it is told to end.

    Afterwards :meth:`left` counts what of them the machine still holds.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ours = _namespaces("self")
        self.processes: set[tuple[int, str]] = set()
        # Held open: a namespace's number is used again as soon as nobody has it.
        self.namespaces: dict[str, int] = {}
        weakref.finalize(self, _let_go, self.namespaces)
        self.groups: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._end.is_set():
            self.look()
            self._end.wait(0.01)

    def look(self) -> None:
        """Note who lives now."""
        for pid in (self._pid, *children(self._pid)):
            born = _born(pid)
            if born is not None:
                self.processes.add((pid, born))
                self._hold(pid)
                self.groups |= _groups(pid)

    def _hold(self, pid: int) -> None:
        for name in NAMESPACES:
            with contextlib.suppress(OSError):
                path = Path(f"/proc/{pid}/ns/{name}")
                if str(path.readlink()) in {*self._ours, *self.namespaces}:
                    continue
                held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                number = str(Path(f"/proc/self/fd/{held}").readlink())
                if number in {*self._ours, *self.namespaces}:
                    os.close(held)
                else:
                    self.namespaces[number] = held

    def end(self) -> None:
        """Follow no longer."""
        self._end.set()
        self._thread.join()

    def living(self) -> list[int]:
        """Return the processes that live now, but for the one that was followed."""
        return [pid for pid, born in tuple(self.processes)
                if pid != self._pid and _born(pid) == born]  # fmt: skip

    def alive(self) -> int:
        """Count those processes that live still."""
        return sum(_born(pid) == born for pid, born in self.processes)

    def wait(self, seconds: float) -> float:
        """Wait until none of them lives; return how long that took."""
        began = time.monotonic()
        while self.alive() and time.monotonic() - began < seconds:
            time.sleep(0.01)
        return time.monotonic() - began

    def _held(self) -> set[str]:
        """Return the namespaces that a living process is in."""
        held: set[str] = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                held |= _namespaces(entry.name) & set(self.namespaces)
        return held

    def left(self, *names: str) -> dict[str, int]:
        """Count what is left; ``names`` are of sandboxes, or parts of what was mounted."""
        names = (*names, *self.groups)
        # Somebody whom nobody saw being born may be dying still.
        until = time.monotonic() + 5
        while (held := self._held()) and time.monotonic() < until:
            time.sleep(0.05)
        _let_go(self.namespaces)
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        homes = (*CGROUPS.glob("*/glovebox"), CGROUPS / "glovebox")
        groups = [path for home in homes if home.is_dir() for path in home.iterdir()]
        locks = [path.stem for path in place.directory().glob("*.lock")]
        return {
            "processes": self.alive(),
            "namespaces": len(held),
            "mounts": sum(any(name in row for name in names) for row in mounts),
            "cgroups": sum(path.name in names for path in groups),
            "locks": sum(name in names for name in locks),
        }
