"""The short codes of the report as words for people; untranslated, the pages translate them."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _
from pydicom.datadict import keyword_for_tag
from pydicom.uid import UID

# Why a file was held back, or cannot be shown.
REASONS = {
    "bad-pixels": _("its pixel data do not fit its header"),
    "bad-structure": _("its structure is broken"),
    "bad-table": _("the table cannot be read as its description says"),
    "bad-vr": _("a value has a type that the standard does not know"),
    "bad-zip": _("the zip file cannot be read"),
    "burned-in": _("it says that identifying text is in its pixels, and none could be masked"),
    "cannot-decode": _("its pixels cannot be decoded"),
    "code-value": _("a coded value may hold free text"),
    "decoder-crash": _("the decoder ended while reading it"),
    "decoder-timeout": _("the decoder took too long"),
    "dicomdir": _("a directory of other files is not published"),
    "doubled-member": _("the zip holds the name twice"),
    "doubled-tag": _("an element stands in it twice"),
    "empty": _("it is empty"),
    "encapsulated-document": _("documents inside DICOM are not published"),
    "heic": _("HEIC cannot be read here; export it as JPEG, PNG, TIFF or AVIF"),
    "head-volume": _("a face could be rebuilt from this volume"),
    "missing": _("the original or the published file is gone"),
    "modality": _("this modality is not handled"),
    "nested-zip": _("a zip inside the zip"),
    "no-sop-class": _("it does not say what it is"),
    "not-clean": _("after cleaning something of the metadata was still there"),
    "not-dicom": _("it is no DICOM file, photograph, video or declared table"),
    "path-outside": _("its name leads out of the zip"),
    "presentation-state": _("presentation states may hold free text"),
    "private-sop-class": _("a private kind of object"),
    "raw-data": _("raw data cannot be checked"),
    "sample-type": _("its kind of pixels is not handled"),
    "second-table": _("the set holds such a table already"),
    "several-pictures": _("it holds several pictures"),
    "too-many-pictures": _("it holds too many pictures"),
    "structured-report": _("structured reports hold free text"),
    "too-large": _("it is too large"),
    "trailing-bytes": _("something stands behind its end"),
    "truncated": _("it is cut off"),
    "truncated-pixels": _("its pixel data are cut off"),
    "undeclared-file": _("the set's description does not name it"),
    "unknown-sop-class": _("an unknown kind of object"),
    "unreadable": _("it cannot be read"),
    "unsupported-format": _("this picture format is not handled"),
    "video": _("video is not handled"),
    "video-format": _("this video's format or coding cannot be read"),
    "video-too-large": _("this video is too long or too large"),
    "video-unsteady": _("this video gave other pictures when it was read again"),
    "worker-crash": _("the worker ended while reading it"),
    "marked by the security officer": _("marked by the security officer"),
}
# What PS3.15 table E.1-1 calls the actions.
ACTIONS = {
    "D": _("replaced by a dummy"),
    "Z": _("emptied"),
    "X": _("removed"),
    "K": _("kept"),
    "P": _("replaced by a pseudonym"),
    "C": _("cleaned"),
    "U": _("replaced by another UID, unless it is the standard's own"),
}
BOXES = {"text": _("text"), "face": _("faces"), "plate": _("number plates")}


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
        found.append(Change(shown, keyword, gettext(ACTIONS.get(action, action))))
    return found


def masked(
    boxes: dict[str, list[dict[str, float]]],
) -> list[tuple[str, str, list[dict[str, float]]]]:
    """Return the masked boxes as (kind, word, boxes)."""
    return [(kind, gettext(BOXES.get(kind, kind)), found) for kind, found in boxes.items() if found]
