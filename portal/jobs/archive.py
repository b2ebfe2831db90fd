"""Uploaded zips: read the list and the manifest, unpack within the policy's limits.

Zip headers are the stranger's own words. Names, kinds and sizes are judged by policy before a
byte is unpacked; unpacking then counts what really comes out and stops at the same limits.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from policies.archive import DIRECTORY, FILE, LINK, OTHER, ArchiveMember, check_archive
from policies.document import Policy
from policies.errors import Invalid, _
from policies.submission import MANIFEST_NAME

# Zip's "made by" systems whose upper attribute half holds Unix modes.
_UNIX = {3, 19}
_CHUNK = 1 << 20
# The end record: signature, four disk and entry counts, the directory's size and place, comment.
_END = struct.Struct("<4s4H2LH")
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
# What a broken or hostile zip makes the standard library raise.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def _not_a_zip() -> Invalid:
    return Invalid(
        _("This is not a readable zip file. Pack the folder with glovebox.toml at its top."),
        field="archive",
        code="archive.zip",
    )


def _kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16 if info.create_system in _UNIX else 0
    if info.flag_bits & 0x1 or info.compress_type not in _METHODS:
        return OTHER  # encrypted, or packed in a way that only some readers know
    if stat.S_ISLNK(mode):
        return LINK
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return OTHER
    if info.is_dir() != stat.S_ISDIR(mode) and stat.S_IFMT(mode):
        return OTHER
    return DIRECTORY if info.is_dir() else FILE


def _check_directory_size(stream: BinaryIO, policy: Policy) -> None:
    """Refuse a list of members that is too long before the library reads it into memory.

    Looks where the library looks: an end record without a comment, else the last one within a
    comment's reach. Zip64 records are refused: nothing that the policy takes needs one.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _END.size - (1 << 16)))
    tail = stream.read()
    start = len(tail) - _END.size
    if not (start >= 0 and tail.startswith(b"PK\x05\x06", start) and tail.endswith(b"\0\0")):
        start = tail.rfind(b"PK\x05\x06")
    if start < 0 or len(tail) - start < _END.size:
        raise _not_a_zip()
    limits = policy.submission.archive
    directory = _END.unpack_from(tail, start)[5]
    zip64 = start >= 20 and tail.startswith(b"PK\x06\x07", start - 20)
    if zip64 or directory > limits.members * (46 + 4 * limits.name_length + 512):
        raise Invalid(
            _("The archive holds more than {most} entries."),
            field="archive",
            code="archive.members",
            most=limits.members,
        )
    stream.seek(0)


class Archive:
    """A zip whose list of members the policy has accepted."""

    def __init__(self, stream: BinaryIO, policy: Policy) -> None:
        """Read the list of members. Raises Invalid (field ``archive``) for the first fault."""
        _check_directory_size(stream, policy)
        try:
            self._zip = zipfile.ZipFile(stream)
        except (*_BROKEN, OSError):
            raise _not_a_zip() from None
        self._policy = policy
        infos = self._zip.infolist()
        members = [
            # ``orig_filename``: the library cuts names at a NUL and turns separators around.
            ArchiveMember(info.orig_filename, info.file_size, info.compress_size, _kind(info))
            for info in infos
        ]
        self.names = check_archive(members, policy)
        self._files = {
            info.orig_filename: info
            for info, member in zip(infos, members, strict=True)
            if member.kind == FILE
        }

    @property
    def sizes(self) -> list[tuple[str, int]]:
        """Each file's name and declared size in bytes, by name."""
        return sorted((name, info.file_size) for name, info in self._files.items())

    def manifest_text(self) -> bytes:
        """Return ``glovebox.toml``. Raises Invalid where it is missing or too large."""
        if MANIFEST_NAME not in self._files:
            inside = [name for name in self._files if name.endswith(f"/{MANIFEST_NAME}")]
            if inside:
                raise Invalid(
                    _("glovebox.toml lies in a folder; zip the folder's content, not the folder."),
                    field=MANIFEST_NAME,
                    code="archive.nested",
                )
            raise Invalid(
                _("The archive holds no glovebox.toml at its top."),
                field=MANIFEST_NAME,
                code="archive.manifest",
            )
        limit = self._policy.submission.manifest_bytes
        try:
            with self._zip.open(self._files[MANIFEST_NAME]) as stream:
                text = stream.read(limit + 1)
        except (*_BROKEN, OSError):
            raise _not_a_zip() from None
        if len(text) > limit:
            raise Invalid(
                _("The manifest is larger than {most} bytes."),
                field=MANIFEST_NAME,
                code="manifest.size",
                most=limit,
            )
        return text

    def beginning(self, name: str, limit: int) -> bytes:
        """Return at most ``limit`` bytes of a member. Raises Invalid for a broken one."""
        try:
            with self._zip.open(self._files[name]) as stream:
                return stream.read(limit)
        except (*_BROKEN, OSError):
            raise _not_a_zip() from None

    def unpack(self, target: Path) -> None:
        """Write the files into ``target`` (made here, must not exist), with plain modes.

        Raises Invalid when more comes out than the archive said or the policy allows. Nothing is
        ever written through a link: the target is ours and every file is created anew.
        """
        target.mkdir(mode=0o755)
        left = self._policy.submission.archive.unpacked_bytes
        for name, info in self._files.items():
            path = target / name
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            left -= self._write(info, path, min(left, info.file_size))

    def _write(self, info: zipfile.ZipInfo, path: Path, limit: int) -> int:
        written = 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with os.fdopen(descriptor, "wb") as out:
            try:
                with self._zip.open(info) as stream:
                    while chunk := stream.read(_CHUNK):
                        written += len(chunk)
                        if written > limit:
                            raise Invalid(
                                _("The archive unpacks to more than it says."),
                                field="archive",
                                code="archive.total",
                            )
                        out.write(chunk)
            except _BROKEN:
                raise _not_a_zip() from None
        return written
