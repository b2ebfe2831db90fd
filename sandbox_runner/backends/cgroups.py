"""Limits and accounts by control group, version 1 (a tree a controller) and version 2.

A group is ``glovebox/<id>`` under each controller's mount, or under the directory that
``GLOVEBOX_CGROUP`` names (a delegated version 2 group, for a runner without root).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox_runner.spec import Limits

CONTROLLERS: Final = ("memory", "pids", "cpu")
PERIOD: Final = 100_000  # microseconds, the kernel's default


@dataclass(frozen=True)
class Hierarchy:
    """Where each controller lives on this machine; ``unified`` is any version 2 mount."""

    version1: Mapping[str, Path]
    version2: Path | None
    version2_controllers: frozenset[str]

    def home(self, controller: str) -> Path | None:
        """Return the directory under which groups with this controller are made."""
        if controller in self.version2_controllers:
            return self.version2
        return self.version1.get(controller)


def find(mounts: Path = Path("/proc/self/mounts")) -> Hierarchy:
    """Return this machine's hierarchies, as far as this process may make groups in them."""
    version1: dict[str, Path] = {}
    version2: Path | None = None
    for row in mounts.read_text(encoding="utf-8").splitlines():
        _, target, kind, options, *_ = row.split()
        if kind == "cgroup":
            for name in (*CONTROLLERS, "cpuacct"):
                if name in options.split(",") and os.access(target, os.W_OK):
                    version1[name] = Path(target) / "glovebox"
        elif kind == "cgroup2" and os.access(target, os.W_OK):
            version2 = Path(target) / "glovebox"
    delegated = os.environ.get("GLOVEBOX_CGROUP")
    if delegated and os.access(delegated, os.W_OK):
        version2 = Path(delegated) / "glovebox"
    controllers: frozenset[str] = frozenset()
    if version2 is not None:
        with contextlib.suppress(OSError):
            above = (version2.parent / "cgroup.controllers").read_text(encoding="ascii")
            controllers = frozenset(above.split()) & frozenset(CONTROLLERS)
    return Hierarchy(version1, version2, controllers)


def _write(path: Path, text: str) -> bool:
    """Write a control file; False where this kernel does not have it or refuses."""
    try:
        path.write_text(text, encoding="ascii")
    except OSError:
        return False
    return True


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _counter(path: Path, key: str) -> int:
    try:
        rows = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(row.split()[1]) for row in rows if row.startswith(f"{key} ")), 0)


