"""Where workers keep plaintext while they need it: memory where there is any, and nowhere else.

``GLOVEBOX_WORK`` names the folder; without it a folder in shared memory is used, which no disk and
no backup ever sees. Staging looks whether swap is off or encrypted, and refuses where it is not.
What a killed worker left there is found by name and finished or removed by the task that owns the
name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings


def mark() -> str:
    """Return 12 hex digits that name this installation.

    Two portals on a machine must meet neither in a work folder nor in a sandbox's name.
    """
    return hashlib.sha256(str(settings.HOME).encode()).hexdigest()[:12]


def root() -> Path:
    """Return the folder of all work in plaintext, private to this user."""
    named = os.environ.get("GLOVEBOX_WORK")
    shared_memory = Path("/dev/shm")  # noqa: S108 - the folder below is private
    if named:
        folder = Path(named)
    elif shared_memory.is_dir() and os.access(shared_memory, os.W_OK):
        folder = shared_memory / f"glovebox-{os.getuid()}-{mark()}"
    else:
        folder = settings.HOME / "work"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError("the work folder belongs to somebody else")
    folder.chmod(0o700)
    return folder


def folder(name: str) -> Path:
    """Return the work folder called ``name``, made if it is missing."""
    path = root() / name
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def remove(name: str) -> None:
    """Remove a work folder and all in it; nothing happens where there is none."""
    shutil.rmtree(root() / name, ignore_errors=True)


@contextlib.contextmanager
def temporary(name: str) -> Iterator[Path]:
    """Give a work folder that is empty at the start and gone at the end."""
    remove(name)
    try:
        yield folder(name)
    finally:
        remove(name)
