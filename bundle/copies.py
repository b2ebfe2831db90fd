"""A copy of a bundle for another recipient: only the two members that name the recipient change.

The mark stands in the manifest, signed; the weights are the same bytes in every copy.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bundle import canonical, container, crate, dsse, members, statement
from bundle.keys import key_id


@dataclass(frozen=True)
class PersonalMembers:
    """The two members of one recipient's copy, and the digest under which it is revoked."""

    crate: bytes
    envelope: bytes
    statement_sha256: str

    def changed(self) -> dict[str, bytes]:
        """Return them by member name."""
        return {members.CRATE: self.crate, members.EVIDENCE: self.envelope}


def personal(
    stream: IO[bytes], *, recipients: Iterable[str], signing_key: Ed25519PrivateKey
) -> list[PersonalMembers]:
    """Return the members of each recipient's copy of a bundle that ``signing_key`` signed.

    The bundle is read once, however many they are. Raises :class:`bundle.faults.Fault` for
    anything but such a bundle.
    """
    found = container.read(stream)
    public = signing_key.public_key()
    envelope = container.content(stream, found[members.EVIDENCE], container.LARGEST)
    opened = dsse.open_envelope(
        envelope, statement.PAYLOAD_TYPE, {key_id(public): public}, "The evidence"
    )
    said = statement.read(opened.payload)
    described = canonical.load(
        container.content(stream, found[members.CRATE], container.LARGEST), "The RO-Crate metadata"
    )
    copies = []
    for recipient in recipients:
        metadata = crate.for_recipient(described, recipient)
        digests = {**said.subjects, members.CRATE: hashlib.sha256(metadata).hexdigest()}
        payload = statement.write(digests, said.evidence, recipient, said.released)
        sealed = dsse.seal(statement.PAYLOAD_TYPE, payload, signing_key)
        copies.append(PersonalMembers(metadata, sealed, hashlib.sha256(payload).hexdigest()))
    return copies


class _Chunks(io.RawIOBase):
    """An iterator of bytes as a stream that can be read once; closes what it reads from."""

    def __init__(self, chunks: Iterable[bytes], source: IO[bytes]) -> None:
        self._chunks = iter(chunks)
        self._source = source
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        into = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while not self._left:
            following = next(self._chunks, None)
            if following is None:
                return 0
            self._left = memoryview(following)
        count = min(len(into), len(self._left))
        into[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        self._source.close()
        super().close()


def chunks(stream: IO[bytes], changed: Mapping[str, bytes]) -> Iterator[bytes]:
    """Return the bytes of a bundle, verified when it was stored, with some members replaced."""
    return container.replaced(stream, changed)


def open_copy(stream: IO[bytes], changed: Mapping[str, bytes]) -> BinaryIO:
    """Return :func:`chunks` as a stream to be read once; closing it closes ``stream``."""
    return io.BufferedReader(_Chunks(chunks(stream, changed), stream), 1 << 18)
