"""Words in the samples of a picture: letters as grey values, which nobody sees in it."""

from __future__ import annotations

import itertools
import operator
import re
import string
from collections.abc import Iterable, Iterator

from deid.dicom.wordlike import Script, Search, likelihood
from deid.spill import Buffer, forget

HELD = "words-in-samples"
"""Why a file with such a picture is held."""

# Letters are likely to be words, each pair counted once, and unlike samples they jump: where
# neighbours differ by twelve, two hundred pictures without words had a likelihood of 10.7 at most.
_LEAST_LETTERS, _LIKELY, _JUMPS = 12, 14.0, 12
_MEMBERS = string.ascii_letters.encode() + string.digits.encode() + b"^ ,.=/:_'-"
_LETTERS = Script(_MEMBERS, rb"[A-Za-z0-9^ ,.=/:_'-]", 1, _LEAST_LETTERS)
_SENTENCE = Search(_LETTERS)
# Of a picture whose values lie among the letters, seven certain ones stand by chance in few.
_OWN_LETTERS, _PART, _DIFFERENT = 7, 3, 4
_BETWEEN = b" ^,.=_-"
_STEP, _LAP = 8 << 20, 1 << 10


def reads_as_words(samples: Buffer, each: int = 1) -> bool:
    """Whether samples hold a line of words, as letters side by side or one in each sample.

    ``each`` is the number of samples of a pixel: colours also hold a letter a pixel.
    """
    return any(
        _jumps(run) and sum(map(likelihood, set(itertools.pairwise(run)))) >= _LIKELY
        for run in _runs(_SENTENCE, samples, each)
    )


def spells_own(samples: Buffer, own: Iterable[bytes], each: int = 1) -> bool:
    """Whether samples spell words of the patient's ``own``, together at least seven letters."""
    words = sorted({word for word in own if len(word) >= _PART}, key=len, reverse=True)
    if not words:
        return False
    word = b"(?:" + b"|".join(re.escape(word) for word in words) + b")"
    line = word + b"(?:[" + re.escape(_BETWEEN) + b"]?" + word + b")*"
    members = bytes({*b"".join(words), *_BETWEEN})
    return any(
        len(run) >= _OWN_LETTERS and len(set(run)) >= _DIFFERENT and not _is_even(run)
        for run in _runs(Search(Script(members, line, _OWN_LETTERS, 1)), samples, each)
    )


def _runs(search: Search, samples: Buffer, each: int) -> Iterator[bytes]:
    view = memoryview(samples).cast("B")
    steps = (1, 2, 3) if each == 3 else (1, 2)
    for start in range(0, len(view), _STEP):
        piece = bytes(view[start : start + _STEP + _LAP])
        forget(samples)
        for _script, run in search.runs(piece, steps):
            yield run


def _jumps(run: bytes) -> bool:
    moved: int = sum(map(abs, map(operator.sub, run[1:], run)))  # in a picture, millions of times
    return moved >= _JUMPS * (len(run) - 1)


def _is_even(run: bytes) -> bool:
    """Whether a number rises or falls by one and the same step, as a ramp of grey does."""
    return len(set(map(operator.sub, run[1:], run))) == 1
