"""Outputs appear whole or not at all: written beside their place, then renamed.

They are synced once, at the end of a run and before its report is closed: two syncs a file took
more than half of a run's time. After a power failure the report is not closed, and the next run
compares every output with its digest before it believes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from deid.spill import Buffer, pieces
from policies.errors import CannotRun, Invalid, _

PART_PREFIX = ".glovebox-"
PART_SUFFIX = ".part"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BLOCK = 1 << 20


class DiskFull(CannotRun):
    """No room for an output; nothing half-written is left and what was finished stays."""

    def __init__(self) -> None:
        super().__init__(
            _(
                "A disk is full: that of the output directory, of the report or of another file "
                "that is written. Nothing was lost: free some space there and run the same command "
                "again with --resume."
            ),
            code="deid.disk-full",
        )


class Unwritable(CannotRun):
    """The output directory cannot be written any more; what was finished stays."""

    def __init__(self, reason: int | None = None) -> None:
        super().__init__(
            _(
                "The output directory cannot be written: {reason}. Nothing was lost: mend that "
                "and run the same command again with --resume."
            ),
            code="deid.unwritable",
            reason=os.strerror(reason or errno.EIO),
        )
        self.errno = reason


def cannot_store(error: OSError) -> CannotRun:
    """What to raise for a failed write; the error's own text would name the file."""
    return DiskFull() if error.errno in FULL else Unwritable(error.errno)


def digest_of(path: Path) -> str:
    """SHA-256 of a file as hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest_of_bytes(data: Buffer) -> str:
    """SHA-256 of bytes as hex digits."""
    hasher = hashlib.sha256()
    for piece in pieces(data):
        hasher.update(piece)
    return hasher.hexdigest()


def write(root: Path, target: str, chunks: Iterable[Buffer]) -> tuple[str, bool]:
    """Write ``root/target`` atomically; return its SHA-256 and whether anything changed.

    A file that already holds exactly these bytes is left alone. Raises :class:`DiskFull` and
    :class:`Unwritable`.
    """
    parts = list(chunks)
    hasher = hashlib.sha256()
    for each in parts:
        for piece in pieces(each):
            hasher.update(piece)
    digest = hasher.hexdigest()
    # Plain strings: of a small file, a tenth of the time went into taking paths apart.
    path = os.path.join(root, target)  # noqa: PTH118
    part = os.path.join(  # noqa: PTH118
        os.path.dirname(path),  # noqa: PTH120
        f"{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}",
    )
    size = sum(len(each) for each in parts)
    try:
        if _size_of(path) == size and digest_of(Path(path)) == digest:
            return digest, False
        try:
            handle = FileIO(part, "xb")
        except FileNotFoundError:
            Path(part).parent.mkdir(parents=True, exist_ok=True)
            handle = FileIO(part, "xb")
        try:
            with handle:
                for each in parts:
                    for piece in pieces(each):
                        _write_all(handle, piece)
            os.replace(part, path)  # noqa: PTH105
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_store(error) from None
    return digest, True


@contextlib.contextmanager
def draft(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A file to write piece by piece, there under its name once the block has ended well.

    Raises :class:`DiskFull`.
    """
    part = path.parent / f"{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
        part.replace(path)
    except OSError as error:
        raise cannot_store(error) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def claim(root: Path) -> int:
    """Take a folder for one run, and show that it can be written; closing the number frees it.

    Raises :class:`Invalid` while another run has it: each would remove the other's drafts.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Invalid(_("Another run is writing there; wait for its end."), field="DST") from None
    except OSError:
        pass  # a file system without locks
    probe = root / f"{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        os.close(descriptor)
        if error.errno in FULL:
            raise DiskFull from None
        raise Invalid(_("The output directory cannot be written."), field="DST") from None
    return descriptor


def _size_of(path: str) -> int:
    """The size of a plain file, -1 where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _write_all(handle: FileIO, piece: bytes | memoryview) -> None:
    rest = memoryview(piece).cast("B")
    while len(rest):
        rest = rest[handle.write(rest) :]


class Part:
    """A file that comes in pieces: it appears at its place when it is kept, or not at all.

    Used in a ``with`` block. Raises :class:`DiskFull`.
    """

    def __init__(self, root: Path, target: str) -> None:
        self._path = root / target
        self.part = self._path.parent / f"{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"
        self._hasher = hashlib.sha256()

    def __enter__(self) -> Part:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = self.part.open("xb")
        return self

    def __exit__(self, *_error: object) -> None:
        self._handle.close()
        self.part.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        """Add a piece."""
        self._hasher.update(piece)
        try:
            self._handle.write(piece)
        except OSError as error:
            if error.errno in FULL:
                raise DiskFull from None
            raise

    def finish(self) -> Path:
        """The whole file, still beside its place: to be read and judged."""
        try:
            self._handle.close()
        except OSError as error:
            if error.errno in FULL:
                raise DiskFull from None
            raise
        return self.part

    def keep(self) -> tuple[str, bool]:
        """Put the file in its place; return its SHA-256 and whether anything changed."""
        digest = self._hasher.hexdigest()
        if self._path.is_file() and digest_of(self._path) == digest:
            return digest, False
        self.part.replace(self._path)
        return digest, True


def settle(root: Path) -> None:
    """Bring everything written under ``root`` to the disk. Raises :class:`DiskFull`.

    syncfs(2) asks the one file system and, unlike sync(2), reports a failed write. A sandbox's
    filter refuses it, because it keeps the disk busy for everybody; there each file is synced.
    """
    descriptor = os.open(root, os.O_RDONLY)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.syncfs(descriptor) != 0:
            error = ctypes.get_errno()
            if error in FULL:
                raise DiskFull
            if error not in (errno.EPERM, errno.ENOSYS):
                raise OSError(error, os.strerror(error))
            _sync_each(root)
    finally:
        os.close(descriptor)


def _sync_each(root: Path) -> None:
    for folder, _folders, names in os.walk(root):
        for path in (*(Path(folder) / name for name in names), Path(folder)):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(descriptor)
            except OSError as error:
                if error.errno in FULL:
                    raise DiskFull from None
                raise
            finally:
                os.close(descriptor)


def sweep(root: Path) -> None:
    """Remove what a killed run left half-written."""
    if root.is_dir():
        for part in root.rglob(f"{PART_PREFIX}*{PART_SUFFIX}"):
            part.unlink(missing_ok=True)
