"""The short codes of the report as words for people; untranslated, the pages translate them."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _
from pydicom.datadict import keyword_for_tag
from pydicom.uid import UID

from deid import words

# The officer's own word for a file; all others come from the program that de-identifies.
REASONS = {
    **words.REASONS,
    "marked by the security officer": _("marked by the security officer"),
}


def reason(code: str) -> str:
    """Return a reason in the reader's language; a code without words is shown as it is."""
    return gettext(REASONS[code]) if code in REASONS else code.replace("-", " ")


def stratum(line: str) -> str:
    """Return what a file stands for, with the standard's name of its kind of object."""
    *parts, kind = line.split(" / ")
    name = UID(kind).name
    return " · ".join([*(part for part in parts if part != "-"), name if name != "-" else ""])


@dataclass(frozen=True)
class Change:
    """One change of a header or of a photograph's metadata."""

    tag: str
    name: str
    words: str


def changes(actions: dict[str, str]) -> list[Change]:
    """Return what was changed, by tag, with the standard's keyword where the tag has one."""
    found = []
    for tag, action in actions.items():
        number = tag.replace("(", "").replace(")", "").replace(",", "")
        keyword, shown = "", tag
        if len(number) == 8 and all(digit in "0123456789abcdefABCDEF" for digit in number):
            keyword = keyword_for_tag(int(number, 16))
            shown = f"({number[:4]},{number[4:]})".upper()
        found.append(Change(shown, keyword, gettext(words.ACTIONS.get(action, action))))
    return found


def masked(
    boxes: dict[str, list[dict[str, float]]],
) -> list[tuple[str, str, list[dict[str, float]]]]:
    """Return the masked boxes as (kind, word, boxes)."""
    return [
        (kind, gettext(words.BOXES.get(kind, kind)), found)
        for kind, found in boxes.items()
        if found
    ]
