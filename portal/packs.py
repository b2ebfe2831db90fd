"""Packs: many small files in one stored object, each sealed by itself under its owner's key.

A pack is only a way to store. Each member is one message of AES-256-GCM under a key derived from
its subject's and the pack's name, so that destroying the subject's key takes it away here as
anywhere. Its nonce is its place in the pack. So no member can be changed, cut, moved, swapped with
another or taken from another pack. What is whole is
known from outside: the rows that name a pack say how long it is and where its members lie.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from portal import blobs, keys, object_store

MAGIC: Final = b"GBP1"
TAG: Final = 16
#: Read at once at most, and what may lie unwanted between two members that are read at once.
SPAN: Final = 8 << 20
GAP: Final = 256 << 10


_NONCE: Final = struct.Struct(">4xQ")


class Member(NamedTuple):
    """A file of a pack: whose key seals it, where its sealed bytes begin, how long it is plain."""

    key: bytes
    offset: int
    length: int


class Written(NamedTuple):
    """What was written: where each member begins, in their order, and the length of the pack."""

    offsets: tuple[int, ...]
    bytes: int


class _Ciphers:
    """The ciphers of one pack, one an owner."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._of: dict[bytes, AESGCM] = {}
        #: Authenticated with each member.
        self.about = MAGIC + name.encode()

    def of(self, key: bytes) -> AESGCM:
        """Return the cipher of an owner's members."""
        cipher = self._of.get(key)
        if cipher is None:
            cipher = AESGCM(keys.derive(key, info=f"glovebox.pack.v1:{self._name}"))
            self._of[key] = cipher
        return cipher


def new_name(key: bytes) -> str:
    """Return a name for a pack that was never used: a pack's keys hang on it."""
    return blobs.object_name(key, "pack", secrets.token_hex(32))


def write(members: Iterable[tuple[bytes, bytes]], *, name: str) -> Written:
    """Store a pack of (owner's key, plain content) under ``name``, which must be a new one.

    It appears under its name only when all of it is on the disk. Raises DiskFull.
    """
    if blobs.exists(name):
        raise ValueError("a pack is written once: its nonces are places in it")
    ciphers = _Ciphers(name)
    offsets = []
    at = len(MAGIC)
    with blobs.names_full_disk("encrypted objects"), object_store.writer(name) as out:
        out.write(MAGIC)
        for key, content in members:
            sealed = ciphers.of(key).encrypt(_NONCE.pack(at), content, ciphers.about)
            out.write(sealed)
            offsets.append(at)
            at += len(sealed)
    return Written(tuple(offsets), at)


def read(name: str, members: Sequence[Member], *, size: int) -> Iterator[bytes]:
    """Read members, near ones at once; return their plain content in their order, as it is taken.

    ``size`` is the length that the pack was written with. Raises FileNotFoundError for no such
    pack and Damaged where it was cut, lengthened or swapped; Damaged comes while the content is
    taken where a member does not verify.
    """
    source = object_store.reader(blobs.checked(name))
    try:
        if source.size != size:
            raise blobs.Damaged("a pack is not as long as it was written")
        spans = [
            (start, memoryview(source.read_at(start, end - start)), near)
            for start, end, near in _spans(members)
        ]
    finally:
        source.close()
    return _opened(_Ciphers(name), spans)


def _opened(
    ciphers: _Ciphers, spans: Iterable[tuple[int, memoryview, Sequence[Member]]]
) -> Iterator[bytes]:
    nonce, about, of = _NONCE.pack, ciphers.about, ciphers.of
    for start, sealed, near in spans:
        for key, offset, length in near:
            begin = offset - start
            try:
                yield of(key).decrypt(nonce(offset), sealed[begin : begin + length + TAG], about)
            except InvalidTag:
                raise blobs.Damaged("a member of a pack does not verify") from None


def _spans(members: Sequence[Member]) -> Iterator[tuple[int, int, list[Member]]]:
    """Cut members into runs that are read at once, each with where it begins and ends."""
    near: list[Member] = []
    start = end = 0
    for member in members:
        after = member.offset + member.length + TAG
        if near and not (end <= member.offset <= end + GAP and after - start <= SPAN):
            yield start, end, near
            near = []
        if not near:
            start = member.offset
        near.append(member)
        end = after
    if near:
        yield start, end, near
