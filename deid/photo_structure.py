"""Whether a written picture holds anything but its pixels: read from its bytes alone."""

from __future__ import annotations

import io
from collections.abc import Iterator

from PIL import Image

# Quantisation, Huffman tables, baseline and progressive frames, restart interval, scan, JFIF.
JPEG_SEGMENTS = frozenset({0xDB, 0xC4, 0xC0, 0xC2, 0xDD, 0xDA, 0xE0, 0xD9})
# Header, the animation's count and each frame's place and time, pixels, end.
PNG_CHUNKS = frozenset({b"IHDR", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND"})
# Size, bits, compression, interpretation, strips, samples, planes, resolution, sample format.
TIFF_TAGS = frozenset(
    {256, 257, 258, 259, 262, 273, 277, 278, 279, 282, 283, 284, 296, 317, 339}
)  # fmt: skip
_FOREIGN = -1


def holds_only_pixels(data: bytes) -> bool:
    """Whether a JPEG, PNG or TIFF has no part that could carry anything but its pictures."""
    if data.startswith(b"\xff\xd8"):
        return set(_jpeg_segments(data)) <= JPEG_SEGMENTS
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return set(_png_chunks(data)) <= PNG_CHUNKS
    return set(tiff_tags(data)) <= TIFF_TAGS


def tiff_tags(data: bytes) -> Iterator[int]:
    """The tags of every page of a TIFF."""
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
        for page in range(getattr(image, "n_frames", 1)):
            image.seek(page)
            yield from (int(tag) for tag in image.tag_v2)  # type: ignore[attr-defined]


def _jpeg_segments(data: bytes) -> Iterator[int]:
    """The marker of each segment; -1 for bytes that belong to none, as after the end."""
    place = 2
    while place + 4 <= len(data) or data[place : place + 2] == b"\xff\xd9":
        if data[place] != 0xFF:
            yield _FOREIGN
            return
        marker = data[place + 1]
        yield marker
        if marker == 0xD9:
            if place + 2 != len(data):
                yield _FOREIGN
            return
        length = int.from_bytes(data[place + 2 : place + 4])
        if marker == 0xE0 and (data[place + 4 : place + 9] != b"JFIF\0" or length != 16):
            yield _FOREIGN
        place += 2 + length
        if marker == 0xDA:
            # Entropy-coded data: a marker is an FF that no 00 and no restart number follows.
            while True:
                place = data.find(b"\xff", place)
                if place < 0 or place + 1 >= len(data):
                    yield _FOREIGN
                    return
                if data[place + 1] != 0 and not 0xD0 <= data[place + 1] <= 0xD7:
                    break
                place += 2
    yield _FOREIGN


def _png_chunks(data: bytes) -> Iterator[bytes]:
    place = 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4])
        yield data[place + 4 : place + 8]
        place += 12 + length
        if data[place - 8 - length : place - 4 - length] == b"IEND":
            if place != len(data):
                yield b""
            return
    yield b""
