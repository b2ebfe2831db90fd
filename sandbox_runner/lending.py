"""Lend a directory of the runner's to a sandbox's user, and take it back with what is in it."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: Deeper than this, or of longer paths in bytes, a tree is a trap for whoever walks it.
DEPTH: Final = 100
PATH: Final = 2048


def _change_owner(top: int, uid: int, gid: int) -> None:
    """Give everything under a directory's descriptor to one owner; follow nothing.

    What is nested too deeply is moved up to the top, as ``deep-`` and digits, so that neither this
    nor whoever comes after runs out of stack, of descriptors, or of bytes in a path.
    """
    while _change_below(top, uid, gid, top, 0, 0):
        pass  # what was moved up has depth of its own


def _change_below(directory: int, uid: int, gid: int, top: int, depth: int, length: int) -> int:
    """Change owners below an open directory; return how many directories were moved to the top."""
    moved = 0
    with os.scandir(directory) as scan:
        names = [entry.name for entry in scan]
    for name in names:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if (status.st_uid, status.st_gid) != (uid, gid):
            # A hard link made inside can only name a file of the same lent directory.
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            continue
        here = length + 1 + len(os.fsencode(name))
        if depth >= DEPTH or here > PATH:
            os.rename(name, f"deep-{secrets.token_hex(8)}", src_dir_fd=directory, dst_dir_fd=top)
            moved += 1
            continue
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        below = os.open(name, flags, dir_fd=directory)
        try:
            moved += _change_below(below, uid, gid, top, depth + 1, here)
        finally:
            os.close(below)
    return moved


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
