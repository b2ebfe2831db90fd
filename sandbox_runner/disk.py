"""Watch the bytes that a sandbox writes through a writable mount of a real disk.

The kernel does not bound a directory of an ordinary file system, so this looks at it a few times
a second: cheaply at the whole disk, and exactly at the directory only when the disk has lost as
much as the sandbox may write.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def tree_bytes(path: Path) -> int:
    """Return the bytes that a directory's files take on disk, following no link."""
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            try:
                total += (Path(directory) / name).lstat().st_blocks * 512
            except OSError:
                continue
    return total


def _free(path: Path) -> int:
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


class DiskWatch:
    """Tells when the writable mounts together have grown by more than ``limit`` bytes."""

    def __init__(self, paths: Sequence[Path], limit: int) -> None:
        self._paths = list(paths)
        self._limit = limit
        self._free = [_free(path) for path in self._paths]
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
        # Others write to the same disk: look again when it could have filled up since.
        self._look_after = lost + max(0, self._limit - grown)
        return grown > self._limit
