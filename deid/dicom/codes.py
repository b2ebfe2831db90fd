"""Codes of public schemes, written anew from what their scheme says of them.

A code's meaning is free text beside the code, and a private scheme's value may be anything. So
within a content tree a code stays only if its scheme is public and its value has that scheme's
form, and its meaning is the dictionary's (PS3.16) or, for codes that the dictionary does not hold,
what the list of known words leaves of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from deid.dicom import text as free_text
from deid.dicom import values
from deid.dicom.stream import Element, text_of

CODE_VALUE, SCHEME, SCHEME_VERSION, MEANING = 0x00080100, 0x00080102, 0x00080103, 0x00080104
LONG_CODE_VALUE, URN_CODE_VALUE = 0x00080119, 0x00080120
LONGEST_MEANING = 64

# Versions that are years or days are left out: they could be anybody's.
_VERSION = re.compile(r"\d{1,2}(?:\.\d{1,3}){0,2}")
# Verhoeff's table of the dihedral group D5, by which SNOMED CT checks its identifiers.
_TURNS = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


class Code(NamedTuple):
    """A cleaned code."""

    scheme: str
    value: str
    meaning: str
    version: str = ""

    def elements(self) -> list[Element]:
        """The item of a code sequence (PS3.3 section 8.8)."""
        tag, vr = (CODE_VALUE, "SH") if len(self.value) <= 16 else (LONG_CODE_VALUE, "UC")
        item = [
            Element(tag, vr, self.value.encode()),
            Element(SCHEME, "SH", self.scheme.encode()),
            Element(MEANING, "LO", self.meaning.encode()),
        ]
        if self.version:
            item.append(Element(SCHEME_VERSION, "SH", self.version.encode()))
        return sorted(item, key=lambda element: element.tag)


def _is_snomed(value: str) -> bool:
    """Whether digits are a SNOMED CT identifier with its check digit (Verhoeff)."""
    if not re.fullmatch(r"[1-9]\d{5,17}", value):
        return False
    check = 0
    for place, digit in enumerate(reversed(value)):
        turned = int(digit)
        for _ in range(place % 8):
            turned = _TURNS[turned]
        check = _combined(check, turned)
    return check == 0


def _combined(one: int, other: int) -> int:
    """The product of two elements of D5, 0 to 4 its rotations, 5 to 9 its reflections."""
    if one < 5:
        return (one + other) % 5 if other < 5 else 5 + (one + other) % 5
    return 5 + (one - other) % 5 if other < 5 else (one - other) % 5


def _pattern(expression: str) -> Callable[[str], bool]:
    compiled = re.compile(expression, re.ASCII)
    return lambda value: compiled.fullmatch(value) is not None


_LANGUAGE = _pattern(r"[a-z]{2,3}(?:-[A-Z]{2})?")
_SNOMED_RT = _pattern(r"[A-Z][A-Z0-9]?-[0-9A-F]{4,6}")
# The forms of codes that the dictionary does not hold, for schemes that have one form.
_FORMS: Mapping[str, Callable[[str], bool]] = {
    "DCM": _pattern(r"1\d{5}"),
    "SCT": _is_snomed,
    "SRT": _SNOMED_RT,
    "SNM3": _SNOMED_RT,
    "99SDM": _SNOMED_RT,
    "LN": _pattern(r"\d{1,5}-\d"),
    "RADLEX": _pattern(r"RID\d{1,6}"),
    "UMLS": _pattern(r"C\d{7}"),
    "NCIt": _pattern(r"C\d{1,6}"),
    "FMA": _pattern(r"\d{1,6}"),
    "ISO639_1": _LANGUAGE,
    "ISO639_2": _LANGUAGE,
    "RFC3066": _LANGUAGE,
    "RFC5646": _LANGUAGE,
    "ISO3166_1": _pattern(r"[A-Z]{2,3}"),
}
_SCHEMES = values.PUBLIC_SCHEMES | {"ISO639_2", "RFC3066", "RFC5646"}


@lru_cache(maxsize=1)
def _dictionary() -> Mapping[tuple[str, str], str]:
    """Meanings by scheme and value; loaded where the first report is met."""
    from pydicom.sr import _concepts_dict, _snomed_dict

    concepts: Mapping[str, Mapping[str, Mapping[str, tuple[str, list[int]]]]]
    concepts = _concepts_dict.concepts  # type: ignore[assignment]
    found = {
        (scheme, value): meaning
        for scheme, named in concepts.items()
        for entry in named.values()
        for value, (meaning, _groups) in entry.items()
    }
    for old, new in _snomed_dict.mapping["SRT"].items():
        if ("SCT", new) in found:
            found["SRT", old] = found["SCT", new]
    return found


def public(item: list[Element], encodings: tuple[str, ...], own: frozenset[str]) -> Code | None:
    """The code of one item of a code sequence; None where it is not one of a public scheme.

    ``own`` are the words of the patient's identifying fields.
    """
    written = {
        element.tag: values.words(element.value, encodings)
        for element in item
        if element.items is None and element.fragments is None and len(element.value) <= 256
    }
    scheme = written.get(SCHEME, "")
    value = written.get(CODE_VALUE) or written.get(LONG_CODE_VALUE, "")
    if URN_CODE_VALUE in written or scheme not in _SCHEMES or not value.isascii():
        return None
    known = _dictionary().get((scheme, value), "")
    if not known:
        has_form = _FORMS.get(scheme)
        if has_form is not None and not has_form(value):
            return None
        if values.code_value(value.encode(), own) != value.encode():
            return None
        if any(word in own for word in free_text.words_of(value)):
            return None
    meaning = known or free_text.clean(written.get(MEANING, ""), own, lambda _uid: "")
    version = written.get(SCHEME_VERSION, "")
    return Code(
        scheme,
        value,
        meaning[:LONGEST_MEANING].strip() if meaning.isascii() and meaning else value,
        version if _VERSION.fullmatch(version) else "",
    )


def of_sequence(
    element: Element | None, encodings: tuple[str, ...], own: frozenset[str]
) -> Code | None:
    """The code of a sequence of exactly one; None for anything else."""
    if element is None or element.items is None or len(element.items) != 1:
        return None
    return public(element.items[0], encodings, own)


def keyword(element: Element | None) -> str:
    """A code string as ASCII, empty where there is none."""
    return "" if element is None or element.items is not None else text_of(element.value)
