"""Encrypted objects: chunked AES-256-GCM, on files of one machine or in an S3 store.

An object is ``GBX1``, the chunk size, a random salt, then chunks. Its key is derived from the
caller's key, the salt and the object's name, so that writing a name twice never uses a nonce
twice. A chunk's nonce is its number and a flag that says whether it is the last; name, number and
flag are authenticated with it, so nothing can be changed, swapped, reordered, cut off or added
(the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015). Names are HMACs: what
an object holds cannot be guessed from its name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import io
import re
import secrets
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

from policies.errors import CannotRun, GloveboxError, Invalid, _
from portal import keys, object_store

MAGIC = b"GBX1"
CHUNK = 256 * 1024
TAG = 16
HEAD = struct.Struct(">4sI32s")
MAXIMUM_CHUNK = 16 * 1024 * 1024
_NAME = re.compile(r"[0-9a-f]{64}\Z")


class Damaged(GloveboxError):
    """A stored object is not what was written: changed, cut, swapped, or under another key."""


class DiskFull(CannotRun):
    """A disk has no room left; the message names which."""


@dataclass(frozen=True)
class Stored:
    """What was stored: its name, and the SHA-256 and length of the plain content."""

    name: str
    sha256: str
    bytes: int


@contextlib.contextmanager
def names_full_disk(disk: str) -> Iterator[None]:
    """Turn "no space left" inside the block into a DiskFull that names the disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(
            _("The disk of the {disk} is full. Make room and try again; nothing was published."),
            code="disk.full",
            disk=disk,
        ) from None


def object_name(key: bytes, *parts: str | int) -> str:
    """Return the 64 hex digits that name an object: an HMAC over the parts, in order."""
    mac = hmac.new(keys.derive(key, info="glovebox.object-name.v1"), digestmod=hashlib.sha256)
    for part in parts:
        text = str(part).encode()
        mac.update(struct.pack(">Q", len(text)) + text)
    return mac.hexdigest()


def checked(name: str) -> str:
    """Return ``name`` if it can be an object's; it is a part of a path."""
    if not _NAME.match(name):
        raise ValueError("an object's name is 64 hex digits")
    return name


class _Cipher:
    """The chunks of one object."""

    def __init__(self, key: bytes, name: str, head: bytes) -> None:
        magic, self.size, salt = HEAD.unpack(head)
        if magic != MAGIC or not 0 < self.size <= MAXIMUM_CHUNK:
            raise Damaged("not an object of this portal")
        self.aead = AESGCM(keys.derive(key, salt=salt, info=f"glovebox.object.v1:{name}"))
        self.about = head + name.encode()

    def _bound(self, number: int, final: bool) -> tuple[bytes, bytes]:
        nonce = struct.pack(">3xQ?", number, final)
        return nonce, self.about + nonce

    def seal(self, number: int, final: bool, plain: bytes) -> bytes:
        nonce, about = self._bound(number, final)
        return self.aead.encrypt(nonce, plain, about)

    def open(self, number: int, final: bool, sealed: bytes) -> bytes:
        nonce, about = self._bound(number, final)
        try:
            return self.aead.decrypt(nonce, sealed, about)
        except InvalidTag:
            raise Damaged(f"chunk {number} of an object does not verify") from None


def put(stream: BinaryIO, *, key: bytes, name: str, limit: int | None = None) -> Stored:
    """Encrypt ``stream`` and store it under ``name``; an object of that name is replaced.

    The object appears under its name only when all of it is on the disk. Raises Invalid (code
    ``blob.limit``) when the stream holds more than ``limit`` bytes, DiskFull (a UserError that
    names the disk) when there is no room.
    """
    checked(name)
    head = HEAD.pack(MAGIC, CHUNK, secrets.token_bytes(32))
    cipher = _Cipher(key, name, head)
    digest = hashlib.sha256()
    total = number = 0
    with names_full_disk("encrypted objects"), object_store.writer(name) as out:
        out.write(head)
        chunk = _read_full(stream, CHUNK)
        while True:
            following = _read_full(stream, CHUNK) if len(chunk) == CHUNK else b""
            digest.update(chunk)
            total += len(chunk)
            if limit is not None and total > limit:
                raise Invalid(
                    _("More than {limit} bytes were sent."), code="blob.limit", limit=limit
                )
            out.write(cipher.seal(number, not following, chunk))
            if not following:
                break
            chunk, number = following, number + 1
    return Stored(name, digest.hexdigest(), total)


def _read_full(stream: BinaryIO, size: int) -> bytes:
    """Read exactly ``size`` bytes unless the stream ends: sockets and pipes give less at once."""
    parts = []
    while size > 0:
        part = stream.read(size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class _Reader(io.RawIOBase):
    """Plain bytes of an object, each chunk verified before any of it is given out."""

    def __init__(self, source: object_store.Source, key: bytes, name: str) -> None:
        super().__init__()
        self._source = source
        head = source.read_at(0, HEAD.size)
        if len(head) != HEAD.size:
            raise Damaged("an object is cut off in its head")
        self._cipher = _Cipher(key, name, head)
        step = self._cipher.size + TAG
        body = source.size - HEAD.size
        self._chunks, rest = divmod(body, step)
        if rest:
            self._chunks += 1
            if rest < TAG:
                raise Damaged("an object is cut off")
        if self._chunks == 0:
            raise Damaged("an object is cut off")
        self._length = body - self._chunks * TAG
        self._position = 0
        self._number = -1
        self._plain = b""
        # The last chunk is verified first: a reader that only looks at the end, or only at the
        # beginning, must not take a cut object for a whole one.
        self._load(self._chunks - 1)

    def _load(self, number: int) -> None:
        if number == self._number:
            return
        step = self._cipher.size + TAG
        sealed = self._source.read_at(HEAD.size + number * step, step)
        self._plain = self._cipher.open(number, number == self._chunks - 1, sealed)
        self._number = number

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if self._position >= self._length or not view:
            return 0
        number, offset = divmod(self._position, self._cipher.size)
        self._load(number)
        part = self._plain[offset : offset + len(view)]
        view[: len(part)] = part
        self._position += len(part)
        return len(part)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
            self._plain = b""
        super().close()


def open(name: str, *, key: bytes) -> BinaryIO:
    """Return a seekable stream of the plain content; every byte is verified before it is given.

    Raises FileNotFoundError for no such object, Damaged (when opening or while reading) for one
    that was changed, cut, swapped with another, or belongs to another key.
    """
    source = object_store.reader(checked(name))
    try:
        return io.BufferedReader(_Reader(source, key, name), CHUNK)
    except BaseException:
        source.close()
        raise


def read(name: str, *, key: bytes) -> bytes:
    """Return the whole plain content of a small object."""
    with open(name, key=key) as stream:
        return stream.read()


def exists(name: str) -> bool:
    """Whether an object of that name is stored (its content is not verified)."""
    return object_store.exists(checked(name))


def delete(name: str) -> None:
    """Remove an object; removing one that is not there is no error."""
    object_store.delete(checked(name))


def sweep(*, older_than_seconds: float = 24 * 3600) -> int:
    """Remove drafts that a killed process left behind; return how many."""
    drafts = Path(settings.HOME) / "objects" / "drafts"
    count = 0
    for draft in drafts.glob("*") if drafts.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - draft.stat().st_mtime > older_than_seconds:
                draft.unlink()
                count += 1
    return count
