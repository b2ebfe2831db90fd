"""Say in the file itself what was done to it (PS3.15 E.1.1 items 5 to 8, PS3.16 CID 7050)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from deid.dicom.stream import Element
from deid.dicom.writer import encoded
from deid.profile import OPTION_CODES, Profile

SOFTWARE_VERSION = "0.1"


def _code(value: str, meaning: str) -> list[Element]:
    return [
        Element(0x00080100, "SH", value.encode()),
        Element(0x00080102, "SH", b"DCM"),
        Element(0x00080104, "LO", meaning.encode()),
    ]


def marked(elements: list[Element], profile: Profile, *, pixels_cleaned: bool) -> list[Element]:
    """The data set with its markers, in the order of tags."""
    markers = _markers(profile.name, profile.options, pixels_cleaned)
    kept = [element for element in elements if element.tag not in markers]
    return sorted([*kept, *markers.values()], key=lambda element: element.tag)


@lru_cache(maxsize=16)
def _markers(name: str, options: frozenset[str], pixels_cleaned: bool) -> Mapping[int, Element]:
    """The markers of a profile by tag: the same in all its files, which nothing changes later."""
    codes = [_code("113100", "Basic Application Confidentiality Profile")]
    for option, (value, meaning) in sorted(OPTION_CODES.items(), key=lambda each: each[1]):
        if option == "clean_recognizable_visual_features" or option not in options:
            continue  # in DICOM files this first form holds head volumes back and masks no face
        if option == "clean_pixel_data" and not pixels_cleaned:
            continue
        codes.append(_code(value, meaning))
    if "retain_modified_dates" in options:
        temporal = b"MODIFIED"
    else:
        temporal = b"UNMODIFIED" if "retain_full_dates" in options else b"REMOVED"
    method = f"Glovebox {SOFTWARE_VERSION} profile {name}"[:64].encode()
    markers = [
        Element(0x00120062, "CS", b"YES"),
        Element(0x00120063, "LO", method),
        encoded(Element(0x00120064, "SQ", items=codes)),
        Element(0x00280303, "CS", temporal),
        encoded(Element(0x0018A001, "SQ", items=[_equipment()])),
    ]
    if pixels_cleaned:
        markers.append(Element(0x00280301, "CS", b"NO"))
    return {marker.tag: marker for marker in markers}


def _equipment() -> list[Element]:
    purpose = _code("109104", "De-identifying Equipment")
    return [
        Element(0x00080070, "LO", b"Glovebox"),
        Element(0x00081090, "LO", b"Glovebox"),
        Element(0x00181020, "LO", SOFTWARE_VERSION.encode()),
        Element(0x0040A170, "SQ", items=[purpose]),
    ]
