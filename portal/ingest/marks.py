"""What an officer marks on a picture: boxes that are missing, and boxes that must go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from policies.errors import Invalid, _
from portal.ingest.models import ReviewItem

MAXIMUM_BOXES = 200
SIDES = ("x", "y", "width", "height")
Box = dict[str, Any]


def is_film(item: ReviewItem) -> bool:
    """Whether the picture is a sheet of a film's frames."""
    return bool(item.row.facts.get("kind") == "video")


def checked_boxes(boxes: Sequence[Mapping[str, Any]], item: ReviewItem) -> list[dict[str, int]]:
    """Return drawn boxes as whole pixels inside the image. Raises Invalid naming the box."""
    if len(boxes) > MAXIMUM_BOXES:
        raise Invalid(
            _("Too many boxes: at most {most} on one picture. Draw fewer and larger ones."),
            field="boxes",
            code="qa.boxes",
            most=MAXIMUM_BOXES,
        )
    return [_inside(box, item, f"boxes.{place}") for place, box in enumerate(boxes)]


def _inside(box: Mapping[str, Any], item: ReviewItem, field: str) -> dict[str, int]:
    try:
        values = {name: box[name] for name in SIDES}
    except (KeyError, TypeError):
        raise Invalid(
            _("A box has x, y, width and height in pixels."), field=field, code="qa.box"
        ) from None
    for name, value in values.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise Invalid(_("This must be a number."), field=f"{field}.{name}", code="qa.box")
    left, top = math.floor(values["x"]), math.floor(values["y"])
    right = math.ceil(values["x"] + values["width"])
    bottom = math.ceil(values["y"] + values["height"])
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, item.width), min(bottom, item.height)
    if right <= left or bottom <= top:
        raise Invalid(_("This box lies outside the image."), field=field, code="qa.box")
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def checked_wrong(wrong: Sequence[Any], item: ReviewItem) -> list[Box]:
    """Return the masked boxes that the officer calls wrong, each as it stands in the report.

    Each is named by kind and place, and must be one that was masked: nothing else is uncovered.
    """
    if wrong and is_film(item):
        raise Invalid(
            _(
                "A box of a film moves with what it hides and cannot be taken away. Say: masked "
                "too much, which you may accept."
            ),
            field="wrong",
            code="qa.wrong-film",
        )
    known = {mark_of(box): box for box in masked_boxes(item.row.boxes)}
    found: dict[tuple[Any, ...], Box] = {}
    for place, box in enumerate(wrong):
        key = mark_of(box) if isinstance(box, Mapping) else None
        if key is None or key not in known:
            raise Invalid(
                _("This is none of the boxes that were masked in this file."),
                field=f"wrong.{place}",
                code="qa.wrong",
            )
        found[key] = known[key]
    return list(found.values())


def masked_boxes(boxes: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[Box]:
    """Return a row's masked boxes as one list, each with its kind and without its score."""
    return [
        {"kind": kind, **{side: int(box[side]) for side in SIDES}}
        for kind, found in sorted(boxes.items())
        for box in found
    ]


def mark_of(box: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return what tells one box from another; None for what is no box."""
    try:
        sides = [int(box[side]) for side in SIDES]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (str(box.get("kind", "")), *sides)
