"""What a video's file says beside its frames: the words that no cleaned file may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deid.photo_room import EBML

_RUN = re.compile(rb"[\x20-\x7e\x80-\xf4]{6,200}")
_WORD = re.compile(r"[^\W_]{3}")
# Boxes with boxes in them; tables of sizes and the coder's settings hold no words.
_WITHIN = frozenset({b"moov", b"trak", b"mdia", b"minf", b"edts", b"udta", b"ilst", b"stbl"})
_NO_WORDS = frozenset(
    {
        b"mdat", b"ftyp", b"stts", b"stsz", b"stsc", b"stco", b"co64", b"ctts", b"stss", b"sdtp",
        b"avcC", b"hvcC", b"mvhd", b"tkhd", b"mdhd", b"elst", b"moof", b"sidx", b"mfra",
    }
)  # fmt: skip
_CLUSTER = b"\x1f\x43\xb6\x75"
_MOST = 64 << 20
_DEEPEST = 16


def of_video(data: bytes) -> Iterator[tuple[str, str]]:
    """Words of the containers that are read here, outside frames and sound, each with its kind."""
    if data.startswith(b"RIFF"):
        parts = _of_riff(data, 12, len(data))
    elif data.startswith(EBML):
        clusters = data.find(_CLUSTER)
        parts = iter([data[: clusters if clusters >= 0 else _MOST][:_MOST]])
    else:
        parts = _of_boxes(memoryview(data), 0)
    for part in parts:
        for run in _RUN.findall(part):
            text = run.decode("utf-8", "ignore").strip()
            if _WORD.search(text):
                yield text, "video metadata"


def _of_boxes(view: memoryview, depth: int) -> Iterator[bytes]:
    place = 0
    while place + 8 <= len(view) and depth < _DEEPEST:
        length, kind = int.from_bytes(view[place : place + 4]), bytes(view[place + 4 : place + 8])
        head = 8
        if length == 1:
            length, head = int.from_bytes(view[place + 8 : place + 16]), 16
        length = length or len(view) - place
        body = view[place + head : place + length]
        if length < head:
            break
        if kind in _WITHIN:
            yield from _of_boxes(body, depth + 1)
        elif kind not in _NO_WORDS:
            yield bytes(body[:_MOST])
        place += length
    yield bytes(view[place : place + _MOST])


def _of_riff(data: bytes, place: int, end: int) -> Iterator[bytes]:
    while place + 8 <= end:
        kind, length = (
            data[place : place + 4],
            int.from_bytes(data[place + 4 : place + 8], "little"),
        )
        body = place + 8
        if kind == b"LIST" and data[body : body + 4] != b"movi":
            yield from _of_riff(data, body + 4, min(end, body + length))
        elif kind not in (b"LIST", b"idx1", b"strh", b"strf", b"avih"):
            yield data[body : min(end, body + length)]
        place = body + length + length % 2
