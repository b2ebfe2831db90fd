"""Take the text out of compressed frames without touching a coefficient.

JPEG and JPEG-LS (ITU-T T.81 B.1, T.87 C) and JPEG 2000 (T.800 A.9.2) streams have segments that
hold anything: APPn, COM. They are cut out of the headers; the entropy-coded data stay as they
were. What is not understood is not passed on: the frame is then decoded and written uncompressed.

Decoders skip what they do not need, so a place that they skip is a place to hide in: tables that
no component uses, bytes behind the last coefficient, samples of more bits than the file says it
stores. A segment is passed on only in its exact form, and a stream in which something reads as
text is decoded too: of random bytes one in some hundred megabytes does, and that costs its size.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from deid.dicom import packets
from deid.dicom.wordlike import reads_as_text

_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LOSSLESS_LS = 0xF7
_TAIL_BYTES = 32
# Comments, and the lengths and places of parts, which only spare a decoder some seeking.
_J2K_DROPPED = frozenset({0xFF64, 0xFF55, 0xFF57, 0xFF63})
# What says how to decode: size, capabilities, coding style, quantisation, region, order.
_J2K_HEADER = frozenset(
    {0xFF51, 0xFF50, 0xFF52, 0xFF53, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF59}
)  # fmt: skip
_J2K_SIZE, _J2K_CODING, _J2K_QUANTISATION = 0xFF51, 0xFF52, 0xFF5C
# Coding that differs by component or part of the picture: COC, POC, and CAP's other block coder.
_J2K_OTHER_CODING = frozenset({0xFF53, 0xFF5F, 0xFF50})
_EXPOUNDED = 2
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
_JP2_PLAIN = frozenset({b"ihdr", b"bpcc", b"colr", b"res "})


def cleaned(frame: bytes, stored: int) -> bytes | None:
    """The frame's codestream without free segments; None where that cannot be proven.

    ``stored`` is BitsStored: samples of more bits could show another picture in the bits above.
    """
    try:
        if frame[:12] == _JP2:
            frame = _unwrapped(frame)
        if frame[:3] == b"\xff\xd8\xff":
            return _jpeg(frame, stored)
        if frame[:4] == b"\xff\x4f\xff\x51":
            return _jpeg2000(frame, stored)
    except (struct.error, IndexError):
        pass
    return None


def _unwrapped(frame: bytes) -> bytes:
    """The codestream in a JP2 file (T.800 annex I), which DICOM does not allow around it.

    Its boxes hold anything and go: profiles, XML, identifiers. Empty where one says that the
    components are not shown as they are: a palette, another order of the channels.
    """
    found = b""
    for kind, body in _boxes(frame):
        if kind == b"jp2h" and any(inner not in _JP2_PLAIN for inner, _body in _boxes(body)):
            return b""
        if kind == b"jp2c":
            if found:
                return b""
            found = body
    return found


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if length == 1:
            length = struct.unpack_from(">Q", data, start)[0]
            start += 8
        end = position + length if length else len(data)
        if not start <= end <= len(data):
            return
        yield kind, data[start:end]
        position = end


def precision(frame: bytes, signed: bool) -> int:
    """The bits of the samples as the codestream says, 0 where it says none or another sign."""
    if frame[:4] == b"\xff\x4f\xff\x51":
        # Ssiz (T.800 A.5.1): the sign and the bits, less one.
        sizes = frame[42 : 4 + int.from_bytes(frame[4:6], "big") : 3]
        same = all(bool(size >> 7) == signed for size in sizes)
        return max(((size & 0x7F) + 1 for size in sizes), default=0) if same else 0
    position = 2
    while frame[:2] == b"\xff\xd8" and position + 4 < len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker in _FRAMES or marker == _LOSSLESS_LS:
            return frame[position + 4]
        if marker in _BARE or marker in (0xDA, 0xD9, 0xFF):
            break
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return 0


def _jpeg(frame: bytes, stored: int) -> bytes | None:
    kept = [b"\xff\xd8"]
    wanted: set[int] = set()  # quantisation tables that a component uses
    given: set[int] = set()
    headers = 0
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
            whole = _only_padding(frame, position + 2) and given <= wanted
            return b"".join(kept) if whole else None
        if marker in _BARE:
            position += 2
            continue
        length = struct.unpack_from(">H", frame, position + 2)[0]
        end = position + 2 + length
        if length < 2 or end > len(frame):
            return None
        segment = frame[position:end]
        position = end
        body = segment[4:]
        if marker == 0xDA:
            if len(body) != 4 + 2 * body[0]:
                return None
            kept.append(segment)
            end = _scan_end(frame, position)
            if end < 0 or _holds_text(frame[position:end]):
                return None
            kept.append(frame[position:end])
            position = end
        elif marker in _FRAMES or marker == _LOSSLESS_LS:
            if len(body) != 6 + 3 * body[5] or body[0] > max(8, stored):
                return None
            headers += 1
            if headers > 1:
                return None  # a decoder shows one picture, and another may show the other
            wanted.update(body[8::3])
            kept.append(segment)
        elif marker in _EXACT:
            if not _EXACT[marker](body):
                return None
            if marker == 0xDB:
                given.update(_quantisation(body) or ())
            kept.append(segment)
        elif marker in _APPLICATION:
            plain = _APPLICATION[marker](body)
            if plain is not None:
                kept.append(segment[:4] + plain)
        elif not (0xE1 <= marker <= 0xEF or marker == 0xFE):
            return None


def _holds_text(coded: bytes) -> bool:
    """Whether coded data read as text somewhere, or, by a stricter look, at their end."""
    return reads_as_text(coded) or reads_as_text(coded[-_TAIL_BYTES:], short=True)


def _jfif(body: bytes) -> bytes | None:
    """The segment's one meaning for a decoder is that it is there: its numbers are set."""
    exact = len(body) == 14 and body[:5] == b"JFIF\0"
    return b"JFIF\0\1\1\0\0\1\0\1\0\0" if exact else None


