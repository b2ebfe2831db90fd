"""The one container that cleaned videos are written in: MP4 with a JPEG a frame, and nothing else.

Boxes by ISO/IEC 14496-12 and -14. What is not needed to show the frames at their times is not
there: no creation times, names, tracks of sound, text or places, edit lists, user data. A file
is believed clean only if its boxes, built anew from the sizes and times read out of it, give the
same bytes, and each frame is a JPEG of pixels alone.
"""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from deid.photo_structure import holds_only_pixels

TIMESCALE = 90_000
"""Units a second, in which the usual rates of frames are whole numbers."""

LONGEST_TICKS = 60 * TIMESCALE
"""Longest time of one frame."""

MAXIMUM_FRAMES = 1_000_000
_MATRIX = struct.pack(">9l", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_JPEG_OBJECT, _VISUAL_STREAM = 0x6C, 0x11
_HEAD = 8


class VideoWriter:
    """Writes frames one after another through ``write``, and the table of them at the end."""

    def __init__(self, width: int, height: int, write: Callable[[bytes], object]) -> None:
        self._size, self._write = (width, height), write
        self._sizes: list[int] = []
        self._ticks: list[int] = []
        self._write(_FILE_TYPE)

    def frame(self, jpeg: bytes, ticks: int) -> None:
        """Write a frame that is shown for so many units of time."""
        self._sizes.append(len(jpeg))
        self._ticks.append(ticks)
        self._write(_box(b"mdat", jpeg))

    def close(self) -> None:
        """Write what makes a film of the frames."""
        self._write(_movie(self._size, self._sizes, self._ticks))


def is_clean_video(data: bytes | memoryview) -> bool:
    """Whether a file is exactly what :class:`VideoWriter` writes: JPEGs of pixels and times."""
    try:
        sizes: list[int] = []
        boxes = _boxes(data)
        kind, body = next(boxes)
        if kind != b"ftyp" or _box(kind, bytes(body)) != _FILE_TYPE:
            return False
        for kind, body in boxes:
            if kind == b"moov":
                movie = bytes(body)
                size, ticks = _size_and_ticks(movie)
                last = next(boxes, None) is None
                return last and bool(sizes) and _box(kind, movie) == _movie(size, sizes, ticks)
            jpeg = bytes(body)
            if kind != b"mdat" or not jpeg.startswith(b"\xff\xd8") or not holds_only_pixels(jpeg):
                return False
            sizes.append(len(body))
    except (struct.error, ValueError, StopIteration):
        return False
    return False


def is_clean_file(path: Path, frames: int) -> bool:
    """Whether a file is a clean video of so many frames."""
    with path.open("rb") as handle:
        if not handle.seek(0, io.SEEK_END):
            return False
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            clean = is_clean_video(view)
            counted = sum(kind == b"mdat" for kind, _body in _boxes(view)) if clean else 0
            view.release()
            return clean and counted == frames


def _boxes(data: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    view, place = memoryview(data), 0
    while place < len(view):
        length, kind = struct.unpack_from(">L4s", view, place)
        if length < _HEAD or place + length > len(view):
            raise ValueError("a box is longer than its file")
        yield kind, view[place + _HEAD : place + length]
        place += length


def _size_and_ticks(movie: bytes) -> tuple[tuple[int, int], list[int]]:
    """The frames' size and times, from the places where :func:`_movie` puts them."""
    entry = movie.index(b"mp4v")
    width, height = struct.unpack_from(">HH", movie, entry + 4 + 24)
    place = movie.index(b"stts") + 4
    (runs,) = struct.unpack_from(">4xL", movie, place)
    ticks: list[int] = []
    for run in range(min(runs, MAXIMUM_FRAMES)):
        count, each = struct.unpack_from(">LL", movie, place + 8 + 8 * run)
        if len(ticks) + count > MAXIMUM_FRAMES or not 0 < each <= LONGEST_TICKS:
            raise ValueError("more time than a video may take")
        ticks += [each] * count
    return (width, height), ticks


def _movie(size: tuple[int, int], sizes: Sequence[int], ticks: Sequence[int]) -> bytes:
    duration = sum(ticks)
    header = struct.pack(">QQLQ", 0, 0, TIMESCALE, duration)
    movie = _full(
        b"mvhd", 1, 0, header, struct.pack(">LH10x", 0x10000, 0), _MATRIX, bytes(24),
        struct.pack(">L", 2),
    )  # fmt: skip
    width, height = size
    track = _full(
        b"tkhd", 1, 3, struct.pack(">QQLLQ", 0, 0, 1, 0, duration), bytes(16), _MATRIX,
        struct.pack(">LL", width << 16, height << 16),
    )  # fmt: skip
    # The language is "und".
    media = _full(b"mdhd", 1, 0, header, struct.pack(">HH", 0x55C4, 0))
    handler = _full(b"hdlr", 0, 0, bytes(4), b"vide", bytes(13))
    within = _full(b"dref", 0, 0, struct.pack(">L", 1), _full(b"url ", 0, 1))
    information = _box(
        b"minf",
        _full(b"vmhd", 0, 1, bytes(8)),
        _box(b"dinf", within),
        _box(b"stbl", *_tables(size, sizes, ticks)),
    )
    return _box(b"moov", movie, _box(b"trak", track, _box(b"mdia", media, handler, information)))


def _tables(size: tuple[int, int], sizes: Sequence[int], ticks: Sequence[int]) -> Iterator[bytes]:
    width, height = size
    entry = struct.pack(">6xH16xHHLL4xH32xHh", 1, width, height, 0x480000, 0x480000, 1, 24, -1)
    decoder = struct.pack(">BBBHLL", _JPEG_OBJECT, _VISUAL_STREAM, 0, 0, 0, 0)
    stream = struct.pack(">HB", 1, 0) + _descriptor(4, decoder) + _descriptor(6, b"\2")
    coding = _box(b"mp4v", entry, _full(b"esds", 0, 0, _descriptor(3, stream)))
    yield _full(b"stsd", 0, 0, struct.pack(">L", 1), coding)
    runs = [(len(list(run)), each) for each, run in groupby(ticks)]
    yield _table(b"stts", [struct.pack(">LL", *run) for run in runs])
    yield _table(b"stsc", [struct.pack(">LLL", 1, 1, 1)])
    yield _full(
        b"stsz",
        0,
        0,
        struct.pack(">LL", 0, len(sizes)),
        *(struct.pack(">L", each) for each in sizes),
    )
    place, places = len(_FILE_TYPE), []
    for each in sizes:
        places.append(struct.pack(">Q", place + _HEAD))
        place += _HEAD + each
    yield _table(b"co64", places)


def _descriptor(tag: int, body: bytes) -> bytes:
    return bytes((tag, len(body))) + body


def _table(kind: bytes, rows: Sequence[bytes]) -> bytes:
    return _full(kind, 0, 0, struct.pack(">L", len(rows)), *rows)


def _full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">L", version << 24 | flags), *parts)


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">L4s", _HEAD + len(body), kind) + body


_FILE_TYPE = _box(b"ftyp", b"isom", struct.pack(">L", 0x200), b"isommp41")
