"""Take regular files out of a directory that somebody hostile has written.

Nothing is ever reached through a path: each component is opened from its directory's descriptor
with O_NOFOLLOW, and what was opened is looked at again, so that a link, a device or a swapped name
has no moment in which it could be followed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from policies.errors import GloveboxError
from policies.names import path_fault
from sandbox_runner.spec import Rejected

DEPTH: Final = 12
#: Of more than these that are refused it is only said how many they are.
LISTED: Final = 1000
#: Stands for the rest of them, in the place of a path.
REST: Final = "..."
CHUNK: Final = 1 << 20
NEITHER_FOLLOW_NOR_WAIT: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class NotRegular(GloveboxError):
    """What was found is not a plain file with one name; the text says what it is."""


@dataclass(frozen=True)
class Found:
    """A regular file, by its path relative to the top; ``bytes`` counts holes as if filled."""

    path: str
    bytes: int


def shown(path: str) -> str:
    """Return a name that somebody hostile chose, safe for a terminal and a page, cut short."""
    text = ascii(path)[1:-1]
    return text if len(text) <= 120 else text[:117] + "..."


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a block device",
        stat.S_IFCHR: "a character device",
        stat.S_IFDIR: "a directory",
    }
    return kinds.get(stat.S_IFMT(mode), "not a regular file")


def check_plain(status: os.stat_result) -> None:
    """Raise :class:`NotRegular` unless this is a regular file with one name and no set-id bit."""
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(_kind(status.st_mode))
    if status.st_nlink != 1:
        raise NotRegular("a file with several names (hard link)")
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise NotRegular("a set-user-id or set-group-id file")


def true_bytes(status: os.stat_result) -> int:
    """Return what a file takes when it is copied: its length, or its blocks if those are more."""
    return max(status.st_size, status.st_blocks * 512 if status.st_size == 0 else status.st_size)


def walk(top: int, *, entries: int, prefix: str = "", depth: int = 0) -> Iterator[Found | Rejected]:
    """Yield every file under a directory's descriptor, sorted, and what is refused with why.

    Looks at no more than ``entries`` names in a directory; directories themselves are not named
    unless they are refused.
    """
    with os.scandir(top) as scan:
        names = []
        for entry in scan:
            names.append(entry.name)
            if len(names) > entries:
                yield Rejected(shown(prefix) or ".", f"more than {entries} entries")
                return
    for name in sorted(names):
        path = f"{prefix}{name}"
        if path_fault(name) is not None:
            yield Rejected(shown(path), "a hidden, over-long or unusual name")
            continue
        status = os.stat(name, dir_fd=top, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            if depth + 1 >= DEPTH:
                yield Rejected(shown(path), f"deeper than {DEPTH} directories")
                continue
            try:
                below = os.open(name, os.O_DIRECTORY | NEITHER_FOLLOW_NOR_WAIT, dir_fd=top)
            except OSError:
                yield Rejected(shown(path), "a directory that cannot be opened")
                continue
            try:
                yield from walk(below, entries=entries, prefix=f"{path}/", depth=depth + 1)
            finally:
                os.close(below)
            continue
        try:
            check_plain(status)
        except NotRegular as error:
            yield Rejected(shown(path), str(error))
        else:
            yield Found(path, true_bytes(status))


def open_plain(top: int, path: str) -> int:
    """Open a regular file below a directory's descriptor for reading; follow nothing.

    Raises :class:`NotRegular`, or ``OSError`` where it is not there.
    """
    parts = PurePosixPath(path).parts
    if path_fault(path, depth=DEPTH) is not None:
        raise NotRegular("a hidden, over-long or unusual name")
    directory = open_below(top, parts[:-1])
    try:
        # Looked at before it is opened too: opening a device can have an effect.
        check_plain(os.stat(parts[-1], dir_fd=directory, follow_symlinks=False))
        descriptor = os.open(parts[-1], os.O_RDONLY | NEITHER_FOLLOW_NOR_WAIT, dir_fd=directory)
        try:
            check_plain(os.fstat(descriptor))
        except NotRegular:
            os.close(descriptor)
            raise
        return descriptor
    finally:
        os.close(directory)


def open_below(top: int, parts: Sequence[str], *, make: bool = False) -> int:
    """Return a new descriptor of a directory below ``top``; no component of the way is followed.

    With ``make`` what is not there is made, and a link that stands in the way is replaced.
    """
    directory = os.dup(top)
    try:
        for part in parts:
            if make:
                _make_directory(part, directory)
            below = os.open(part, os.O_DIRECTORY | NEITHER_FOLLOW_NOR_WAIT, dir_fd=directory)
            os.close(directory)
            directory = below
    except BaseException:
        os.close(directory)
        raise
    return directory


def _make_directory(name: str, directory: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=directory)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=directory)


def copy_hashed(
    source: int,
    directory: int,
    name: str,
    limit: int,
    *,
    mode: int = 0o600,
    check: Callable[[], None] = lambda: None,
) -> tuple[int, str]:
    """Copy an open file into a new file of a directory while hashing; return bytes and SHA-256.

    ``directory`` is a descriptor. Only the content travels: no times, modes or attributes. The
    name must not exist; nothing is written through a link. Raises :class:`NotRegular` past
    ``limit`` bytes, leaving nothing.
    """
    digest = hashlib.sha256()
    written = 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, mode, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as copy:
            while data := os.read(source, CHUNK):
                check()
                written += len(data)
                if written > limit:
                    raise NotRegular(f"larger than the {limit} bytes that are left")
                digest.update(data)
                copy.write(data)
    except BaseException:
        os.unlink(name, dir_fd=directory)
        raise
    return written, digest.hexdigest()


def copy_tree(
    top: int, target: Path, *, limit: int, entries: int, file_mode: int = 0o600
) -> tuple[Rejected, ...]:
    """Copy the plain files of a hostile directory into ``target``; return what was refused."""
    into = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _copy_tree(top, into, limit, entries, file_mode)
    finally:
        os.close(into)


def _copy_tree(
    top: int, into: int, limit: int, entries: int, file_mode: int
) -> tuple[Rejected, ...]:
    refused: list[Rejected] = []
    unlisted = 0
    left = limit
    count = 0
    for found in walk(top, entries=entries):
        if isinstance(found, Found):
            count += 1
            written, why = _copy_found(top, into, found, left, file_mode, too_many=count > entries)
            left -= written
            if not why:
                continue
            found = Rejected(shown(found.path), why)
        if len(refused) < LISTED:
            refused.append(found)
        else:
            unlisted += 1
    if unlisted:
        refused.append(Rejected(REST, f"and {unlisted} more"))
    return tuple(refused)


def _copy_found(
    top: int, into: int, found: Found, left: int, mode: int, *, too_many: bool
) -> tuple[int, str]:
    """Copy one file; return its bytes, and why it was refused where it was."""
    if found.bytes > left or too_many:
        return 0, "larger than what is left of the limit" if found.bytes > left else "too many"
    try:
        source = open_plain(top, found.path)
    except (OSError, NotRegular) as error:
        return 0, str(error) if isinstance(error, NotRegular) else "cannot be opened"
    try:
        *above, name = PurePosixPath(found.path).parts
        place = open_below(into, above, make=True)
        try:
            written, _ = copy_hashed(source, place, name, left, mode=mode)
        finally:
            os.close(place)
    except NotRegular as error:
        return 0, str(error)
    finally:
        os.close(source)
    return written, ""
