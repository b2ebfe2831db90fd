"""Every layer of some bytes: as they are, and whatever stands compressed or escaped in them.

Not ``deid.layers``, on purpose: `deid verify` looks with that one, and a test of what leaves the
portal must not share its blind spots. Each is tested by itself.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator

import pydicom
from PIL import Image
from pydicom.errors import InvalidDicomError

DEEPEST = 4
LARGEST = 256 << 20
_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
_GZIP = re.compile(rb"\x1f\x8b\x08")
_ESCAPE = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{24,}={0,2}")
_HEX = re.compile(rb"[0-9a-fA-F]{10,}")
_TEXT = 4 << 20


def layers(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """Give the bytes and, as often as it goes, what can be unpacked from them.

    Zips, gzip and zlib streams anywhere (PNG's IDAT and zTXt are such), deflated DICOM, JSON's
    escapes, base64, hexadecimal digits.
    """
    yield data
    if depth == DEEPEST:
        return
    for inner in _inner(data):
        yield from layers(inner, depth + 1)


def _inner(data: bytes) -> Iterator[bytes]:
    if data.startswith(b"PK\x03\x04"):
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                yield member.filename.encode() + member.comment + member.extra
                yield archive.read(member)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        yield from _png(data)
    else:
        yield from _inflated(data)
    for match in _GZIP.finditer(data):
        yield from _inflate(data[match.start() :], 31)
    if data[128:132] == b"DICM":
        yield from _dicom(data)
    if len(data) < _TEXT:
        yield from _unescaped(data)
        for match in _BASE64.finditer(data):
            try:
                yield base64.b64decode(match[0], validate=True)
            except (binascii.Error, ValueError):
                continue
        for match in _HEX.finditer(data):
            for start in range(2):
                digits = match[0][start:]
                yield bytes.fromhex(digits[: len(digits) // 2 * 2].decode())


def _png(data: bytes) -> Iterator[bytes]:
    """The picture's rows, whose stream runs over all IDAT chunks, and the other chunks' streams."""
    rows, position = b"", 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4])
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length
        if kind == b"IDAT":
            rows += body
        else:
            yield from _inflated(body)
    yield from _inflate(rows, 15)
    yield data[position:]
    # Rows are filtered before they are compressed: only decoded are the pixels what they were.
    with (
        contextlib.suppress(OSError, ValueError, SyntaxError),
        Image.open(io.BytesIO(data)) as image,
    ):
        yield image.tobytes()


def _inflated(data: bytes) -> Iterator[bytes]:
    for match in _ZLIB.finditer(data):
        yield from _inflate(data[match.start() :], 15)


def _inflate(data: bytes, window: int) -> Iterator[bytes]:
    stream = zlib.decompressobj(window)
    try:
        plain = stream.decompress(data, LARGEST)
    except zlib.error:
        return
    if len(plain) >= 5:
        yield plain


def _dicom(data: bytes) -> Iterator[bytes]:
    try:
        file = pydicom.dcmread(io.BytesIO(data), force=True)
    except (InvalidDicomError, ValueError):
        return
    if getattr(file.file_meta, "TransferSyntaxUID", "") == "1.2.840.10008.1.2.1.99":
        length = file.file_meta.FileMetaInformationGroupLength
        yield from _inflate(data[144 + length :], -15)


def _unescaped(data: bytes) -> Iterator[bytes]:
    if b"\\u" in data:
        text = data.decode("latin-1")
        escapes = "\n".join(json.loads(f'"{match[0]}"') for match in _ESCAPE.finditer(text))
        whole = _ESCAPE.sub(lambda match: json.loads(f'"{match[0]}"'), text)
        for plain in (escapes, whole):
            yield plain.encode("utf-8", "surrogatepass")
