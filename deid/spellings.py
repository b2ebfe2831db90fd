"""Every way in which a value may have been written down again.

A leak is seldom a copy: a log escapes it, a page quotes it, a table takes a name apart, a program
writes a day as people write it. The search takes values as they stand, so the spellings are
values too.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator
from urllib.parse import quote

_DAY = re.compile(r"((?:19|20)\d\d)-?(\d\d)-?(\d\d)")
_NAME = re.compile(r"([^\W\d_]{1,})[\^ ]([^\W\d_]{1,})")
SHORTEST = 5
"""Letters or digits of a value that is looked for; of Hangul three syllables are as telling."""
SHORTEST_PART = 6
SHORTEST_BYTES = 5
"""Bytes, in every encoding, of what is looked for."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def is_telling(value: str) -> bool:
    """Whether a value is long enough not to be found by chance, in any encoding."""
    if value.isascii():
        return len(value) >= SHORTEST
    return all(len(value.encode(each, "ignore")) >= SHORTEST_BYTES for each in ("utf-8", "euc-kr"))


def spellings(value: str) -> set[str]:
    """The value as it is, and as other writers would have it, escapes too; all of them telling."""
    found = written(value)
    found |= {other for each in tuple(found) for other in _escaped(each)}
    return {each for each in found if is_telling(each)}


def written(value: str) -> set[str]:
    """The value as people and programs write it: days, names, numbers, capitals or not."""
    found = {value, *_days(value), *_names(value), *_joined(value)}
    return found | {
        other for each in tuple(found) for other in (each.lower(), each.upper(), each.title())
    }


def _days(value: str) -> Iterator[str]:
    found = _DAY.fullmatch(value)
    if found is None:
        return
    year, month, day = found.groups()
    bare_month, bare_day = str(int(month)), str(int(day))
    for separator in ("", "-", ".", "/"):
        yield separator.join((year, month, day))
        if separator:
            yield separator.join((day, month, year))
            yield separator.join((month, day, year))
            yield separator.join((year, bare_month, bare_day))
    yield f"{year}. {bare_month}. {bare_day}."
    yield f"{year}년 {bare_month}월 {bare_day}일"
    if 1 <= int(month) <= 12:
        yield f"{day}-{MONTHS[int(month) - 1]}-{year}"
        yield f"{MONTHS[int(month) - 1]} {bare_day}, {year}"


def _names(value: str) -> Iterator[str]:
    found = _NAME.fullmatch(value)
    if found is None:
        return
    family, given = found.groups()
    for separator in ("", "^", " ", ", ", "_", "-", "="):
        yield family + separator + given
    yield f"{given} {family}"
    yield given + family
    for part in (family, given):
        if len(part) >= SHORTEST_PART:
            yield part


def _joined(value: str) -> Iterator[str]:
    """Telephone and register numbers without what stands between their digits."""
    if re.fullmatch(r"[\d -]{9,}", value) and not _DAY.fullmatch(value):
        digits = re.sub(r"\D", "", value)
        yield digits
        if len(digits) == 11:
            yield f"{digits[:3]} {digits[3:7]} {digits[7:]}"
            yield f"+82 {digits[1:3]} {digits[3:7]} {digits[7:]}"


def _escaped(value: str) -> Iterator[str]:
    yield html.escape(value)
    yield quote(value)
    if not value.isascii():
        yield "".join(f"&#{ord(letter)};" for letter in value)
    for encoding in ("utf-8", "euc-kr", "utf-16-le", "utf-16-be"):
        try:
            raw = value.encode(encoding)
        except UnicodeEncodeError:
            continue
        yield raw.hex(" ")
        if encoding == "euc-kr" and not value.isascii():
            # ISO 2022 KR between shifts: the same bytes without their highest bit.
            yield bytes(byte & 0x7F for byte in raw).decode("ascii")
        for lead in range(3):
            # Three places in a group of base64; the letters at the edges belong to neighbours.
            encoded = base64.b64encode(bytes(lead) + raw).decode().rstrip("=")
            middle = encoded[(lead * 8 + 5) // 6 : len(encoded) - 1]
            if len(middle) >= 10:
                yield middle
