"""Lend a directory of the runner's to a sandbox's user, and take it back with what is in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path


def _change_owner(top: int, uid: int, gid: int) -> None:
    """Give everything under a directory's descriptor to one owner; follow nothing."""
    with os.scandir(top) as scan:
        names = [entry.name for entry in scan]
    for name in names:
        status = os.stat(name, dir_fd=top, follow_symlinks=False)
        if (status.st_uid, status.st_gid) != (uid, gid):
            # A hard link made inside can only name a file of the same lent directory.
            os.chown(name, uid, gid, dir_fd=top, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(name, flags, dir_fd=top)
            try:
                _change_owner(below, uid, gid)
            finally:
                os.close(below)


class Loan:
    """Writable mounts. Without root the user is the same outside, and nothing changes hands."""

    def __init__(self, paths: Sequence[Path], uid: int | None) -> None:
        self._paths = list(paths)
        self._uid = uid
        self._owner = (os.geteuid(), os.getegid())

    def _all_to(self, uid: int, gid: int) -> None:
        for path in self._paths:
            top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.chown(top, uid, gid)
                _change_owner(top, uid, gid)
            finally:
                os.close(top)

    def give(self) -> None:
        """Make the sandbox's user the owner."""
        if self._uid is not None:
            self._all_to(self._uid, self._uid)

    def take_back(self) -> None:
        """Make the runner's user the owner again; only after every process has ended."""
        if self._uid is not None:
            self._all_to(*self._owner)
