"""The one part of a ``multipart/related`` answer (RFC 2046 section 5.1.1, RFC 2387), as a stream.

What comes from a PACS is a stranger's: every length is bounded, a boundary is only what the
standard allows, and an answer counts only when its closing delimiter was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from email.message import Message

from deid.sources.originals import Refused

HEADER_BYTES = 16 << 10
PREAMBLE_BYTES = 64 << 10
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]", re.ASCII)


def boundary_of(content_type: str) -> bytes:
    """The boundary of a ``multipart/related`` Content-Type; raises :class:`Refused`."""
    header = Message()
    header["Content-Type"] = content_type.replace("\r", "").replace("\n", "")
    if header.get_content_type() != "multipart/related":
        raise Refused("not-multipart")
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not _BOUNDARY.fullmatch(boundary):
        raise Refused("bad-boundary")
    return boundary.encode()


class _Stream:
    """Bytes that are read up to a mark; ``pieces`` may be cut anywhere."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        # The first delimiter may stand at the very beginning, without its line break.
        self._buffer = bytearray(b"\r\n")

    def more(self) -> None:
        for piece in self._pieces:
            if piece:
                self._buffer += piece
                return
        raise Refused("truncated", again=True)

    def until(self, mark: bytes) -> Iterator[bytes]:
        """Give what stands before ``mark`` and step over it."""
        while True:
            place = self._buffer.find(mark)
            if place >= 0:
                yield bytes(self._buffer[:place])
                del self._buffer[: place + len(mark)]
                return
            sure = len(self._buffer) - len(mark) + 1
            if sure > 0:
                yield bytes(self._buffer[:sure])
                del self._buffer[:sure]
            self.more()

    def bounded(self, mark: bytes, limit: int, reason: str) -> bytes:
        found = bytearray()
        for piece in self.until(mark):
            found += piece
            if len(found) > limit:
                raise Refused(reason)
        return bytes(found)

    def closes(self) -> bool:
        """After a delimiter: True for the closing one, False where another part begins."""
        while len(self._buffer) < 2:
            self.more()
        if self._buffer[:2] == b"--":
            return True
        if self.bounded(b"\r\n", HEADER_BYTES, "bad-boundary").strip(b" \t"):
            raise Refused("bad-boundary")
        # The line break that ended the delimiter also begins the empty line of no headers.
        self._buffer[:0] = b"\r\n"
        return False


def only_part(pieces: Iterable[bytes], boundary: bytes, wanted: str) -> Iterator[bytes]:
    """Give the body of the answer's single part, whose type must be ``wanted``.

    Raises :class:`Refused` for another number of parts, another type, a delimiter that is not
    one, a part that is not as long as it says, and an answer that ends early. The caller must
    not believe what it got before the iteration has ended.
    """
    stream = _Stream(pieces)
    delimiter = b"\r\n--" + boundary
    stream.bounded(delimiter, PREAMBLE_BYTES, "bad-boundary")
    if stream.closes():
        raise Refused("no-part")
    length = _length(stream.bounded(b"\r\n\r\n", HEADER_BYTES, "bad-part"), wanted)
    size = 0
    for piece in stream.until(delimiter):
        size += len(piece)
        yield piece
    if not stream.closes():
        raise Refused("several-parts")
    if length is not None and length != size:
        raise Refused("truncated", again=True)


def _length(headers: bytes, wanted: str) -> int | None:
    """Check the part's headers; return the length that they state."""
    found: dict[str, str] = {}
    for line in headers.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if not line:
            continue
        if not colon or name.strip().lower() in found:
            raise Refused("bad-part")
        found[name.strip().lower()] = value.strip()
    if found.get("content-type", "").partition(";")[0].strip().lower() != wanted:
        raise Refused("wrong-type")
    if found.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        raise Refused("bad-part")
    length = found.get("content-length")
    if length is None:
        return None
    if not re.fullmatch(r"[0-9]{1,15}", length):
        raise Refused("bad-part")
    return int(length)