def _adobe(body: bytes) -> bytes | None:
    """Only the last byte says how colours are stored."""
    exact = len(body) == 12 and body[:5] == b"Adobe" and body[11] <= 2
    return b"Adobe\0\x64\0\0\0\0" + body[11:] if exact else None


_APPLICATION: Mapping[int, Callable[[bytes], bytes | None]] = {0xE0: _jfif, 0xEE: _adobe}


def _quantisation(body: bytes) -> set[int] | None:
    """The numbers of the tables of a DQT segment; None for anything else in it."""
    found: set[int] = set()
    position = 0
    while position < len(body):
        number = body[position]
        if number >> 4 > 1 or number & 15 > 3 or number & 15 in found:
            return None
        found.add(number & 15)
        position += 1 + 64 * (1 + (number >> 4))
    return found if position == len(body) else None


def _is_huffman(body: bytes) -> bool:
    """Whether a DHT segment holds whole tables, each number once, with values that codes have."""
    seen = set()
    position = 0
    while position < len(body):
        number = body[position]
        counts = body[position + 1 : position + 17]
        values = body[position + 17 : position + 17 + sum(counts)]
        if len(counts) != 16 or len(values) != sum(counts) or len(set(values)) != len(values):
            return False
        # T.81 C: of the codes of each length as many as there are, and not all.
        room = 1
        for count in counts:
            room = 2 * room - count
            if room < 0:
                return False
        if number in seen or number >> 4 > 1 or number & 15 > 3:
            return False
        # T.81 F.1.2: a size of at most 16 bits (lossless, DC), or a run and a size of at most 15.
        if not number >> 4 and max(values, default=0) > 16:
            return False
        seen.add(number)
        position += 17 + len(values)
    return position == len(body)


_EXACT: Mapping[int, Callable[[bytes], bool]] = {
    0xC4: _is_huffman,
    0xDB: lambda body: _quantisation(body) is not None,
    0xDD: lambda body: len(body) == 2,
    # JPEG-LS presets (T.87 C.2.4.1.1); its other kinds are mapping tables of any content.
    0xF8: lambda body: len(body) == 11 and body[0] == 1,
}


# JPEG stuffs a zero byte, JPEG-LS a zero bit, after 0xFF; restart markers stay inside.
_SCAN_END = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")


def _scan_end(frame: bytes, position: int) -> int:
    """The offset of the marker that ends the entropy-coded data; -1 where none does."""
    found = _SCAN_END.search(frame, position)
    return -1 if found is None else found.start()


def _only_padding(frame: bytes, position: int) -> bool:
    return not frame[position:].strip(b"\0\xff") and len(frame) - position <= 4


