"""Watch the bytes that a sandbox writes through a writable mount of a real disk.

The kernel does not bound a directory of an ordinary file system, so this looks at it a few times
a second: cheaply at the whole disk, and exactly at the directory only when the disk has lost as
much as the sandbox may write.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

#: No honest program nests deeper; what lies deeper is not looked for, but ends the sandbox.
DEPTH: Final = 100
TOO_DEEP: Final = 1 << 62


def tree_bytes(path: Path) -> int:
    """Return the bytes that a directory's files take on disk, following no link.

    A tree of more than :data:`DEPTH` levels counts as more than any limit.
    """
    try:
        # By descriptors, for a path of many long names is longer than the kernel takes.
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return 0
    return _bytes_below(top, 0)


def _bytes_below(directory: int, depth: int) -> int:
    """Return the bytes below an open directory, and close it."""
    try:
        if depth > DEPTH:
            return TOO_DEEP
        with os.scandir(directory) as scan:
            names = [entry.name for entry in scan]
        total = 0
        for name in names:
            with contextlib.suppress(OSError):  # gone since
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                total += status.st_blocks * 512
                if stat.S_ISDIR(status.st_mode):
                    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                    total += _bytes_below(os.open(name, flags, dir_fd=directory), depth + 1)
        return total
    finally:
        os.close(directory)


def nameless_bytes(processes: Iterable[int], devices: frozenset[int]) -> int:
    """Return the bytes of files without a name on these devices that processes hold open."""
    held: dict[tuple[int, int], int] = {}
    for process in processes:
        for kind in ("fd", "map_files"):
            with contextlib.suppress(OSError):
                for entry in Path(f"/proc/{process}/{kind}").iterdir():
                    with contextlib.suppress(OSError):
                        status = entry.stat()
                        if status.st_nlink == 0 and status.st_dev in devices:
                            held[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(held.values())


def _free(path: Path) -> int:
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


class DiskWatch:
    """Tells when the writable mounts together have grown by more than ``limit`` bytes.

    ``processes`` returns those of the sandbox, whose deleted files still take room.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        limit: int,
        processes: Callable[[], Iterable[int]] = lambda: (),
    ) -> None:
        self._paths = list(paths)
        self._limit = limit
        self._processes = processes
        self._free = [_free(path) for path in self._paths]
        self._devices = frozenset(path.stat().st_dev for path in self._paths)
        self._taken = sum(tree_bytes(path) for path in self._paths)
        self._look_after = limit

    def passed(self) -> bool:
        """Return whether the limit is passed, or the disk under a mount is full."""
        if not self._paths:
            return False
        free = [_free(path) for path in self._paths]
        if min(free) == 0:
            return True
        lost = max(before - now for before, now in zip(self._free, free, strict=True))
        if lost <= self._look_after:
            return False
        grown = sum(tree_bytes(path) for path in self._paths) - self._taken
        grown += nameless_bytes(self._processes(), self._devices)
        # Others write to the same disk: look again when it could have filled up since.
        self._look_after = lost + max(0, self._limit - grown)
        return grown > self._limit
