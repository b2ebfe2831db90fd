"""DICOM files too large to hold, written frame by frame."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from synthetic import dicom_files
from synthetic.lettering import open_font

SIDE = 1024
ENHANCED = "1.2.840.10008.5.1.4.1.1.7.3"
RLE = "1.2.840.10008.1.2.5"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT = "1.2.840.10008.1.2.1"


def pictures(frames: int, *, dtype: str = "<u2", note: str = "") -> Iterator[np.ndarray]:
    """Frames of a smooth picture that moves, each with the note in a corner."""
    import cv2
    from PIL import Image, ImageDraw

    noise = np.random.default_rng(11).normal(0, 1, (SIDE, SIDE))
    smooth = cv2.GaussianBlur(noise, (0, 0), 24)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    top = 255 if dtype == "u1" else 4095
    grey = (smooth * top * 0.4).astype(dtype)
    drawn = Image.new("L", (SIDE, SIDE))
    if note:
        ImageDraw.Draw(drawn).text((40, 40), note, font=open_font(note, 24), fill=255)
    letters = np.asarray(drawn) > 127
    for number in range(frames):
        frame = np.roll(grey, 3 * number, axis=1)
        frame[letters] = top
        yield frame


def header(frames: int, syntax: str, *, dtype: str) -> bytes:
    """Everything in front of the pixel data."""
    data = dicom_files.base(ENHANCED if dtype != "u1" else "1.2.840.10008.5.1.4.1.1.7.2", "OT")
    bits = np.dtype(dtype).itemsize * 8
    data.Rows = data.Columns = SIDE
    data.NumberOfFrames = frames
    data.BitsAllocated, data.BitsStored = bits, min(bits, 12)
    data.HighBit = data.BitsStored - 1
    del data.PixelData
    return dicom_files.written(data, syntax)


def native(path: Path, frames: int, *, note: str = "", dtype: str = "<u2") -> None:
    """An uncompressed file of ``frames`` of 2 MiB (1 MiB with 8 bits)."""
    size = frames * SIDE * SIDE * np.dtype(dtype).itemsize
    vr = b"OB" if dtype == "u1" else b"OW"
    with path.open("wb") as target:
        target.write(header(frames, EXPLICIT, dtype=dtype))
        target.write(struct.pack("<HH2s2xI", 0x7FE0, 0x10, vr, size))
        for frame in pictures(frames, dtype=dtype, note=note):
            target.write(frame.tobytes())


def _encapsulated(path: Path, head: bytes, frames: Iterable[bytes]) -> None:
    with path.open("wb") as target:
        target.write(head)
        target.write(struct.pack("<HH2s2xI", 0x7FE0, 0x10, b"OB", 0xFFFFFFFF))
        target.write(struct.pack("<HHI", 0xFFFE, 0xE000, 0))
        for frame in frames:
            padded = frame + b"\0" * (len(frame) % 2)
            target.write(struct.pack("<HHI", 0xFFFE, 0xE000, len(padded)) + padded)
        target.write(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))


def jpeg(path: Path, frames: int, *, note: str = "") -> None:
    """A file of JPEG frames, which are a gigabyte unpacked from a thousand."""
    from PIL import Image

    def coded() -> Iterator[bytes]:
        for frame in pictures(frames, dtype="u1", note=note):
            target = io.BytesIO()
            Image.fromarray(frame).save(target, "JPEG", quality=90)
            yield target.getvalue()

    _encapsulated(path, header(frames, JPEG_BASELINE, dtype="u1"), coded())


def rle(path: Path, frames: int, *, note: str = "") -> None:
    """A file of RLE frames (a few different ones, again and again: the encoder is slow)."""
    from pydicom.pixels.encoders.native import _encode_segment

    def coded() -> Iterator[bytes]:
        few = []
        for frame in pictures(4, note=note):
            words = frame.tobytes()
            parts = [bytes(_encode_segment(words[byte::2], SIDE)) for byte in (1, 0)]
            offsets = [64, 64 + len(parts[0])]
            few.append(struct.pack("<16I", 2, *offsets, *[0] * 13) + b"".join(parts))
        for number in range(frames):
            yield few[number % 4]

    _encapsulated(path, header(frames, RLE, dtype="<u2"), coded())


def _meta_length(file: bytes) -> int:
    """Bytes of the preamble and the meta group: its length stands in its first element."""
    return 132 + 12 + int(struct.unpack_from("<I", file, 140)[0])


def deflated(path: Path, frames: int, *, note: str = "") -> None:
    """A deflated file of frames of 2 MiB."""
    meta, body = header(frames, DEFLATED, dtype="<u2"), header(frames, EXPLICIT, dtype="<u2")
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = frames * SIDE * SIDE * 2
    with path.open("wb") as target:
        target.write(meta[: _meta_length(meta)])
        target.write(packer.compress(body[_meta_length(body) :]))
        target.write(packer.compress(struct.pack("<HH2s2xI", 0x7FE0, 0x10, b"OW", size)))
        for frame in pictures(frames, note=note):
            target.write(packer.compress(frame.tobytes()))
        target.write(packer.flush())
