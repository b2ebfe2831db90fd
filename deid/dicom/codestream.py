"""Take the text out of compressed frames without touching a coefficient.

JPEG and JPEG-LS (ITU-T T.81 B.1, T.87 C) and JPEG 2000 (T.800 A.9.2) streams have segments that
hold anything: APPn, COM. They are cut out of the headers; the entropy-coded data stay as they
were. What is not understood is not passed on: the frame is then decoded and written uncompressed.
"""

from __future__ import annotations

import struct

_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_KEPT_SEGMENTS = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xF7, 0xF8})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
J2K_COMMENT = 0xFF64
_J2K_HEADER = frozenset(
    {0xFF51, 0xFF50, 0xFF52, 0xFF53, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF60, 0xFF61, 0xFF63,
     0xFF55, 0xFF57, 0xFF58, 0xFF59}
)  # fmt: skip


def cleaned(frame: bytes) -> bytes | None:
    """The frame's codestream without free segments; None where that cannot be proven."""
    try:
        if frame[:3] == b"\xff\xd8\xff":
            return _jpeg(frame)
        if frame[:4] == b"\xff\x4f\xff\x51":
            return _jpeg2000(frame)
    except (struct.error, IndexError):
        pass
    return None


def _jpeg(frame: bytes) -> bytes | None:
    kept = [b"\xff\xd8"]
    position = 2
    while True:
        if frame[position] != 0xFF:
            return None
        marker = frame[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xD9:
            kept.append(b"\xff\xd9")
            return b"".join(kept) if _only_padding(frame, position + 2) else None
        if marker in _BARE:
            position += 2
            continue
        length = struct.unpack_from(">H", frame, position + 2)[0]
        end = position + 2 + length
        if length < 2 or end > len(frame):
            return None
        segment = frame[position:end]
        position = end
        if marker == 0xDA:
            kept.append(segment)
            end = _scan_end(frame, position)
            if end < 0:
                return None
            kept.append(frame[position:end])
            position = end
        elif marker in _KEPT_SEGMENTS or marker in _FRAMES or _harmless(marker, segment):
            kept.append(segment)


def _harmless(marker: int, segment: bytes) -> bool:
    """The two application segments that say how colours are stored, in their exact form."""
    if marker == 0xE0:
        return len(segment) == 18 and segment[4:9] == b"JFIF\0" and segment[16:18] == b"\0\0"
    return marker == 0xEE and len(segment) == 16 and segment[4:9] == b"Adobe"


def _scan_end(frame: bytes, position: int) -> int:
    """The offset of the marker that ends the entropy-coded data."""
    while True:
        position = frame.find(b"\xff", position)
        if position < 0 or position + 1 >= len(frame):
            return -1
        following = frame[position + 1]
        # JPEG stuffs a zero byte, JPEG-LS a zero bit, after 0xFF; restart markers stay inside.
        if following == 0xFF:
            position += 1
        elif following < 0x80 or 0xD0 <= following <= 0xD7:
            position += 2
        else:
            return position


def _only_padding(frame: bytes, position: int) -> bool:
    return not frame[position:].strip(b"\0\xff") and len(frame) - position <= 4


def _jpeg2000(frame: bytes) -> bytes | None:
    kept = [b"\xff\x4f"]
    position = 2
    while True:
        marker, length = struct.unpack_from(">HH", frame, position)
        if marker == 0xFF90:
            break
        if marker == J2K_COMMENT:
            pass
        elif marker in _J2K_HEADER:
            kept.append(frame[position : position + 2 + length])
        else:
            return None
        position += 2 + length
    start = position
    while True:
        marker = struct.unpack_from(">H", frame, position)[0]
        if marker == 0xFFD9:
            kept.append(frame[start : position + 2])
            return b"".join(kept) if _only_padding(frame, position + 2) else None
        if marker != 0xFF90:
            return None
        size = struct.unpack_from(">I", frame, position + 6)[0]
        if size < 14 or position + size + 2 > len(frame):
            return None
        inner = position + 12
        while True:
            marker = struct.unpack_from(">H", frame, inner)[0]
            if marker == 0xFF93:
                break
            if marker not in _J2K_HEADER:
                return None
            inner += 2 + struct.unpack_from(">H", frame, inner + 2)[0]
        position += size
