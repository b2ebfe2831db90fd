"""Find every input: files of a tree, and members of zips as if they were unpacked in place."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from deid.quarantine import Quarantined
from deid.spill import LARGE, STEP, Buffer, Spill, mapped
from policies.errors import Invalid, _

FILE_BYTES = 4 << 30
MEMBERS = 200_000
# A member that grows more than this, and is large, is taken for a bomb.
EXPANSION, SMALL_BYTES, MANY_BYTES = 200, 64 << 20, 1 << 30


@dataclass(frozen=True)
class Source:
    """One input: ``name`` is its place in the tree, ``refused`` a reason not to read it.

    ``member`` is the name inside the zip at ``path``, empty for a plain file.
    """

    path: str
    member: str
    name: str
    size: int
    refused: str = ""


def walk(src: Path) -> list[Source]:
    """Every input under ``src`` (a folder, a zip or one file) in a fixed order.

    Links and devices are listed and refused, never followed. Raises :class:`Invalid` when there
    is nothing to read.
    """
    if src.is_file():
        return list(_file(src, src.name, ""))
    if not src.is_dir():
        raise Invalid(_("There is no folder, zip or file to read."), field="SRC")
    found: list[Source] = []

    def unreadable(_error: OSError) -> None:
        found.append(Source("", "", f"folder {len(found)}", 0, "unreadable"))

    for folder, folders, files in os.walk(src, onerror=unreadable, followlinks=False):
        folders.sort()
        base = Path(folder)
        inside = "" if base == src else base.relative_to(src).as_posix()
        for name in sorted([*files, *(each for each in folders if (base / each).is_symlink())]):
            found.extend(_file(base / name, f"{inside}/{name}" if inside else name, inside))
    return found


def _file(path: Path, name: str, parent: str) -> Iterator[Source]:
    try:
        status = path.lstat()
    except OSError:
        yield Source(str(path), "", name, 0, "unreadable")
        return
    if not stat.S_ISREG(status.st_mode):
        yield Source(str(path), "", name, 0, "link" if stat.S_ISLNK(status.st_mode) else "device")
        return
    if status.st_size > FILE_BYTES:
        yield Source(str(path), "", name, status.st_size, "too-large")
        return
    try:
        with path.open("rb") as handle:
            is_zip = handle.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        yield Source(str(path), "", name, status.st_size, "unreadable")
        return
    if is_zip:
        yield from _members(path, name, "" if parent in ("", ".") else parent + "/")
    else:
        yield Source(str(path), "", name, status.st_size)


def _members(path: Path, name: str, prefix: str) -> Iterator[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        yield Source(str(path), "", name, 0, "bad-zip")
        return
    if len(entries) > MEMBERS or _is_bomb(entries, path):
        yield Source(str(path), "", name, 0, "too-large")
        return
    files = [entry for entry in entries if not entry.is_dir()]
    if not files:
        yield Source(str(path), "", name, 0, "empty")
    # A name given twice opens one member only, so neither is what it seems.
    times = Counter(entry.filename for entry in files)
    for entry in files:
        refused = _refused(entry)
        if times[entry.filename] > 1:
            refused = "doubled-member"
        yield Source(str(path), entry.filename, prefix + entry.filename, entry.file_size, refused)


def _is_bomb(entries: list[zipfile.ZipInfo], path: Path) -> bool:
    """Whether a zip holds far more than its bytes can: many members that share them."""
    whole = sum(entry.file_size for entry in entries)
    return whole > MANY_BYTES and whole > EXPANSION * path.stat().st_size


def _refused(entry: zipfile.ZipInfo) -> str:
    pure = PurePosixPath(entry.filename.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or "\0" in entry.filename:
        return "path-outside"
    mode = entry.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "link"
    if entry.flag_bits & 0x1:
        return "encrypted"
    large = entry.file_size > SMALL_BYTES
    if entry.file_size > FILE_BYTES or (
        large and entry.file_size > EXPANSION * max(1, entry.compress_size)
    ):
        return "too-large"
    return ""


def _whole(member: IO[bytes], most: int) -> Buffer:
    data = Spill()
    while piece := member.read(min(STEP, most - data.size)):
        data.write(piece)
    return data.value()


class Reader:
    """Reads inputs; keeps the last zip open, because its members follow each other."""

    def __init__(self) -> None:
        self._path = ""
        self._archive: zipfile.ZipFile | None = None

    def read(self, source: Source) -> Buffer:
        """The bytes of an input; raises :class:`Quarantined` when they cannot be read.

        Large ones are a view of a mapped file. If somebody shortens that file meanwhile, reading
        ends the process (SIGBUS): ``deid.pool`` gives such inputs to a process of its own.
        """
        if source.refused:
            raise Quarantined(source.refused)
        try:
            if not source.member:
                # A pipe put in the file's place since the walk must not keep the batch waiting.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(source.path, flags)
                with os.fdopen(descriptor, "rb", buffering=0) as handle:
                    status = os.fstat(descriptor)
                    size = status.st_size
                    if not stat.S_ISREG(status.st_mode):
                        raise Quarantined("changed")
                    if size > FILE_BYTES:
                        raise Quarantined("too-large")
                    data = mapped(descriptor) if size > LARGE else handle.readall()
            else:
                with self._zip(source.path).open(source.member) as member:
                    data = _whole(member, source.size + 1)
        except (OSError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError,
                EOFError, RuntimeError):  # fmt: skip
            raise Quarantined("unreadable") from None
        if len(data) > (source.size if source.member else FILE_BYTES):
            raise Quarantined("too-large")
        if source.member and data[:4] == b"PK\x03\x04":
            raise Quarantined("nested-zip")
        return data

    def text(self, source: Source) -> bytes:
        """The bytes of a table, which is read whole; see :meth:`read`."""
        return bytes(self.read(source))

    def _zip(self, path: str) -> zipfile.ZipFile:
        if self._archive is None or self._path != path:
            self.close()
            self._archive, self._path = zipfile.ZipFile(path), path
        return self._archive

    def close(self) -> None:
        """Close the zip that is open."""
        if self._archive is not None:
            self._archive.close()
            self._archive = None
