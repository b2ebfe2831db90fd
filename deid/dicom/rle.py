"""RLE frames (PS3.5 annex G): read here, in plain Python, and passed on as they are if exact.

An RLE frame is a table of up to fifteen segments, each the bytes of one place of all samples,
packed. A frame is exact when every segment expands to one byte a pixel, segments follow each
other without a gap, and all that is unused is zero: then nothing is left to hide in but samples.
"""

from __future__ import annotations

import functools
import operator
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
        bits = _bits(frame, start, end, pixels)
        if bits is None:
            return None
        found.append(bits)
    return found


def _bits(frame: bytes, position: int, end: int, pixels: int) -> int | None:
    """The bits that are set in a segment; None where it is not exactly so many pixels."""
    single = set()
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
            single.add(frame[position + 1])
            length += 257 - code
            position += 2
        else:
            return None
    # A segment of odd length is followed by one zero.
    if length != pixels or end - position > 1 or any(frame[position:end]):
        return None
    single.update(b"".join(parts))
    return functools.reduce(operator.or_, single, 0)
