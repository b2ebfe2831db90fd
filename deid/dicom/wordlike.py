"""Whether bytes that should be numbers or coded samples hold something that reads as words."""

from __future__ import annotations

import itertools
import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from deid.dicom import text as free_text
from deid.dicom.stream import Buffer

# Below this the expressions alone are faster.
_SHORT_BYTES = 512


class Script:
    """One kind of writing: runs of ``least`` units of ``size`` bytes, all of them ``members``."""

    def __init__(self, members: bytes, unit: bytes, size: int, least: int) -> None:
        self.members = members
        self.shortest = least * size
        self.run = re.compile(b"(?:%b){%d,}" % (unit, least))


class Search:
    """All scripts at once: a bit a script for each byte, and those kept that neighbours share.

    Dozens of times as fast as the expressions, which then look at the places found only.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._bits = bytes(
            sum((byte in script.members) << number for number, script in enumerate(scripts))
            for byte in range(256)
        )
        self._shortest = min(script.shortest for script in scripts)

    def runs(self, raw: bytes, steps: Iterable[int] = (1, 2)) -> Iterator[tuple[Script, bytes]]:
        """Each run in the bytes, in every second of them, and in the others; by ``steps``."""
        if len(raw) <= _SHORT_BYTES:
            views = [(offset, step) for step in steps for offset in range(step)]
            for offset, step in views:
                for script in self._scripts:
                    for found in script.run.finditer(raw[offset::step]):
                        yield script, found[0]
            return
        marks = np.frombuffer(raw.translate(self._bits), np.uint8)
        for step in steps:
            for script, start, end in self._places(marks, step):
                for found in script.run.finditer(raw[start:end:step]):
                    yield script, found[0]

    def _places(self, marks: NDArray[np.uint8], step: int) -> Iterator[tuple[Script, int, int]]:
        """Where each run of one script's bytes that is long enough begins and ends.

        Its bytes are ``step`` apart: with 2, those at even and those at odd places are searched in
        one go, for putting them side by side costs as much as the search.
        """
        shared, length = marks, 1
        while length < self._shortest:
            more = min(length, self._shortest - length)
            shared, length = shared[: -more * step] & shared[more * step :], length + more
        places = np.flatnonzero(shared != 0)
        if not len(places):
            return
        if step > 1:
            places = np.concatenate([places[places % step == first] for first in range(step)])
        bits = shared[places]
        scripts = int(np.bitwise_or.reduce(bits))
        for number, script in enumerate(self._scripts):
            if not scripts >> number & 1:
                continue
            chosen = places[bits >> number & 1 == 1]
            # Neighbours belong to one run.
            apart = np.flatnonzero(chosen[1:] - chosen[:-1] != step)
            starts = chosen[np.concatenate(([0], apart + 1))]
            ends = chosen[np.concatenate((apart, [-1]))] + length * step
            long = ends - starts >= script.shortest * step
            yield from zip(itertools.repeat(script), starts[long].tolist(), ends[long].tolist())


_LETTER_BYTES = string.ascii_letters.encode() + b"^ ,.="
_NUMBER_BYTES = b"0123456789./-"
# Hangul in UTF-8, and in KS X 1001.
_UTF_8_BYTES, _KS_BYTES = bytes([*range(0x80, 0xC0), *range(0xEA, 0xEE)]), bytes(range(0xA1, 0xFF))
_UTF_8, _KS = rb"[\xea-\xed][\x80-\xbf]{2}", rb"[\xb0-\xc8][\xa1-\xfe]"
_LETTERS = Script(_LETTER_BYTES, b"[A-Za-z^ ,.=]", 1, 10)
_TEXT = Search(
    _LETTERS,
    Script(_NUMBER_BYTES, b"[0-9./-]", 1, 9),
    Script(_UTF_8_BYTES, _UTF_8, 3, 3),
    Script(_KS_BYTES, _KS, 2, 6),
)
_ANY_LETTERS = Script(_LETTER_BYTES + _NUMBER_BYTES, b"[A-Za-z0-9^ ,.=/-]", 1, 6)
_SHORT_TEXT = Search(
    _ANY_LETTERS,
    Script(_UTF_8_BYTES, _UTF_8, 3, 2),
    Script(_KS_BYTES, _KS, 2, 4),
)
# Four megabytes of random bytes hold some runs of ten letters and hardly one of thirteen; few
# bytes hold none of either.
_SURE_LETTERS = 13
_FEW_BYTES = 1 << 14
_WORDLIKE, _WORDS_AGAIN = -1.0, 3.0


_PLAIN = bytes(chr(byte).isascii() and chr(byte).isalnum() for byte in range(256))
PLAIN_BYTES = 5
"""Words of so many letters and digits, and more, are found together."""


class Words:
    """Given words, searched for in bytes all at once: one after another takes twice as long."""

    def __init__(self, words: Iterable[bytes]) -> None:
        every = sorted(set(words))
        self._plain = tuple(each for each in every if _is_plain(each))
        self._others = [each for each in every if not _is_plain(each)]
        self._begin = np.zeros(1 << 16, bool)
        self._begin[[int.from_bytes(each[:2], "little") for each in self._plain]] = True

    def are_in(self, raw: bytes) -> bool:
        """Whether the bytes hold one of the words."""
        if any(word in raw for word in self._others):
            return True
        if not self._plain:
            return False
        if len(raw) <= _SHORT_BYTES:
            return any(word in raw for word in self._plain)
        plain = np.frombuffer(raw.translate(_PLAIN), bool)
        two = plain[:-1] & plain[1:]
        four = two[:-2] & two[2:]
        places = np.flatnonzero(four[:-1] & plain[PLAIN_BYTES - 1 :])
        data = np.frombuffer(raw, np.uint8)
        begin = data[places] | (data[places + 1].astype(np.uint16) << 8)
        return any(raw.startswith(self._plain, int(place)) for place in places[self._begin[begin]])


def _is_plain(word: bytes) -> bool:
    return len(word) >= PLAIN_BYTES and word.isalnum()


def reads_as_text(value: Buffer, *, short: bool = False) -> bool:
    """Whether bytes that should be numbers hold a run that reads as words or a date.

    In plain bytes, and in every second byte as 16-bit numbers hold text. A run of few different
    bytes, one that repeats itself, and one that only rises or only falls is a pattern or a ramp
    and no word; in many bytes, ten to twelve letters must be likelier as words than as chance.
    ``short`` asks for shorter runs, for few bytes, and they too must be likely.
    """
    raw = bytes(value)
    search, different = (_SHORT_TEXT, 4) if short else (_TEXT, 5)
    for script, run in search.runs(raw):
        if len(set(run)) < (3 if run[:1].isdigit() and not short else different):
            continue
        if _is_ramp(run) or (_is_ramp(run[::2]) and _is_ramp(run[1::2])):
            continue
        # A few letters by chance end the coded data of every hundredth frame.
        few = not short and len(raw) <= _FEW_BYTES
        if script not in (_LETTERS, _ANY_LETTERS) or _is_likely(run, few=few):
            return True
    return False


def _is_ramp(run: bytes) -> bool:
    steps = [other - one for one, other in itertools.pairwise(run)]
    return all(step >= 0 for step in steps) or all(step <= 0 for step in steps)


def _is_likely(run: bytes, *, few: bool) -> bool:
    """Whether a run of letters is no chance, and no pattern either."""
    likely = sum(likelihood(pair) for pair in itertools.pairwise(run))
    if _repeats(run):
        return likely >= _WORDS_AGAIN
    return few or len(run) >= _SURE_LETTERS or likely >= _WORDLIKE


def _repeats(run: bytes) -> bool:
    """Whether most of a run is what stood a few bytes before, as in a plain part of a picture."""
    for period in range(1, len(run) // 2 + 1):
        same = sum(one == other for one, other in zip(run, run[period:], strict=False))
        if 4 * same >= 3 * (len(run) - period):
            return True
    return False


@cache
def likelihood(pair: tuple[int, int]) -> float:
    """How much likelier two neighbours are in words than by chance (natural logarithm).

    Letters by the words of the vocabulary; case changes seldom within a word, and so do letters
    and digits.
    """
    one, other = chr(pair[0]), chr(pair[1])
    if not one.isalnum() or not other.isalnum():
        return 0.0
    if one.isdigit() or other.isdigit():
        return 0.0 if one.isdigit() and other.isdigit() else -1.0
    if one.islower() and other.isupper():
        return -1.5  # as between two words
    case = 0.5 if one.isupper() == other.isupper() else -0.3
    return case + math.log(26 * _following()[one.lower()][other.lower()])


@cache
def _following() -> Mapping[str, Mapping[str, float]]:
    """The share of each letter behind each other in the vocabulary; a tenth is anybody's."""
    behind = {letter: Counter[str]() for letter in string.ascii_lowercase}
    for word in free_text.vocabulary():
        for one, other in itertools.pairwise(word):
            if one in behind and other in behind:
                behind[one][other] += 1
    return {
        one: {other: 0.9 * count[other] / max(1, count.total()) + 0.1 / 26 for other in behind}
        for one, count in behind.items()
    }
