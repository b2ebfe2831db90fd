"""Write data sets as explicit VR little-endian, with a file meta group of our own (PS3.10)."""

from __future__ import annotations

import struct

from deid.dicom.stream import LONG_VRS, Buffer, Element

IMPLEMENTATION_CLASS_UID = "2.25.302853158205829361953041274283530612736"
IMPLEMENTATION_VERSION = "GLOVEBOX_1"
_LARGE = 1 << 16
LONG = frozenset(vr.decode() for vr in LONG_VRS)
_short = struct.Struct("<HH2sH").pack
_long = struct.Struct("<HH2s2xI").pack
_item = struct.Struct("<HHI").pack


def even(value: Buffer, vr: str) -> Buffer:
    """The value padded to an even length (PS3.5 section 6.2)."""
    if len(value) % 2 == 0:
        return value
    return bytes(value) + (b"\0" if vr in ("UI", "OB", "UN") else b" ")


class _Pieces:
    """Bytes in a row: small values are copied together, large ones stay where they are."""

    __slots__ = ("done", "length", "small")

    def __init__(self) -> None:
        self.done: list[Buffer] = []
        self.small = bytearray()
        self.length = 0

    def add(self, value: Buffer) -> None:
        self.length += len(value)
        if len(value) < _LARGE:
            self.small += value
        else:
            self.done += (bytes(self.small), value)
            self.small.clear()

    def all(self) -> list[Buffer]:
        return [*self.done, bytes(self.small)]


def _items(items: list[list[Element]]) -> _Pieces:
    """The items of a sequence, each with its length."""
    out = _Pieces()
    for item in items:
        body = _Pieces()
        _encode(item, body)
        out.add(_item(0xFFFE, 0xE000, body.length))
        for piece in body.all():
            out.add(piece)
    return out


def encoded(sequence: Element) -> Element:
    """A sequence whose items are bytes already, for one that is written into many files."""
    value = b"".join(_items(sequence.items or []).all())
    return Element(sequence.tag, sequence.vr, value)


def _encode(elements: list[Element], out: _Pieces) -> None:
    for element in elements:
        tag, vr = element.tag, element.vr
        group, number = tag >> 16, tag & 0xFFFF
        if element.items is not None:
            inner = _items(element.items)
            out.add(_long(group, number, b"SQ", inner.length))
            for piece in inner.all():
                out.add(piece)
        elif element.fragments is not None:
            out.add(_long(group, number, b"OB", 0xFFFFFFFF))
            for fragment in element.fragments:
                padded = even(fragment, "OB")
                out.add(_item(0xFFFE, 0xE000, len(padded)))
                out.add(padded)
            out.add(_item(0xFFFE, 0xE0DD, 0))
        else:
            value = element.value
            if len(value) & 1:
                value = even(value, vr)
            if vr in LONG:
                out.add(_long(group, number, vr.encode(), len(value)))
            elif len(value) > 0xFFFE:
                # PS3.5 section 6.2.2: a value too long for its VR's length field is written as UN.
                out.add(_long(group, number, b"UN", len(value)))
            else:
                out.small += _short(group, number, vr.encode(), len(value))
                out.small += value
                out.length += 8 + len(value)
                continue
            out.add(value)


def file_chunks(
    sop_class: str, sop_instance: str, syntax: str, body: list[Element]
) -> list[Buffer]:
    """A whole file in few pieces: an empty preamble, the meta group anew, the data set."""
    meta = _Pieces()
    _encode(
        [
            Element(0x00020001, "OB", b"\0\1"),
            Element(0x00020002, "UI", sop_class.encode()),
            Element(0x00020003, "UI", sop_instance.encode()),
            Element(0x00020010, "UI", syntax.encode()),
            Element(0x00020012, "UI", IMPLEMENTATION_CLASS_UID.encode()),
            Element(0x00020013, "SH", IMPLEMENTATION_VERSION.encode()),
        ],
        meta,
    )
    file = _Pieces()
    file.add(bytes(128) + b"DICM" + _short(2, 0, b"UL", 4) + struct.pack("<I", meta.length))
    for piece in meta.all():
        file.add(piece)
    _encode(body, file)
    return file.all()
