"""The short codes of the report as words for people; untranslated, the pages translate them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _
from pydicom.datadict import keyword_for_tag
from pydicom.uid import UID

from deid import words
from portal.ingest.marks import mark_of

# The portal's own words for a file; all others come from the program that de-identifies.
REASONS = {
    **words.REASONS,
    "marked by the security officer": _("marked by the security officer"),
    "original-destroyed": _("the originals were destroyed after their time"),
}
BOXES = {**words.BOXES, "officer": _("drawn by an officer")}
DESTROYED = {
    "originals": _("originals"),
    "quarantine": _("files that were held back"),
    "pictures": _("pictures of an examination"),
}
# Why a file is in the sample; empty for chance.
WHY = {
    **words.REVIEWS,
    "every image": _("every image is examined"),
    "secondary capture": _("a secondary capture"),
    "ultrasound": _("ultrasound"),
    "low score": _("a detector was unsure"),
    "a box was taken away": _("a box was taken away"),
}


def reason(code: str) -> str:
    """Return a reason in the reader's language; a code without words is shown as it is."""
    return gettext(REASONS[code]) if code in REASONS else code.replace("-", " ")


def why(code: str) -> str:
    """Return why a file was drawn, in the reader's language; empty for chance."""
    return gettext(WHY[code]) if code in WHY else code


def stratum(line: str) -> str:
    """Return what a file stands for, with the standard's name of its kind of object."""
    *parts, kind = line.split(" / ")
    named = [*parts, UID(kind).name if kind != "-" else "-"]
    return " · ".join(part for part in named if part != "-")


def destroyed(what: str) -> str:
    """Return what a record of destruction speaks of, in the reader's language."""
    return gettext(DESTROYED[what]) if what in DESTROYED else what


@dataclass(frozen=True)
class Change:
    """One change: of a header's element, or of a part of a photograph, which has no tag."""

    tag: str
    name: str
    words: str


def changes(actions: dict[str, str]) -> list[Change]:
    """Return what was changed, in the reader's language, with each tag's keyword."""
    found = []
    for tag, action in actions.items():
        number = tag.replace("(", "").replace(")", "").replace(",", "")
        part = words.PARTS.get(tag, "")
        keyword, shown = (gettext(part), "") if part else ("", tag)
        if len(number) == 8 and all(digit in "0123456789abcdefABCDEF" for digit in number):
            keyword = keyword_for_tag(int(number, 16))
            shown = f"({number[:4]},{number[4:]})".upper()
        text, numbers = words.action(action)
        said = gettext(text).format(**numbers) if text else action
        found.append(Change(shown, keyword, said))
    return found


@dataclass(frozen=True)
class Masked:
    """One masked box: its kind, its sides, how sure the detector was, and whether it is wrong."""

    kind: str
    word: str
    box: dict[str, float]
    value: str  # what the form sends for it
    wrong: bool


def masked(
    boxes: dict[str, list[dict[str, float]]], wrong: Collection[tuple[Any, ...] | None] = ()
) -> list[Masked]:
    """Return the masked boxes; ``wrong`` holds the marks of those that hide nothing."""
    shown = []
    for kind, found in sorted(boxes.items()):
        for box in found:
            mark = mark_of({"kind": kind, **box})
            value = " ".join(str(part) for part in mark or ())
            shown.append(Masked(kind, gettext(BOXES.get(kind, kind)), box, value, mark in wrong))
    return shown
