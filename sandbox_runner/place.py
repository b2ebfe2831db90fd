"""Where a runner notes which sandboxes live, so that the next one knows the dead from the living.

A lock file a sandbox, held by the runner's open descriptor: the kernel drops the lock with the
runner, however it ends. Everything named after an id whose lock can be taken is an orphan.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from policies.errors import CannotRun, Conflict, Invalid

#: Who sweeps holds the lock of a dead runner for a moment, and so does a child that a killed runner
#: had just born, until it runs its own program. A living runner holds it longer than this.
WAIT_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 0.02
#: Outer users of sandboxes, one a sandbox: beyond people, services and the usual container ranges.
FIRST_UID: Final = 1_900_000_000
UIDS: Final = 100_000_000
ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


def directory() -> Path:
    """Return the directory of the locks, made if need be. Raises CannotRun if it is not ours."""
    if os.geteuid() == 0:
        path = Path("/run/glovebox")
    elif "XDG_RUNTIME_DIR" in os.environ:
        path = Path(os.environ["XDG_RUNTIME_DIR"]) / "glovebox"
    else:
        path = Path(tempfile.gettempdir()) / f"glovebox-{os.geteuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    # In a shared directory somebody else may have made it first.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise CannotRun(
            "The runner's directory is not its own; remove it, or set XDG_RUNTIME_DIR.",
            code="sandbox.place",
        )
    return path


def outer_uid(identifier: str) -> int:
    """Return the user of this machine as which a sandbox of this name runs when we are root."""
    return FIRST_UID + zlib.crc32(identifier.encode()) % UIDS


def check_id(identifier: str) -> None:
    """Raise :class:`Invalid` unless this can be the name of a sandbox."""
    if not ID.fullmatch(identifier):
        raise Invalid(
            "A sandbox is named with letters, digits, - and _, at most 64 of them.",
            field="id",
            code="sandbox.id",
        )


def lock(descriptor: int, until: float) -> bool:
    """Take the lock of an open file or directory; False where somebody holds it beyond ``until``.

    ``until`` is a time of ``time.monotonic()``; the lock is tried once at least.
    """
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(LOOK_SECONDS)
        else:
            return True


class Claim:
    """The right to run one sandbox of this name on this machine, until released."""

    def __init__(self, identifier: str, *, wait: float = 0.0) -> None:
        """Raise :class:`Conflict` when another runner holds the name for longer than ``wait``."""
        check_id(identifier)
        until = time.monotonic() + wait
        self.path = directory() / f"{identifier}.lock"
        self._descriptor: int | None = None
        while self._descriptor is None:
            descriptor = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            if not lock(descriptor, until):
                os.close(descriptor)
                raise Conflict(
                    "The sandbox {name} is running already.", code="sandbox.busy", name=identifier
                )
            # The holder before us may have removed the file between our open and our lock.
            try:
                same = os.fstat(descriptor).st_ino == self.path.lstat().st_ino
            except FileNotFoundError:
                same = False
            if same:
                self._descriptor = descriptor
            else:
                os.close(descriptor)

    def release(self) -> None:
        """Give the name up; idempotent."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def orphans(names: set[str]) -> Iterator[Claim]:
    """Yield a claim, to be released by the caller, on every name whose runner is dead."""
    known = names | {path.stem for path in directory().glob("*.lock")}
    for name in sorted(known):
        if ID.fullmatch(name):
            try:
                claim = Claim(name)
            except Conflict:
                continue
            yield claim
