"""Outputs appear whole or not at all: written beside their place, then renamed.

They are synced once, at the end of a run and before its report is closed: two syncs a file took
more than half of a run's time. After a power failure the report is not closed, and the next run
compares every output with its digest before it believes it.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from policies.errors import CannotRun, _

PART_PREFIX = ".glovebox-"
PART_SUFFIX = ".part"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BLOCK = 1 << 20
_SMALL = 1 << 16


class DiskFull(CannotRun):
    """No room for an output; nothing half-written is left and what was finished stays."""

    def __init__(self) -> None:
        super().__init__(
            _(
                "The disk of the output directory is full. Nothing was lost: free some space "
                "there and run the same command again with --resume."
            ),
            code="deid.disk-full",
        )


def digest_of(path: Path) -> str:
    """SHA-256 of a file as hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest_of_bytes(data: bytes) -> str:
    """SHA-256 of bytes as hex digits."""
    return hashlib.sha256(data).hexdigest()


def write(root: Path, target: str, chunks: Iterable[bytes | memoryview]) -> tuple[str, bool]:
    """Write ``root/target`` atomically; return its SHA-256 and whether anything changed.

    A file that already holds exactly these bytes is left alone. Raises :class:`DiskFull`.
    """
    pieces = list(_fewer(chunks))
    hasher = hashlib.sha256()
    for piece in pieces:
        hasher.update(piece)
    digest = hasher.hexdigest()
    path = root / target
    size = sum(len(piece) for piece in pieces)
    try:
        if path.is_file() and path.stat().st_size == size and digest_of(path) == digest:
            return digest, False
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.parent / f"{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"
        try:
            with part.open("xb") as handle:
                for piece in pieces:
                    handle.write(piece)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull from None
        raise
    return digest, True


def _fewer(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The same bytes with small neighbours as one: a data set is hundreds of pieces."""
    small = bytearray()
    for chunk in chunks:
        if len(chunk) < _SMALL and len(small) < _BLOCK:
            small += chunk
            continue
        if small:
            yield bytes(small)
            small.clear()
        yield chunk
    if small:
        yield bytes(small)


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
