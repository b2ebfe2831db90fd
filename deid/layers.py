"""Every layer of a file: its bytes, and whatever stands compressed or escaped in them.

Layers come in blocks that overlap, so that memory stays bounded whatever a stream unfolds to. What
is more than :data:`MOST` bytes of one file is not unfolded; the caller is told, and says so.
"""

from __future__ import annotations

import base64
import binascii
import html
import io
import json
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import Image

DEEPEST = 4
MOST = 1 << 30
BLOCK = 8 << 20
OVERLAP = 4096
MEMBERS = 10_000
PIXELS = 64 << 20
_FIRST = 1 << 16
_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
_GZIP = re.compile(rb"\x1f\x8b\x08")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}")
_URL_BASE64 = bytes.maketrans(b"-_", b"+/")
_HEX = re.compile(rb"[0-9a-fA-F]{2}(?:[ :-]?[0-9a-fA-F]{2}){5,}[0-9a-fA-F]?")
_BETWEEN = bytes.maketrans(b"", b"")
_ESCAPE = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_ENTITY = re.compile(rb"&#?\w{1,8};")
_PERCENT = re.compile(rb"%[0-9a-fA-F]{2}")
_RUN = re.compile(rb"[\t\r\n\x20-\x7e]{12,}")
_PNG = b"\x89PNG\r\n\x1a\n"
_DEFLATED = b"1.2.840.10008.1.2.1.99"


@dataclass
class Budget:
    """How many bytes of one file may still be unfolded; ``spent`` when it was not enough."""

    left: int = MOST
    spent: bool = False

    def take(self, size: int) -> bool:
        """Whether so many bytes are still allowed."""
        self.left -= size
        self.spent = self.spent or self.left < 0
        return self.left >= 0


def layers(
    data: bytes | memoryview, budget: Budget | None = None, depth: int = 0
) -> Iterator[tuple[str, bytes]]:
    """Blocks of bytes with the kind of the place that they stand in, the file itself first.

    Zips, gzip and zlib streams anywhere (PNG's IDAT and zTXt are such), deflated DICOM, a PNG's
    pixels, escapes of JSON, HTML and addresses, base64 at every alignment, hexadecimal digits.
    """
    budget = budget or Budget()
    if depth == 0:
        for block in _blocks(data):
            yield "file", block
    for place, content in _inner(data, budget):
        yield place, content
        if depth + 1 < DEEPEST:
            yield from layers(content, budget, depth + 1)


def _blocks(data: bytes | memoryview) -> Iterator[bytes]:
    for start in range(0, max(1, len(data)), BLOCK):
        yield bytes(data[start : start + BLOCK + OVERLAP])


def _inner(data: bytes | memoryview, budget: Budget) -> Iterator[tuple[str, bytes]]:
    head = bytes(data[:512])
    if head.startswith(b"PK\x03\x04"):
        yield from _zip(data, budget)
    if head.startswith(_PNG):
        yield from _png(data, budget)
    else:
        for found in _ZLIB.finditer(data):
            yield from _named("zlib", _inflated(data, found.start(), 15, budget))
    for found in _GZIP.finditer(data):
        yield from _named("gzip", _inflated(data, found.start(), 31, budget))
    if head[128:132] == b"DICM" and _DEFLATED + b"\0" in head and len(head) > 144:
        start = 144 + int(struct.unpack_from("<I", head, 140)[0])
        yield from _named("deflated data set", _inflated(data, start, -15, budget))
    for found in _BASE64.finditer(data):
        run = found[0].translate(_URL_BASE64)
        if len(set(run[:256])) < 5 or not budget.take(len(run)):
            continue
        for start in range(4):
            part = run[start : start + (len(run) - start) // 4 * 4]
            try:
                yield "base64", base64.b64decode(part)
            except (binascii.Error, ValueError):
                continue
    for found in _HEX.finditer(data):
        digits = found[0].translate(_BETWEEN, b" :-")
        if len(set(digits[:256])) < 4 or not budget.take(len(digits)):
            continue
        for start in range(2):
            part = digits[start : start + (len(digits) - start) // 2 * 2]
            yield "hexadecimal", bytes.fromhex(part.decode("ascii"))
    if len(data) <= BLOCK + OVERLAP:
        yield from _unescaped(bytes(data), budget)


def _named(place: str, blocks: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    for block in blocks:
        yield place, block


def _inflated(data: bytes | memoryview, start: int, window: int, budget: Budget) -> Iterator[bytes]:
    """What a stream unfolds to, in blocks; nothing for bytes that only look like one."""
    stream = zlib.decompressobj(window)
    view = memoryview(data)
    kept, position, size = b"", start, _FIRST
    while position < len(view) and not stream.eof:
        piece: bytes | memoryview = view[position : position + size]
        position += len(piece)
        while True:
            try:
                plain = stream.decompress(piece, BLOCK)
            except zlib.error:
                if len(kept) >= 5:
                    yield kept
                return
            if not budget.take(len(plain)):
                return
            kept += plain
            if len(kept) >= BLOCK:
                yield kept
                kept = kept[-OVERLAP:]
            piece = stream.unconsumed_tail
            if not piece or stream.eof:
                break
        size = BLOCK
    if len(kept) >= 5:
        yield kept


def _zip(data: bytes | memoryview, budget: Budget) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            yield "zip comment", archive.comment
            if len(entries) > MEMBERS:
                budget.spent = True
            for entry in entries[:MEMBERS]:
                yield "zip member", entry.filename.encode("utf-8", "replace") + entry.comment
                with archive.open(entry) as member:
                    kept = b""
                    while piece := member.read(BLOCK):
                        if not budget.take(len(piece)):
                            return
                        yield "zip member", kept + piece
                        kept = piece[-OVERLAP:]
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, zlib.error, ValueError):
        return


def _png(data: bytes | memoryview, budget: Budget) -> Iterator[tuple[str, bytes]]:
    """The picture's rows, whose stream runs over all IDAT chunks, and the other chunks' streams."""
    rows, position = io.BytesIO(), 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = bytes(data[position + 4 : position + 8])
        body = data[position + 8 : position + 8 + length]
        position += 12 + length
        if kind == b"IDAT":
            rows.write(body)
            continue
        place = f"PNG {kind.decode('ascii')}" if kind.isalpha() else "PNG chunk"
        for found in _ZLIB.finditer(body):
            yield from _named(place, _inflated(body, found.start(), 15, budget))
    yield from _named("PNG IDAT", _inflated(rows.getbuffer(), 0, 15, budget))
    # Rows are filtered before they are compressed: only decoded are the pixels what they were.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > PIXELS:
                    budget.spent = True
                    return
                pixels = np.asarray(image).tobytes()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, MemoryError):
        return
    if budget.take(len(pixels)):
        yield from _named("PNG pixels", _blocks(pixels))


def _unescaped(data: bytes, budget: Budget) -> Iterator[tuple[str, bytes]]:
    """Texts with their escapes taken back; only runs that read as text, or pixels would be too."""
    for found in _RUN.finditer(data):
        run = found[0]
        if not budget.take(len(run)):
            return
        if b"\\u" in run:
            text = _ESCAPE.sub(lambda each: str(json.loads(f'"{each[0]}"')), run.decode("latin-1"))
            yield "JSON escapes", text.encode("utf-8", "replace")
        if _PERCENT.search(run):
            yield "address escapes", unquote_to_bytes(run)
        if _ENTITY.search(run):
            text = html.unescape(run.decode("utf-8", "replace"))
            yield "HTML escapes", text.encode("utf-8", "replace")
