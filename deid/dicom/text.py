"""Free text: keep the words that are known to be clinical or technical, drop all others.

A list of what to remove cannot be complete, so this is a list of what may stay (the Clean
Descriptors option, PS3.15 E.3.6). A word that stands in this patient's own identifying fields is
dropped even where it is in the vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

OLDEST_AGE = 89
OWN_DIGITS = 6
"""So many digits of a number of the patient's own are known again in pieces or as a measure."""

_UID = re.compile(r"(?<![\d.])\d+(?:\.\d+){4,}(?![\d.])")
# Dates, telephone and registration numbers: digits joined by separators.
_JOINED_DIGITS = re.compile(
    # Only from the beginning of a run of digits, or long runs would take quadratic time.
    r"(?<!\d)(?:\d+(?:\s?[-/:.]\s?\d+){2,}|\d+(?:[-/]\d+)+|\d{2,}(?:\s\d{2,}){2,})"
)
_MONTH_AND_DAY = re.compile(r"(0?[1-9]|[12]\d|3[01])[-/](0?[1-9]|[12]\d|3[01])\Z")
# Whether the number stands before its unit or sex, or behind its word.
_AGE = re.compile(
    r"\b0?(\d{2,3})(?:\s*-?\s*(?:y\b|y/o\b|yo\b|yrs?\b|years?\b|세|살|歳|岁|ans\b|años)"
    r"|\s*/?\s*(?:[fmw]\b|female|male|woman|man|여|남))"
    r"|(?:\bage[ds]?|\by/o|\balter|나이|연령|만|\b[fmw]\s*/?|\bmale|\bfemale)"
    r"\s*[:=]?\s*0?(\d{2,3})\b",
    re.IGNORECASE,
)
# Names spelled out, numbers with a blank between their digits: K I M, 7-7-0-3.
_SPELLED = re.compile(r"(?<![^\W_])[^\W_](?:[\W_]{1,3}[^\W_]){3,}(?![^\W_])")
_PIECE = re.compile(r"\d+\.\d+|[^\W_]+|[\W_]+")
_NUMBER = re.compile(r"\d{1,3}(?:\.\d{1,4})?\Z", re.ASCII)
_MIXED = re.compile(r"(?:(\d{1,3}(?:\.\d+)?)([^\W\d_]+)|([^\W\d_]+)(\d{1,3}))([^\W\d_]{0,2})\Z")
_DIFFUSION = re.compile(r"b\d{1,2}(?:\d|\d?0)?\Z", re.ASCII)
_WITH_DIGIT = re.compile(r"[^\W_]*\d[^\W_]*")
_PLAIN_SEPARATORS = frozenset(" _/+,;:()[]=-.\n")


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    """The words that may stay, in lower case."""
    path = Path(__file__).with_name("vocabulary.txt")
    return frozenset(path.read_text(encoding="utf-8").split())


@lru_cache(maxsize=1 << 14)
def is_known_word(word: str) -> bool:
    """Whether one word, without separators, may stay by itself."""
    lower = word.lower()
    words = vocabulary()
    if lower in words or _NUMBER.match(word) or _DIFFUSION.match(lower):
        return True
    if len(word) == 1:
        return word.isascii()
    mixed = _MIXED.match(lower)
    if mixed is None:
        return False
    letters, tail = mixed[2] or mixed[3], mixed[5]
    short = len(letters) <= 2 and letters.isascii()
    return (short or letters in words) and (not tail or tail in words)


@lru_cache(maxsize=1 << 14)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, for comparing with a patient's own."""
    return tuple(piece.lower() for piece in re.findall(r"[^\W_]+", text))


def clean(text: str, own: frozenset[str], uid: Callable[[str], str]) -> str:
    """Return the text with only known words left; UIDs inside it are mapped by ``uid``.

    ``own`` are the words, in lower case, of the patient's own identifying fields.
    """
    if not text:
        return text
    kept: list[str] = []
    last = 0
    for found in _UID.finditer(text):
        kept.append(_words(text[last : found.start()], own))
        kept.append(uid(found[0]))
        last = found.end()
    kept.append(_words(text[last:], own))
    return " ".join(piece for piece in kept if piece) if last else kept[0]


def _words(text: str, own: frozenset[str]) -> str:
    text = _AGE.sub(_young, text)
    text = _SPELLED.sub(" ", text)
    text = _JOINED_DIGITS.sub(_short_joined, text)
    result: list[str] = []
    separator = ""
    for piece in _PIECE.findall(text):
        if piece[0].isalnum():
            if piece.lower() not in own and is_known_word(piece):
                if result:
                    result.append(separator or " ")
                result.append(piece)
                separator = ""
            else:
                separator = separator or " "
        elif result:
            separator = _plain(piece)
    cleaned = "".join(result)
    if _spells_own_number(cleaned, own):
        return " ".join(_WITH_DIGIT.sub(" ", cleaned).split())
    return cleaned


def _spells_own_number(cleaned: str, own: frozenset[str]) -> bool:
    """Whether the numbers that are left, one after another, are one of the patient's own."""
    digits = re.sub(r"\D+", "", cleaned)
    return len(digits) >= OWN_DIGITS and any(
        word in digits for word in own if len(word) >= OWN_DIGITS and word.isdigit()
    )


def _young(found: re.Match[str]) -> str:
    return " " if int(found[1] or found[2]) > OLDEST_AGE else found[0]


def _short_joined(found: re.Match[str]) -> str:
    if len(found[0]) > 3 and _MONTH_AND_DAY.match(found[0]):
        return " "
    digits = sum(character.isdigit() for character in found[0])
    decimal = found[0].count(".") == 1 and not re.search(r"[-/:]", found[0])
    return found[0] if digits <= 3 or decimal else " "


@lru_cache(maxsize=1 << 10)
def _plain(separators: str) -> str:
    """One harmless separator for a run of them."""
    for character in separators:
        if character in _PLAIN_SEPARATORS and character != " ":
            return character
    return " "


@lru_cache(maxsize=64)
def own_words(values: tuple[str, ...]) -> frozenset[str]:
    """The words of a patient's identifying values that are long enough to recognise."""
    found: set[str] = set()
    for value in values:
        for word in words_of(value):
            if len(word) >= 2 or not word.isascii():
                found.add(word)
        compact = re.sub(r"[\W_]+", "", value).lower()
        if len(compact) >= 4:
            found.add(compact)
    return frozenset(found)