def _unexplained(marker: int, body: bytes) -> bytes:
    """What of a header segment could be words: of quantisation steps, only what they do not repeat.

    A step of two bytes is an exponent of five bits and a mantissa (A.6.4). Every encoder gives the
    two mixed bands of a level the same step, and neighbours exponents that hardly differ; so the
    high bytes of such a table, which often read as letters, are explained, and each low byte once.
    """
    if marker != _J2K_QUANTISATION or not body or body[0] & 31 != _EXPOUNDED:
        return body
    steps = [step for (step,) in struct.iter_unpack(">H", body[1:])]
    levels = [steps[start : start + 3] for start in range(1, len(steps), 3)]
    if len(steps) % 3 != 1 or any(level[0] != level[1] for level in levels):
        return body
    exponents = [step >> 11 for step in steps]
    if any(abs(one - other) > 2 for one, other in itertools.pairwise(exponents)):
        return body
    return bytes([steps[0] & 255, *(step & 255 for level in levels for step in level[1:])])


def _tiles(size: bytes) -> int:
    """How many tiles the picture of a SIZ segment has (T.800 B.3)."""
    right, bottom, _left, _top, width, height, x, y = struct.unpack_from(">8I", size, 6)
    if not width or not height:
        return 0
    return int(-((x - right) // width) * -((y - bottom) // height))


def _jpeg2000(frame: bytes, stored: int) -> bytes | None:
    kept = [b"\xff\x4f"]
    tiles = 0
    header: dict[int, bytes] = {}
    position = 2
    while True:
        marker, length = struct.unpack_from(">HH", frame, position)
        if marker == 0xFF90:
            break
        if marker in _J2K_DROPPED:
            pass
        elif marker in _J2K_HEADER:
            segment = frame[position : position + 2 + length]
            if marker == _J2K_SIZE and any((bits & 0x7F) + 1 > stored for bits in segment[40::3]):
                return None
            if marker == _J2K_SIZE:
                tiles = _tiles(segment)
            # Decoders skip what they do not know of capabilities and profiles.
            if reads_as_text(_unexplained(marker, segment[4:]), short=True):
                return None
            kept.append(segment)
            header[marker] = segment[4:]
        else:
            return None
        position += 2 + length
    start = position
    parts: dict[int, list[_Part]] = {}
    while True:
        marker = struct.unpack_from(">H", frame, position)[0]
        if marker == 0xFFD9:
            kept.append(frame[start : position + 2])
            whole = _only_padding(frame, position + 2) and all(
                _is_tile(number, each, header) for number, each in parts.items()
            )
            return b"".join(kept) if whole else None
        if marker != 0xFF90:
            return None
        tile, size, number, told = struct.unpack_from(">HIBB", frame, position + 4)
        end = position + size
        # A tile that the picture has not is never shown.
        if tile >= tiles or size < 14 or end + 2 > len(frame):
            return None
        inner = position + 12
        while True:
            marker = struct.unpack_from(">H", frame, inner)[0]
            if marker == 0xFF93:
                break
            if marker not in _J2K_HEADER:
                return None
            inner += 2 + struct.unpack_from(">H", frame, inner + 2)[0]
        bare = inner == position + 12
        part = _Part(number, told, frame[position:end], frame[inner + 2 : end] if bare else None)
        parts.setdefault(tile, []).append(part)
        position += size


class _Part(NamedTuple):
    """A part of a tile: its number, of how many, all of it, and its packets if that is the rest."""

    number: int
    told: int
    whole: bytes
    packets: bytes | None


def _is_tile(tile: int, parts: Sequence[_Part], header: Mapping[int, bytes]) -> bool:
    """Whether the parts of a tile are one tile without words in it.

    What a decoder does not expect of a second part it leaves out, and so would whoever looks for
    text in the picture: several parts have to be exactly the packets that the header announces.
    """
    if len(parts) == 1:
        return not _holds_text(parts[0].whole)
    bodies = [part.packets for part in parts if part.packets is not None]
    # TNsot (A.4.2) may be left open, and some encoders write the number of the last part there.
    numbers = {0, len(parts), len(parts) - 1}
    if len(bodies) < len(parts) or not _J2K_OTHER_CODING.isdisjoint(header):
        return False
    if any(part.number != place or part.told not in numbers for place, part in enumerate(parts)):
        return False
    try:
        coding = packets.coding_of(header[_J2K_CODING])
    except (KeyError, packets.Inexact):
        return False
    data = b"".join(bodies)
    return packets.are_all(data, tile, header[_J2K_SIZE], coding) and not _holds_text(data)
