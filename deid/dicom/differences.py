"""What a cleaned file's header says and what the original's said, for whoever examines it.

The values before are the identifiers themselves: the caller keeps them as it keeps the original.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from pydicom.datadict import keyword_for_tag

from deid.dicom import stream, values
from deid.dicom.header import encodings_of
from deid.dicom.pixels import PIXEL_TAGS
from deid.dicom.stream import Buffer, Element

LONGEST = 300  # characters of one value
MOST = 4000  # differences of one file
NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
BINARY = frozenset({"OB", "OW", "OD", "OF", "OL", "OV", "UN"})


def of_files(before: Buffer, after: Buffer) -> list[dict[str, str]]:
    """Every element of two DICOM files that differs: place, keyword, value before and after.

    An empty value and none at all are told apart by ``state``: changed, removed, added. Pixel
    data are left out. Raises :class:`deid.quarantine.Quarantined` for what is no DICOM file.
    """
    old, new = (_flat(stream.parse(data).elements) for data in (before, after))
    return between(old, new)


def between(old: Mapping[str, tuple[str, str]], new: Mapping[str, tuple[str, str]]) -> list[Any]:
    """The places whose (keyword, value) differ, in the order of their places."""
    found: list[dict[str, str]] = []
    for place in sorted({*old, *new}):
        if old.get(place) == new.get(place):
            continue
        keyword = (old.get(place) or new[place])[0]
        state = "added" if place not in old else "removed" if place not in new else "changed"
        found.append(
            {
                "place": place,
                "keyword": keyword,
                "state": state,
                "before": old[place][1] if place in old else "",
                "after": new[place][1] if place in new else "",
            }
        )
        if len(found) == MOST:
            break
    return found


def _flat(elements: list[Element]) -> dict[str, tuple[str, str]]:
    return dict(_walked(elements, encodings_of(elements), ""))


def _walked(
    elements: list[Element], encodings: tuple[str, ...], prefix: str
) -> Iterator[tuple[str, tuple[str, str]]]:
    for element in elements:
        if element.tag in PIXEL_TAGS:
            continue
        place = f"{prefix}({element.tag >> 16:04X},{element.tag & 0xFFFF:04X})"
        keyword = keyword_for_tag(element.tag)
        if element.items is None:
            yield place, (keyword, _shown(element, encodings))
            continue
        for number, item in enumerate(element.items, start=1):
            inner = encodings_of(item) if any(e.tag == 0x00080005 for e in item) else encodings
            yield from _walked(item, inner, f"{place}[{number}].")
        if not element.items:
            yield place, (keyword, "")


def _shown(element: Element, encodings: tuple[str, ...]) -> str:
    """A value as people read it; the raw bytes of other kinds by how many they are."""
    value = element.value
    if element.vr in NUMBERS and len(value) % struct.calcsize(NUMBERS[element.vr]) == 0:
        count = len(value) // struct.calcsize(NUMBERS[element.vr])
        if count <= 32:
            numbers = struct.unpack(f"<{count}{NUMBERS[element.vr]}", value)
            return "\\".join(f"{number:g}" if isinstance(number, float) else str(number)
                             for number in numbers)  # fmt: skip
    if element.vr in BINARY or element.vr in NUMBERS or element.vr == "AT":
        short = bytes(value[:32]).hex(" ")
        return f"{len(value)} bytes: {short}" + (" …" if len(value) > 32 else "")
    text = values.words(value, encodings)
    plain = "".join(each if each.isprintable() else "␣" for each in text)
    return plain if len(plain) <= LONGEST else plain[:LONGEST] + " …"
