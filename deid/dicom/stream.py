"""A strict reader of DICOM data sets that leaves values as the bytes they are.

PS3.5 section 7 (data set structure), A.4 (encapsulated pixel data), PS3.10 section 7 (file meta).
Nothing is guessed: what does not fit the structure is quarantined, because bytes that a reader
skips are a place to hide in. Values are slices of the file, so a large one costs nothing until it
is written. Big-endian values are turned, so everything after this module is little-endian.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias

from pydicom.datadict import dictionary_VR

from deid import spill
from deid.quarantine import Quarantined
from deid.spill import STEP, Spill, pieces, replaced

Buffer: TypeAlias = spill.Buffer

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
NATIVE = frozenset({IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN})

LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_SHORT, _LONG = ({vr: vr.decode() for vr in vrs} for vrs in (SHORT_VRS, LONG_VRS))
WORD = {"US": 2, "SS": 2, "OW": 2, "AT": 2, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4}
WORD |= {"FD": 8, "OD": 8, "SV": 8, "UV": 8, "OV": 8}

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
PADDING, SIGNATURES = 0xFFFCFFFC, 0xFFFAFFFA
UNDEFINED = 0xFFFFFFFF
DEEPEST = 32
INFLATED_BYTES = 3 << 30


@dataclass(slots=True)
class Element:
    """One element: the VR is the dictionary's wherever the dictionary knows the tag.

    ``items`` holds the data sets of a sequence, ``fragments`` those of encapsulated pixel data
    (the first is the offset table); otherwise ``value`` is the value in little-endian order.
    """

    tag: int
    vr: str
    value: Buffer = b""
    items: list[list[Element]] | None = None
    fragments: list[Buffer] | None = None


@dataclass(slots=True)
class DicomFile:
    """A parsed file: the meta group's values by tag, and the top level's elements in order."""

    meta: dict[int, bytes]
    syntax: str
    elements: list[Element] = field(default_factory=list)


@cache
def known_vr(tag: int) -> str:
    """The dictionary's VR of a tag, ``UN`` where it knows none (PS3.6)."""
    if (tag >> 16) & 1:
        return "UN"
    if tag & 0xFFFF == 0:
        return "UL"
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def text_of(value: Buffer) -> str:
    """A value as ASCII without padding; anything else than ASCII becomes question marks."""
    return bytes(value).decode("ascii", "replace").strip(" \0")


def parse(data: Buffer) -> DicomFile:
    """Parse a whole file. Raises :class:`Quarantined` for anything that is not exact."""
    if not data:
        raise Quarantined("empty")
    view = memoryview(data)
    meta: dict[int, bytes] = {}
    start = 0
    if data[128:132] == b"DICM":
        start = 132
    elif data[:4] == b"DICM":
        start = 4
    elif not _looks_headerless(data):
        raise Quarantined("not-dicom")
    if data[start : start + 2] == b"\x02\x00":
        meta, start = _meta(view, start)
    elif data[start : start + 2] == b"\x00\x02":
        raise Quarantined("bad-structure")
    syntax = text_of(meta.get(0x00020010, b"")) or _guess(data, start)
    if syntax == DEFLATED:
        view, start = memoryview(_inflate(data[start:])), 0
    if len(view) == start:
        raise Quarantined("truncated")
    explicit, big = syntax != IMPLICIT, syntax == BIG_ENDIAN
    if explicit and not big and not view[start + 4 : start + 6].tobytes().isalpha():
        # Some writers declare explicit VR and write implicit: told apart by the first element.
        explicit, syntax = False, IMPLICIT if syntax in NATIVE else syntax
    elif not explicit and view[start + 4 : start + 6].tobytes() in SHORT_VRS:
        explicit, syntax = True, EXPLICIT
    elements, _ = _Parser(view, big).data_set(start, len(view), explicit, 0, delimited=False)
    return DicomFile(meta, syntax, elements)


def _looks_headerless(data: Buffer) -> bool:
    if len(data) < 8:
        return False
    little, big = struct.unpack_from("<H", data)[0], struct.unpack_from(">H", data)[0]
    if little not in (2, 8) and big not in (2, 8):
        return False
    if data[4:6] in SHORT_VRS | LONG_VRS:
        return True
    return bool(little == 8 and struct.unpack_from("<I", data, 4)[0] <= 256)


