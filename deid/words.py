"""The short codes of a report as words for people; untranslated, pages translate them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from policies.errors import _

# Why a file was held back, or cannot be shown.
REASONS: Mapping[str, str] = {
    "annotation": _("annotations of this kind may hold free text"),
    "archive": _("an archive of another kind than zip"),
    "bad-pixels": _("its pixel data do not fit its header"),
    "bad-structure": _("its structure is broken"),
    "bad-table": _("the table cannot be read as its description says"),
    "bad-vr": _("a value has a type that the standard does not know"),
    "bad-zip": _("the zip file cannot be read"),
    "burned-in": _("it says that identifying text is in its pixels, and none could be masked"),
    "cannot-decode": _("its pixels cannot be decoded"),
    "changed": _("it was changed while it was read"),
    "code-value": _("a coded value may hold free text"),
    "decoder-crash": _("the decoder ended while reading it"),
    "decoder-timeout": _("the decoder took too long"),
    "device": _("it is no ordinary file"),
    "dicomdir": _("a directory of other files is not published"),
    "document": _("documents are not published"),
    "doubled-member": _("the zip holds the name twice"),
    "doubled-tag": _("an element stands in it twice"),
    "duplicate": _("the same file was given before"),
    "empty": _("it is empty"),
    "encapsulated-document": _("documents inside DICOM are not published"),
    "encrypted": _("it is encrypted"),
    "head-volume": _("a face could be rebuilt from this volume"),
    "link": _("a link is not followed"),
    "missing": _("the original or the published file is gone"),
    "modality": _("this modality is not handled"),
    "nested-zip": _("a zip inside the zip"),
    "no-pixels": _("it has no pixel data"),
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
    "structured-report": _("a report that holds free text, or whose tree is not understood"),
    "too-large": _("it is too large"),
    "trailing-bytes": _("something stands behind its end"),
    "truncated": _("it is cut off"),
    "truncated-pixels": _("its pixel data are cut off"),
    "undeclared-file": _("the set's description does not name it"),
    "unknown-sop-class": _("an unknown kind of object"),
    "unreadable": _("it cannot be read"),
    "unsupported-format": _("this picture format is not handled"),
    "video": _("video is not handled"),
    "waveform": _("waveforms are not published"),
    "heic": _("HEIC cannot be read here; export it as JPEG, PNG, TIFF or AVIF"),
    "too-many-pictures": _("it holds too many pictures"),
    "video-format": _("this video's format or coding cannot be read"),
    "video-too-large": _("this video is too long or too large"),
    "video-unsteady": _("this video gave other pictures when it was read again"),
    "words-in-samples": _(
        "the samples of its picture hold the patient's name or number as letters"
    ),
    "worker-crash": _("the worker ended while reading it"),
}
# What PS3.15 table E.1-1 calls the actions.
ACTIONS: Mapping[str, str] = {
    "D": _("replaced by a dummy"),
    "Z": _("emptied"),
    "X": _("removed"),
    "K": _("kept"),
    "P": _("replaced by a pseudonym"),
    "C": _("cleaned"),
    "U": _("replaced by another UID, unless it is the standard's own"),
}
# Of a photograph or a video: its parts, and what was done to each.
PARTS: Mapping[str, str] = {
    "metadata": _("metadata"),
    "further pictures": _("further pictures"),
    "sound, subtitles, further tracks": _("sound, subtitles, further tracks"),
    "orientation": _("orientation"),
    "transparency": _("transparency"),
    "colour profile": _("colour profile"),
    "coding": _("coding"),
    "frames": _("frames"),
    "pictures": _("pictures"),
    "text": _("text"),
    "face": _("faces"),
    "plate": _("number plates"),
}
DONE: tuple[str, ...] = (
    _("removed"),
    _("removed, unreadable"),
    _("unreadable"),
    _("applied"),
    _("laid on white"),
    _("converted to sRGB"),
    _("not looked for: a person has to"),
    _("masked {count}"),
    _("masked in {count} frames"),
    _("{count}, each looked at"),
    _("{count}; {whole} examined whole, {part} in part"),
    _("JPEG, quality {quality}"),
)
BOXES: Mapping[str, str] = {"text": _("text"), "face": _("faces"), "plate": _("number plates")}


def reason(code: str) -> str:
    """A reason in English; a code without words as it is."""
    return REASONS.get(code, code.replace("-", " "))


@cache
def _done() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(
        (each, re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d{1,12})", re.escape(each))))
        for each in DONE
    )


def action(said: str) -> tuple[str, dict[str, str]]:
    """What was done to an element or a part: words to translate, and the numbers in them.

    Empty for what is not known here.
    """
    if said in ACTIONS:
        return ACTIONS[said], {}
    for text, pattern in _done():
        if found := pattern.fullmatch(said):
            return text, found.groupdict()
    return "", {}


# Why a person has to look at an output.
REVIEWS: Mapping[str, str] = {
    "plates": _("number plates are not looked for"),
    "video": _("a video: what moves is followed, and not every frame examined whole"),
    "more pictures than are shown": _("more pictures than the sheet shows"),
    "graphics not searched": _("drawn lines may be handwriting"),
    "pixels not searched": _("its pixels are measures and were not searched for text"),
    "body part not said": _("a volume that does not say which part of the body it shows"),
    "not every frame searched by itself": _("not every frame was searched by itself"),
}


def review(code: str) -> str:
    """Why a person has to look, in English."""
    return REVIEWS.get(code, code)
