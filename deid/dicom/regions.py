"""Where a device writes beside the picture: boxes to mask whatever the detector finds.

Two sources: the regions that an ultrasound device itself declares (PS3.3 C.8.5.5), outside of
which there is no image, and a table of layouts by vendor and model (``regions.toml``, and what a
profile adds).
"""

from __future__ import annotations

import struct
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from typing import Any

from deid.dicom.stream import Element, text_of
from policies.errors import Invalid, _

MODALITY, MANUFACTURER, MODEL = 0x00080060, 0x00080070, 0x00081090
ROWS, COLUMNS = 0x00280010, 0x00280011
ULTRASOUND_REGIONS = 0x00186011
_CORNERS = (0x00186018, 0x0018601A, 0x0018601C, 0x0018601E)  # min x, min y, max x, max y
LEAST_SHARE = 0.05
"""Regions that cover less of the picture than this are taken for a mistake of the device."""

_KEYS = frozenset({"modality", "manufacturer", "model", "rows", "columns", "banner", "boxes"})
Mark = tuple[int, int, int, int]


@dataclass(frozen=True)
class Layout:
    """One device's layout; empty and 0 mean any."""

    modality: str
    manufacturer: tuple[str, ...]
    model: tuple[str, ...]
    rows: int
    columns: int
    boxes: tuple[Mark, ...]
    banner: int

    def fits(self, facts: Mapping[int, str], rows: int, columns: int) -> bool:
        """Whether a file is of this device and size."""
        return (
            self.modality in ("", facts[MODALITY])
            and (not self.manufacturer or facts[MANUFACTURER].startswith(self.manufacturer))
            and (not self.model or any(word in facts[MODEL] for word in self.model))
            and self.rows in (0, rows)
            and self.columns in (0, columns)
        )


@lru_cache(maxsize=1)
def shipped() -> tuple[Layout, ...]:
    """The layouts that come with the package."""
    text = resources.files("deid.dicom").joinpath("regions.toml").read_text("utf-8")
    return layouts(tomllib.loads(text)["device"])


def layouts(entries: object) -> tuple[Layout, ...]:
    """Checked layouts; raises :class:`Invalid` naming what is wrong."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Invalid(_("Devices are a list of tables."), field="regions.device")
    return tuple(_layout(entry) for entry in entries)


def _layout(entry: Mapping[str, Any]) -> Layout:
    for key in entry:
        if key not in _KEYS:
            raise Invalid(_("A device's layout does not know this setting."),
                          field=f"regions.device.{key}")  # fmt: skip
    words: dict[str, tuple[str, ...]] = {}
    for key in ("manufacturer", "model"):
        given = entry.get(key, [])
        if not isinstance(given, list) or not all(_letters(str(word)) for word in given):
            raise Invalid(_("This must be a list of names."), field=f"regions.device.{key}")
        words[key] = tuple(_letters(str(word)) for word in given)
    numbers: dict[str, int] = {}
    for key in ("rows", "columns", "banner"):
        numbers[key] = entry.get(key, 0)
        if not _is_count(numbers[key]):
            raise Invalid(_("This must be a number of pixels."), field=f"regions.device.{key}")
    boxes = entry.get("boxes", [])
    if not isinstance(boxes, list) or not all(_is_box(box) for box in boxes):
        raise Invalid(_("A box is x, y, width, height in pixels."), field="regions.device.boxes")
    if not boxes and not numbers["banner"]:
        raise Invalid(_("A device's layout names a banner or boxes."), field="regions.device")
    if not any(words.values()):
        raise Invalid(_("A device's layout names a manufacturer or a model."),
                      field="regions.device")  # fmt: skip
    return Layout(
        str(entry.get("modality", "")), words["manufacturer"], words["model"],
        numbers["rows"], numbers["columns"], tuple((b[0], b[1], b[2], b[3]) for b in boxes),
        numbers["banner"],
    )  # fmt: skip


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 16


def _is_box(box: object) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(_is_count(side) for side in box)


def _letters(text: str) -> str:
    """``G.E. Medical Systems`` as GEMEDICALSYSTEMS: devices spell their own names freely."""
    return "".join(letter for letter in text.upper() if letter.isalnum())


def marks(
    elements: Sequence[Element], devices: Sequence[Layout], *, outside_ultrasound: bool
) -> list[Mark]:
    """The boxes ``(x, y, width, height)`` that a file's own header asks for."""
    by_tag = {
        element.tag: element
        for element in elements
        if element.tag in (MODALITY, MANUFACTURER, MODEL, ROWS, COLUMNS, ULTRASOUND_REGIONS)
    }
    rows, columns = (_number(by_tag.get(tag)) for tag in (ROWS, COLUMNS))
    if not rows or not columns:
        return []
    facts = {
        tag: _letters(text_of(by_tag[tag].value)) if tag in by_tag else ""
        for tag in (MODALITY, MANUFACTURER, MODEL)
    }
    found: list[Mark] = []
    for device in devices:
        if device.fits(facts, rows, columns):
            if device.banner:
                found.append((0, 0, columns, min(device.banner, rows)))
            found += [box for box in device.boxes if box[0] < columns and box[1] < rows]
    if outside_ultrasound and ULTRASOUND_REGIONS in by_tag:
        found += outside(_regions(by_tag[ULTRASOUND_REGIONS], rows, columns), rows, columns)
    return found


def _number(element: Element | None) -> int:
    if element is None or len(element.value) not in (2, 4):
        return 0
    return int.from_bytes(bytes(element.value), "little")


def _regions(sequence: Element, rows: int, columns: int) -> list[Mark]:
    """The declared regions within the picture, as left, top, right, bottom (behind the last)."""
    found = []
    for item in sequence.items or []:
        corners = {each.tag: each for each in item if each.tag in _CORNERS}
        if len(corners) != 4 or any(len(each.value) != 4 for each in corners.values()):
            continue
        # Some devices count from -1, as signed numbers.
        left, top, right, bottom = (
            struct.unpack("<i", bytes(corners[tag].value))[0] for tag in _CORNERS
        )
        region = (max(left, 0), max(top, 0), min(right + 1, columns), min(bottom + 1, rows))
        if region[0] < region[2] and region[1] < region[3]:
            found.append(region)
    return found


def outside(regions: Sequence[Mark], rows: int, columns: int) -> list[Mark]:
    """Boxes that cover everything but the regions; none where those say next to nothing."""
    edges = sorted({0, rows, *(edge for region in regions for edge in (region[1], region[3]))})
    free: list[Mark] = []
    for top, bottom in pairwise(edges):
        left = 0
        inside = sorted(
            (region[0], region[2]) for region in regions if region[1] <= top < region[3]
        )
        for start, end in [*inside, (columns, columns)]:
            if start > left:
                free.append((left, top, start - left, bottom - top))
            left = max(left, end)
    covered = rows * columns - sum(width * height for _x, _y, width, height in free)
    return free if covered >= LEAST_SHARE * rows * columns else []
