"""Words in the samples of a picture: letters as grey values, which nobody sees in it."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator

from deid.dicom.wordlike import Script, Search
from deid.spill import Buffer, forget

HELD = "words-in-samples"
"""Why a file with such a picture is held."""

# Of a picture whose values lie among the letters, seven certain ones stand by chance in few.
_OWN_LETTERS, _PART, _DIFFERENT = 7, 3, 4
_BETWEEN = b" ^,.=_-"
_STEP, _LAP = 8 << 20, 1 << 10


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


def _is_even(run: bytes) -> bool:
    """Whether a number rises or falls by one and the same step, as a ramp of grey does."""
    return len(set(map(operator.sub, run[1:], run))) == 1
