"""Folders in which a command keeps plain data while it runs, and which no killed command leaves.

Each is locked by its command; the kernel drops the lock with the process, however it ends, and
the next command removes every folder whose lock can be taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PREFIX: Final = "glovebox-scratch-"


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Give an empty folder of one's own, gone at the end; remove those of dead commands first."""
    sweep()
    path, lock = _locked()
    try:
        yield path
    finally:
        _remove(path)
        os.close(lock)


def sweep() -> int:
    """Remove the folders of commands that were killed; return how many."""
    removed = 0
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = _lock(path)
        if lock is not None:
            _remove(path)
            os.close(lock)
            removed += 1
    return removed


def _locked() -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = _lock(path)
        # A command that swept between our two steps has taken it for an orphan.
        if lock is not None and path.exists():
            return path, lock
        if lock is not None:
            os.close(lock)


def _lock(path: Path) -> int | None:
    """Return the lock on a folder of ours, None where it is another's or somebody holds it."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


def _remove(path: Path) -> None:
    """Remove a folder; staged data lie in read-only directories."""
    for directory, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            Path(directory).chmod(stat.S_IRWXU)
    shutil.rmtree(path, ignore_errors=True)
