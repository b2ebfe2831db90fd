"""The zip file (PKWARE APPNOTE 6.3): written in one way only, and read only if written so.

Members are stored, never compressed: nothing can unpack to more than it is, and every byte of
the file has one place and one meaning. The reader is our own and accepts exactly what the writer
writes, so a prefix, a gap, a comment, a second directory or a changed date is found by shape.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from bundle import members
from bundle.faults import Fault, inert
from policies.errors import Invalid

# signature, version, flags, method, time, date, crc, stored, plain, name length, extra length
_LOCAL: Final = struct.Struct("<4s5H3L2H")
# ..., comment length, disk, internal attributes, external attributes, offset
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_END: Final = struct.Struct("<4s4H2LH")

_MADE_BY_UNIX: Final = 3 << 8 | 20
_VERSION: Final = 20
_NO_FLAGS: Final = 0  # names are ASCII
_STORED: Final = 0
_TIME, _DATE = 0, 1 << 5 | 1  # 1980-01-01, the first day that zip knows
_REGULAR_FILE: Final = 0o100644 << 16
_CHUNK: Final = 1 << 20
LARGEST: Final = 2**32 - 2**24


@dataclass(frozen=True)
class Member:
    """One member: its name, where its bytes start in the file, how many, and their SHA-256."""

    name: str
    offset: int
    size: int
    sha256: str


def _chunks(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _local(name: bytes, crc: int, size: int) -> bytes:
    return (
        _LOCAL.pack(
            b"PK\3\4", _VERSION, _NO_FLAGS, _STORED, _TIME, _DATE, crc, size, size, len(name), 0
        )
        + name
    )


def _central(name: bytes, crc: int, size: int, offset: int) -> bytes:
    head = _CENTRAL.pack(
        b"PK\1\2",
        _MADE_BY_UNIX,
        _VERSION,
        _NO_FLAGS,
        _STORED,
        _TIME,
        _DATE,
        crc,
        size,
        size,
        len(name),
        0,
        0,
        0,
        0,
        _REGULAR_FILE,
        offset,
    )
    return head + name


def _end(count: int, size: int, offset: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, count, count, size, offset, 0)


def write(target: IO[bytes], contents: Mapping[str, Path | bytes]) -> None:
    """Write the members, sorted by name. Raises Invalid if they are too large for one zip."""
    directory, offset = b"", 0
    for name in sorted(contents):
        crc, size = 0, 0
        for chunk in _chunks(contents[name]):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
        plain = name.encode()
        if offset + size > LARGEST:
            raise Invalid("A bundle holds at most 4 GiB.", code="bundle-size")
        target.write(_local(plain, crc, size))
        written = 0
        for chunk in _chunks(contents[name]):
            target.write(chunk)
            written += len(chunk)
        if written != size:
            raise Invalid("A file changed while it was packed.", code="bundle-changed")
        directory += _central(plain, crc, size, offset)
        offset += _LOCAL.size + len(plain) + size
    target.write(directory + _end(len(contents), len(directory), offset))


def _fault(code: str, message: str, name: str = "") -> Fault:
    return Fault(message, code=code, name=inert(name))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise _fault("truncated", "The bundle ends in the middle of a member.")
    return data


def _check_name(name: str, seen: Mapping[str, object]) -> None:
    if name in seen:
        raise _fault("duplicate", "The bundle holds {name} twice.", name=name)
    if name.startswith("/") or "\\" in name or ".." in name.split("/") or ":" in name:
        raise _fault("traversal", "A member would be unpacked elsewhere: {name}.", name=name)
    if not members.is_allowed(name):
        raise _fault("member", "{name} is not one of the files that a bundle may hold.", name=name)


def read(stream: IO[bytes]) -> dict[str, Member]:
    """Return the members of a file that is exactly as :func:`write` writes it.

    Reads the whole file once, holding one chunk. Raises :class:`Fault` with codes not-a-bundle,
    truncated, size, compressed, encrypted, duplicate, traversal, member, order, checksum,
    directory, comment or trailing.
    """
    stream.seek(0, 2)
    total = stream.tell()
    stream.seek(0)
    if not total:
        raise _fault("not-a-bundle", "The file is empty.")
    if total > 2**32:
        raise _fault("size", "The file is larger than a bundle may be.")
    if stream.read(4) != b"PK\3\4":
        raise _fault("not-a-bundle", "The file is not a bundle.")
    stream.seek(0)
    found: dict[str, Member] = {}
    directory, offset = b"", 0
    entries: list[tuple[int, str]] = []
    while (signature := _exactly(stream, 4)) == b"PK\3\4":
        if len(found) >= members.MEMBERS:
            raise _fault("member", "The bundle holds more files than a bundle may.")
        fields = _LOCAL.unpack(signature + _exactly(stream, _LOCAL.size - 4))
        flags, method, crc, stored, plain_size, name_length = (
            fields[i] for i in (2, 3, 6, 7, 8, 9)
        )
        if name_length > members.NAME_LENGTH:
            raise _fault("member", "A member's name is too long.")
        raw = _exactly(stream, name_length)
        name = raw.decode("utf-8", "replace")
        if flags & 1:
            raise _fault("encrypted", "{name} is encrypted.", name=name)
        if method != _STORED or stored != plain_size:
            raise _fault(
                "compressed", "{name} is compressed; a bundle's members never are.", name=name
            )
        _check_name(name, found)
        if found and name < max(found):
            raise _fault("order", "The members are not in their order: {name}.", name=name)
        if signature + _LOCAL.pack(*fields)[4:] + raw != _local(raw, crc, stored):
            raise _fault("header", "The header of {name} is not as a bundle's is.", name=name)
        start, digest, checksum, left = stream.tell(), hashlib.sha256(), 0, stored
        while left:
            chunk = _exactly(stream, min(left, _CHUNK))
            digest.update(chunk)
            checksum = zlib.crc32(chunk, checksum)
            left -= len(chunk)
        if checksum != crc:
            raise _fault("checksum", "{name} is damaged: its checksum differs.", name=name)
        found[name] = Member(name, start, stored, digest.hexdigest())
        entries.append((len(directory), name))
        directory += _central(raw, crc, stored, offset)
        offset = stream.tell()
    expected = directory + _end(len(found), len(directory), offset)
    tail = signature + stream.read(len(expected) + 65536)
    if tail == expected:
        return found
    if expected.startswith(tail):
        raise _fault("truncated", "The bundle ends in the middle of its directory.")
    if tail.startswith(expected):
        raise _fault("trailing", "There are bytes after the end of the bundle.")
    if tail.startswith(expected[:-2]):
        raise _fault("comment", "The zip file has a comment; a bundle has none.")
    differs = next((i for i, (a, b) in enumerate(zip(tail, expected, strict=False)) if a != b), 0)
    if differs >= len(directory):
        raise _fault("directory", "The end of the zip directory does not agree with the members.")
    name = [name for begins, name in entries if begins <= differs][-1]
    raise _fault("directory", "The zip directory says another thing of {name}.", name=name)


def replaced(stream: IO[bytes], changed: Mapping[str, bytes]) -> Iterator[bytes]:
    """Return the bytes of a bundle with the content of some members changed, chunk by chunk.

    ``stream`` holds a bundle that :func:`read` accepted when it was stored: checksums are taken
    from its headers and not computed again, so the first byte leaves at once. Raises
    :class:`Fault` where a member that is to be changed is not there.
    """
    stream.seek(0)
    directory, offset, done = b"", 0, set()
    while (signature := _exactly(stream, 4)) == b"PK\3\4":
        fields = _LOCAL.unpack(signature + _exactly(stream, _LOCAL.size - 4))
        crc, size = fields[6], fields[7]
        raw = _exactly(stream, fields[9])
        name = raw.decode()
        new = changed.get(name)
        left = size
        if new is not None:
            done.add(name)
            stream.seek(size, 1)
            crc, size, left = zlib.crc32(new), len(new), 0
        yield _local(raw, crc, size) + (new or b"")
        while left:
            chunk = _exactly(stream, min(left, _CHUNK))
            left -= len(chunk)
            yield chunk
        directory += _central(raw, crc, size, offset)
        offset += _LOCAL.size + len(raw) + size
    if done != changed.keys():
        raise _fault("missing", "The bundle lacks a member that names its recipient.")
    count = directory.count(b"PK\1\2")
    yield directory + _end(count, len(directory), offset)


def content(stream: IO[bytes], member: Member, most: int) -> bytes:
    """Return a member's bytes. Raises :class:`Fault` if there are more than ``most``."""
    if member.size > most:
        raise _fault("size", "{name} is larger than it may be.", name=inert(member.name))
    stream.seek(member.offset)
    return _exactly(stream, member.size)
