"""Say in the file itself what was done to it (PS3.15 E.1.1 items 5 to 8, PS3.16 CID 7050)."""

from __future__ import annotations

from deid.dicom.stream import Element
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
    codes = [_code("113100", "Basic Application Confidentiality Profile")]
    for option, (value, meaning) in sorted(OPTION_CODES.items(), key=lambda each: each[1]):
        if option == "clean_recognizable_visual_features" or not profile.has(option):
            continue  # in DICOM files this first form holds head volumes back and masks no face
        if option == "clean_pixel_data" and not pixels_cleaned:
            continue
        codes.append(_code(value, meaning))
    if profile.has("retain_modified_dates"):
        temporal = b"MODIFIED"
    else:
        temporal = b"UNMODIFIED" if profile.has("retain_full_dates") else b"REMOVED"
    markers = {
        0x00120062: Element(0x00120062, "CS", b"YES"),
        0x00120063: Element(
            0x00120063, "LO", f"Glovebox {SOFTWARE_VERSION} profile {profile.name}"[:64].encode()
        ),
        0x00120064: Element(0x00120064, "SQ", items=codes),
        0x00280303: Element(0x00280303, "CS", temporal),
        0x0018A001: Element(0x0018A001, "SQ", items=[_equipment()]),
    }
    if pixels_cleaned:
        markers[0x00280301] = Element(0x00280301, "CS", b"NO")
    kept = [element for element in elements if element.tag not in markers]
    return sorted([*kept, *markers.values()], key=lambda element: element.tag)


def _equipment() -> list[Element]:
    purpose = _code("109104", "De-identifying Equipment")
    return [
        Element(0x00080070, "LO", b"Glovebox"),
        Element(0x00081090, "LO", b"Glovebox"),
        Element(0x00181020, "LO", SOFTWARE_VERSION.encode()),
        Element(0x0040A170, "SQ", items=[purpose]),
    ]
