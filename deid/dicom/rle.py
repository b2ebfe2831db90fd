"""RLE frames (PS3.5 annex G): expanded here, in plain Python, and passed on as they are if exact.

An RLE frame is a table of up to fifteen segments, each the bytes of one place of all samples,
packed. A frame is exact when every segment expands to one byte a pixel, segments follow each
other without a gap, and all that is unused is zero: then nothing is left to hide in but samples.
"""

from __future__ import annotations

import struct

HEADER_BYTES = 64
_NOTHING = 128


def bits_of(frame: bytes, pixels: int, segments: int) -> list[int] | None:
    """The bits that are set in each segment of an exact frame; None for any other.

    ``pixels`` is the number of pixels of a frame, ``segments`` the bytes of each (samples times
    bytes a sample, the high byte of a sample first).
    """
    if len(frame) < HEADER_BYTES:
        return None
    count, *offsets = struct.unpack_from("<16I", frame)
    if count != segments or any(offsets[count:]) or offsets[:1] != [HEADER_BYTES]:
        return None
    ends = [*offsets[1:count], len(frame)]
    found = []
    for start, end in zip(offsets, ends, strict=False):
        if not start < end <= len(frame):
            return None
        plain = _expanded(frame, start, end, pixels)
        if plain is None:
            return None
        found.append(_set_bits(plain))
    return found


def _expanded(frame: bytes, position: int, end: int, pixels: int) -> bytes | None:
    parts = []
    length = 0
    while length < pixels:
        if position + 1 >= end:
            return None
        code = frame[position]
        if code < _NOTHING:
            after = position + 2 + code
            if after > end:
                return None
            parts.append(frame[position + 1 : after])
            length += code + 1
            position = after
        elif code > _NOTHING:
            parts.append(frame[position + 1 : position + 2] * (257 - code))
            length += 257 - code
            position += 2
        else:
            return None
    # A segment of odd length is followed by one zero.
    exact = length == pixels and end - position <= 1 and not any(frame[position:end])
    return b"".join(parts) if exact else None


def _set_bits(plain: bytes) -> int:
    bits = 0
    for value in set(plain):
        bits |= value
    return bits