class Group:
    """The control groups of one sandbox."""

    def __init__(self, name: str, hierarchy: Hierarchy) -> None:
        self.name = name
        self.hierarchy = hierarchy
        homes = [hierarchy.home(controller) for controller in CONTROLLERS]
        homes += [hierarchy.version1.get("cpuacct"), hierarchy.version2]
        self.paths = list(dict.fromkeys(home / name for home in homes if home is not None))
        self.enforced: frozenset[str] = frozenset()

    def _of(self, controller: str) -> Path | None:
        home = self.hierarchy.home(controller)
        return home / self.name if home is not None else None

    def _second(self, controller: str) -> bool:
        return controller in self.hierarchy.version2_controllers

    def create(self, limits: Limits) -> frozenset[str]:
        """Make the groups and set the limits; return the controllers that the kernel enforces."""
        for path in self.paths:
            path.parent.mkdir(exist_ok=True)
            if path.parent == self.hierarchy.version2 and self.hierarchy.version2_controllers:
                wanted = " ".join(f"+{name}" for name in self.hierarchy.version2_controllers)
                _write(path.parent.parent / "cgroup.subtree_control", wanted)
                _write(path.parent / "cgroup.subtree_control", wanted)
            path.mkdir(exist_ok=True)
        setters = {"memory": self._memory, "pids": self._pids, "cpu": self._cpu}
        self.enforced = frozenset(
            name
            for name, setter in setters.items()
            if (home := self._of(name)) is not None and setter(home, limits)
        )
        return self.enforced

    def _memory(self, home: Path, limits: Limits) -> bool:
        size = str(limits.memory_bytes)
        if self._second("memory"):
            # Swap off: data must never reach a disk in plain.
            _write(home / "memory.swap.max", "0")
            _write(home / "memory.oom.group", "0")
            return _write(home / "memory.max", size)
        _write(home / "memory.swappiness", "0")
        held = _write(home / "memory.limit_in_bytes", size)
        _write(home / "memory.memsw.limit_in_bytes", size)
        return held

    def _pids(self, home: Path, limits: Limits) -> bool:
        return _write(home / "pids.max", str(limits.processes))

    def _cpu(self, home: Path, limits: Limits) -> bool:
        quota = max(1000, int(limits.cpus * PERIOD))
        if self._second("cpu"):
            return _write(home / "cpu.max", f"{quota} {PERIOD}")
        return _write(home / "cpu.cfs_period_us", str(PERIOD)) and _write(
            home / "cpu.cfs_quota_us", str(quota)
        )

    def entrances(self) -> list[str]:
        """Return the files into which the sandbox's first process writes itself."""
        return [str(path / "cgroup.procs") for path in self.paths]

    def memory_exceeded(self) -> bool:
        """Return whether the kernel killed a process of this group for its memory."""
        home = self._of("memory")
        if home is None:
            return False
        name = "memory.events" if self._second("memory") else "memory.oom_control"
        return _counter(home / name, "oom_kill") > 0

    def processes_exceeded(self) -> bool:
        """Return whether a fork was refused for the number of processes."""
        home = self._of("pids")
        return home is not None and _counter(home / "pids.events", "max") > 0

    def cpu_seconds(self) -> float | None:
        """Return the processor time used so far, None where nobody counts."""
        if self._second("cpu") and (home := self._of("cpu")) is not None:
            return _counter(home / "cpu.stat", "usage_usec") / 1e6
        accounts = self.hierarchy.version1.get("cpuacct")
        used = _number(accounts / self.name / "cpuacct.usage") if accounts else None
        return used / 1e9 if used is not None else None

    def peak_memory_bytes(self) -> int | None:
        """Return the most memory held at once, None where nobody counts."""
        home = self._of("memory")
        if home is None:
            return None
        name = "memory.peak" if self._second("memory") else "memory.max_usage_in_bytes"
        return _number(home / name)

    def processes(self) -> Iterator[int]:
        """Yield the process ids in any of the groups."""
        seen: set[int] = set()
        for path in self.paths:
            with contextlib.suppress(OSError):
                text = (path / "cgroup.procs").read_text(encoding="ascii")
                seen |= {int(row) for row in text.split()}
        yield from sorted(seen)

    def kill(self) -> None:
        """Kill every process in the groups, those that are being born included."""
        if self.hierarchy.version2 is not None:
            _write(self.hierarchy.version2 / self.name / "cgroup.kill", "1")
        for process in self.processes():
            # 0 stands for one of another process namespace, and would be our own group to kill().
            if process > 0:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)

    def remove(self, seconds: float = 5) -> bool:
        """Kill what is left and remove the groups; False if something would not die in time."""
        until = time.monotonic() + seconds
        while next(self.processes(), None) is not None:
            self.kill()
            if time.monotonic() > until:
                return False
            time.sleep(0.002)
        gone = True
        for path in self.paths:
            while path.exists():
                try:
                    path.rmdir()
                except OSError:
                    # A dying process leaves the list before it leaves the group.
                    if time.monotonic() > until:
                        gone = False
                        break
                    time.sleep(0.002)
        return gone


def leftovers(hierarchy: Hierarchy) -> set[str]:
    """Return the names of groups that exist now, of living runners and of dead ones."""
    homes = {*hierarchy.version1.values(), hierarchy.version2}
    return {
        entry.name
        for home in homes
        if home is not None and home.is_dir()
        for entry in home.iterdir()
        if entry.is_dir()
    }
