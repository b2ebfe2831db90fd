"""Write data sets as explicit VR little-endian, with a file meta group of our own (PS3.10)."""

from __future__ import annotations

import struct

from deid.dicom.stream import LONG_VRS, Buffer, Element

IMPLEMENTATION_CLASS_UID = "2.25.302853158205829361953041274283530612736"
IMPLEMENTATION_VERSION = "GLOVEBOX_1"
LONG = frozenset(vr.decode() for vr in LONG_VRS)
_short = struct.Struct("<HH2sH").pack
_long = struct.Struct("<HH2s2xI").pack
_item = struct.Struct("<HHI").pack


def even(value: Buffer, vr: str) -> Buffer:
    """The value padded to an even length (PS3.5 section 6.2)."""
    if len(value) % 2 == 0:
        return value
    return bytes(value) + (b"\0" if vr in ("UI", "OB", "UN") else b" ")


def encode(elements: list[Element], chunks: list[Buffer]) -> int:
    """Append the encoded elements to ``chunks`` and return how many bytes they take."""
    total = 0
    for element in elements:
        tag, vr = element.tag, element.vr
        group, number = tag >> 16, tag & 0xFFFF
        if element.items is not None:
            inner: list[Buffer] = []
            length = 0
            for item in element.items:
                body: list[Buffer] = []
                size = encode(item, body)
                inner.append(_item(0xFFFE, 0xE000, size))
                inner.extend(body)
                length += 8 + size
            chunks.append(_long(group, number, b"SQ", length))
            chunks.extend(inner)
            total += 12 + length
        elif element.fragments is not None:
            chunks.append(_long(group, number, b"OB", 0xFFFFFFFF))
            total += 20
            for fragment in element.fragments:
                padded = even(fragment, "OB")
                chunks.append(_item(0xFFFE, 0xE000, len(padded)))
                chunks.append(padded)
                total += 8 + len(padded)
            chunks.append(_item(0xFFFE, 0xE0DD, 0))
        else:
            value = even(element.value, vr)
            if vr in LONG:
                chunks.append(_long(group, number, vr.encode(), len(value)))
                total += 12 + len(value)
            elif len(value) > 0xFFFE:
                # PS3.5 section 6.2.2: a value too long for its VR's length field is written as UN.
                chunks.append(_long(group, number, b"UN", len(value)))
                total += 12 + len(value)
            else:
                chunks.append(_short(group, number, vr.encode(), len(value)))
                total += 8 + len(value)
            chunks.append(value)
    return total


def file_chunks(
    sop_class: str, sop_instance: str, syntax: str, body: list[Element]
) -> list[Buffer]:
    """A whole file in pieces: an empty preamble, the meta group anew, the data set."""
    meta: list[Buffer] = []
    length = encode(
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
    chunks: list[Buffer] = [
        bytes(128) + b"DICM" + _short(2, 0, b"UL", 4) + struct.pack("<I", length)
    ]
    chunks.extend(meta)
    encode(body, chunks)
    return chunks