def _guess(data: Buffer, start: int) -> str:
    if data[start : start + 1] == b"\0":
        return BIG_ENDIAN
    return EXPLICIT if data[start + 4 : start + 6] in SHORT_VRS | LONG_VRS else IMPLICIT


def _meta(view: memoryview, start: int) -> tuple[dict[int, bytes], int]:
    """The group 0002 elements, always explicit little-endian, whatever the group length says."""
    meta: dict[int, bytes] = {}
    position = start
    while position + 8 <= len(view) and bytes(view[position : position + 2]) == b"\x02\x00":
        element_number = struct.unpack_from("<H", view, position + 2)[0]
        vr = view[position + 4 : position + 6].tobytes()
        if vr in LONG_VRS:
            if position + 12 > len(view):
                raise Quarantined("truncated")
            length, position = struct.unpack_from("<I", view, position + 8)[0], position + 12
        elif vr in SHORT_VRS:
            length, position = struct.unpack_from("<H", view, position + 6)[0], position + 8
        else:
            length, position = struct.unpack_from("<I", view, position + 4)[0], position + 8
        if length > len(view) - position:
            raise Quarantined("truncated")
        meta[0x00020000 | element_number] = view[position : position + length].tobytes()
        position += length
    return meta, position


def _sorted(elements: list[Element], ordered: bool) -> list[Element]:
    """The elements by tag: some devices write them out of order, which hides nothing."""
    return elements if ordered else sorted(elements, key=lambda element: element.tag)


def _inflate(data: Buffer) -> Buffer:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain, read = Spill(), 0
    for piece in pieces(data):
        rest: Buffer = piece
        read += len(piece)
        while not inflater.eof and (len(rest) or not plain.size):
            try:
                inflated = inflater.decompress(rest, STEP)
            except zlib.error:
                raise Quarantined("bad-structure") from None
            plain.write(inflated)
            if plain.size > INFLATED_BYTES:
                raise Quarantined("too-large")
            rest = inflater.unconsumed_tail
            if not inflated and not rest:
                break
        if inflater.eof:
            break
    while not inflater.eof and (inflated := inflater.decompress(b"", STEP)):
        plain.write(inflated)
    if not inflater.eof:
        raise Quarantined("truncated")
    # Some writers close the stream like gzip does, with a checksum and a length.
    trailing = data[read - len(inflater.unused_data) :]
    if len(trailing) > STEP or len(bytes(trailing).rstrip(b"\0")) > 8:
        raise Quarantined("trailing-bytes")
    return plain.value()


