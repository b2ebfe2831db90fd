"""Clean Graphics (PS3.15 E.3.3): annotations of presentation states, their words and their lines.

The words of text objects go through the list of known words like any other text; lines stay as
the numbers they are. Overlays and curves are bitmaps and samples that nothing here can read, so
they are removed with the option as without it, and what points to them goes too.
"""

from __future__ import annotations

import struct

from deid.dicom.stream import Element, text_of

STORAGE = "1.2.840.10008.5.1.4.1.1.11."
# Grayscale, colour, pseudo-colour, blending, XA/XRF and variable modality LUT. The volumetric
# states render views of a volume and hold annotations of other forms: they stay held.
SOFTCOPY_STATES = frozenset(STORAGE + end for end in ("1", "2", "3", "4", "5", "12"))

GRAPHIC_ANNOTATIONS = 0x00700001
_TEXT_OBJECTS, _GRAPHIC_OBJECTS, _COMPOUND_GRAPHICS = 0x00700008, 0x00700009, 0x00700209
_TEXT, _TEXT_STYLE = 0x00700006, 0x00700231
_BOX = (0x00700010, 0x00700011)
_ANCHOR = 0x00700014
_DIMENSIONS, _POINTS, _DATA, _TYPE = 0x00700020, 0x00700021, 0x00700022, 0x00700023
_CONTENT_LABEL = 0x00700080
_SHUTTER_SHAPE, _SHUTTER_GROUP = 0x00181600, 0x00181623
# How many points each kind has; 0 is any number from two on (PS3.3 C.10.5.1.2).
_KINDS = {"POINT": 1, "CIRCLE": 2, "ELLIPSE": 4, "POLYLINE": 0, "INTERPOLATED": 0}
_DRAWN = frozenset({"POLYLINE", "INTERPOLATED"})


def settled(elements: list[Element]) -> list[Element]:
    """A cleaned presentation state without the parts that cleaning left void."""
    kept = []
    for element in elements:
        if element.tag == GRAPHIC_ANNOTATIONS:
            items = [item for item in map(_annotation, element.items or ()) if item]
            if not items:
                continue
            element = Element(element.tag, "SQ", items=items)
        elif element.tag == _SHUTTER_SHAPE:
            shapes = [part for part in text_of(element.value).split("\\") if part]
            # The overlay that a bitmap shutter names is gone.
            left = [shape for shape in shapes if shape != "BITMAP"]
            if not left:
                continue
            element = Element(element.tag, "CS", "\\".join(left).encode())
        elif element.tag == _SHUTTER_GROUP:
            continue
        elif element.tag == _CONTENT_LABEL and not text_of(element.value):
            element = Element(element.tag, "CS", b"UNKNOWN")
        kept.append(element)
    return kept


def is_drawn(elements: list[Element]) -> bool:
    """Whether lines stay that somebody may have drawn by hand: letters can be drawn too."""
    for element in elements:
        if element.tag != GRAPHIC_ANNOTATIONS:
            continue
        for annotation in element.items or ():
            for part in annotation:
                if part.tag == _GRAPHIC_OBJECTS and any(
                    _text(item, _TYPE) in _DRAWN for item in part.items or ()
                ):
                    return True
    return False


def _annotation(item: list[Element]) -> list[Element]:
    """One annotation, empty where neither a text nor a line is left of it."""
    kept = []
    holds = False
    for element in item:
        if element.tag == _TEXT_OBJECTS:
            objects = [each for each in map(_text_object, element.items or ()) if each]
        elif element.tag == _GRAPHIC_OBJECTS:
            objects = [each for each in element.items or () if _is_graphic(each)]
        elif element.tag == _COMPOUND_GRAPHICS:
            continue  # it repeats what the plain objects say (C.10.5.1.3)
        else:
            kept.append(element)
            continue
        if objects:
            holds = True
            kept.append(Element(element.tag, "SQ", items=objects))
    return kept if holds else []


def _text_object(item: list[Element]) -> list[Element]:
    """A text object with words and a place; its style may name a font that nobody else has."""
    present = {element.tag for element in item if len(element.value)}
    placed = _ANCHOR in present or all(corner in present for corner in _BOX)
    if _TEXT not in present or not placed:
        return []
    return [element for element in item if element.tag != _TEXT_STYLE]


def _is_graphic(item: list[Element]) -> bool:
    """Whether a graphic object holds as many numbers as its kind has, and no more."""
    points, dimensions = _number(item, _POINTS), _number(item, _DIMENSIONS)
    data = next((element.value for element in item if element.tag == _DATA), b"")
    wanted = _KINDS.get(_text(item, _TYPE))
    if wanted is None or dimensions != 2 or len(data) != 8 * points:
        return False
    return points == wanted if wanted else points >= 2


def _text(item: list[Element], tag: int) -> str:
    return next((text_of(element.value) for element in item if element.tag == tag), "")


def _number(item: list[Element], tag: int) -> int:
    for element in item:
        if element.tag == tag and len(element.value) == 2:
            return int(struct.unpack("<H", bytes(element.value))[0])
    return -1