class _Parser:
    def __init__(self, view: memoryview, big: bool) -> None:
        self.view = view
        self.big = big
        order = ">" if big else "<"
        self.tag = struct.Struct(order + "HH").unpack_from
        self.head = struct.Struct(order + "HH2sH").unpack_from
        self.long = struct.Struct(order + "I").unpack_from

    def data_set(
        self, position: int, end: int, explicit: bool, depth: int, *, delimited: bool
    ) -> tuple[list[Element], int]:
        """The elements from ``position`` to ``end``, or to an item delimiter."""
        if depth > DEEPEST:
            raise Quarantined("bad-structure")
        view, last, ordered = self.view, -1, True
        elements: list[Element] = []
        seen: set[int] = set()
        while position < end:
            if end - position < 8:
                raise Quarantined("trailing-bytes" if depth == 0 else "bad-structure")
            group, number, written, length = self.head(view, position)
            tag = (group << 16) | number
            if tag == ITEM_END:
                if not delimited or self.long(view, position + 4)[0]:
                    raise Quarantined("bad-structure")
                return _sorted(elements, ordered), position + 8
            if tag <= last:
                if depth == 0 and last >= PIXEL_DATA:
                    raise Quarantined("trailing-bytes")
                if ordered:
                    ordered, seen = False, {element.tag for element in elements}
                if tag in seen:
                    raise Quarantined("doubled-tag")
            else:
                # Vendors write private groups behind the picture (7FE1); they go like all others.
                private = group & 1 or tag in (PADDING, SIGNATURES)
                if depth == 0 and last >= PIXEL_DATA and not private:
                    raise Quarantined("trailing-bytes")
                last = tag
            if not ordered:
                seen.add(tag)
            vr = known_vr(tag)
            if explicit:
                if (said := _SHORT.get(written)) is not None:
                    position += 8
                elif (said := _LONG.get(written)) is not None:
                    if end - position < 12:
                        raise Quarantined("truncated")
                    length, position = self.long(view, position + 8)[0], position + 12
                else:
                    raise Quarantined("bad-vr")
                implicit_inside = said == "UN"
                if said != vr:
                    if vr == "UN" or (" or " in vr and not implicit_inside):
                        vr = said
                    elif not implicit_inside:
                        vr = _agreed(vr, said)
            else:
                length, position = self.long(view, position + 4)[0], position + 8
                implicit_inside = False
            element = Element(tag, vr)
            elements.append(element)
            if length == UNDEFINED:
                if tag == PIXEL_DATA and vr != "SQ":
                    element.fragments, position = self.fragments(position, end)
                elif vr in ("SQ", "UN"):
                    element.vr = "SQ"
                    element.items, position = self.items(
                        position, end, explicit and not implicit_inside, depth, delimited=True
                    )
                else:
                    raise Quarantined("bad-structure")
                continue
            if length > end - position:
                raise Quarantined("truncated")
            if vr == "SQ":
                element.items, _ = self.items(
                    position,
                    position + length,
                    explicit and not implicit_inside,
                    depth,
                    delimited=False,
                )
            else:
                element.value = view[position : position + length]
                if self.big and length:
                    element.value = turned(element.value, vr)
            position += length
        if delimited:
            raise Quarantined("truncated")
        return _sorted(elements, ordered), position

    def items(
        self, position: int, end: int, explicit: bool, depth: int, *, delimited: bool
    ) -> tuple[list[list[Element]], int]:
        """The items of a sequence."""
        found: list[list[Element]] = []
        while position < end:
            if end - position < 8:
                raise Quarantined("truncated")
            group, number = self.tag(self.view, position)
            length = self.long(self.view, position + 4)[0]
            position += 8
            tag = (group << 16) | number
            if tag == SEQUENCE_END and delimited:
                return found, position
            if tag != ITEM:
                raise Quarantined("bad-structure")
            if length != UNDEFINED and length > end - position:
                raise Quarantined("truncated")
            stop = end if length == UNDEFINED else position + length
            elements, position = self.data_set(
                position, stop, explicit, depth + 1, delimited=length == UNDEFINED
            )
            found.append(elements)
        if delimited:
            raise Quarantined("truncated")
        return found, position

    def fragments(self, position: int, end: int) -> tuple[list[Buffer], int]:
        """The offset table and the fragments of encapsulated pixel data (PS3.5 A.4)."""
        found: list[Buffer] = []
        while end - position >= 8:
            group, number = self.tag(self.view, position)
            length = self.long(self.view, position + 4)[0]
            position += 8
            if (group << 16) | number == SEQUENCE_END:
                if not found:
                    raise Quarantined("bad-structure")
                return found, position
            if (group << 16) | number != ITEM or length == UNDEFINED:
                raise Quarantined("bad-structure")
            if length > end - position:
                raise Quarantined("truncated")
            found.append(self.view[position : position + length])
            position += length
        raise Quarantined("truncated")


_SAME_BYTES = (
    frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "CS"}),
    frozenset({"OB", "OW", "UN"}),
    frozenset({"US", "SS", "OW"}),
    frozenset({"UL", "SL"}),
    frozenset({"IS", "DS"}),
)


def _agreed(dictionary: str, written: str) -> str:
    """The VR to go by where the file and the dictionary differ; ``UN`` when neither can be."""
    if " or " in dictionary:
        return dictionary
    if any(dictionary in same and written in same for same in _SAME_BYTES):
        return dictionary
    return "UN"


def turned(value: Buffer, vr: str) -> Buffer:
    """A big-endian value as little-endian."""
    size = WORD.get(vr, 1)
    if size == 1 or len(value) % size:
        return bytes(value)
    return _turned(value, size) if len(value) <= STEP else replaced(
        value, lambda piece: _turned(piece, size)
    )  # fmt: skip


def _turned(value: Buffer, size: int) -> bytes:
    result = bytearray(len(value))
    for offset in range(size):
        result[offset::size] = value[size - 1 - offset :: size]
    return bytes(result)
