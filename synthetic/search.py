"""Looking for every planted value in any bytes, all at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from synthetic.planted import Planted

ENCODINGS = ("utf-8", "euc-kr", "utf-16-le", "utf-16-be")
PREFIX = 5
"""Bytes of a value that are looked up first: fewer than the shortest value in any encoding has."""

_TABLE_BITS = 24
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Search:
    """Finds planted values in bytes, in the encodings that files use.

    A value of digits alone counts only where no further digit stands beside it: among the long
    random numbers of pseudonymous UIDs eight digits are found by chance. ``PixelData`` is
    searched like everything else; compressed data must be decompressed by the caller.

    Values in pixels (``where`` is ``pixels`` and no text elsewhere) are looked for as text too.
    """

    def __init__(self, planted: Iterable[Planted]) -> None:
        self._values: dict[bytes, list[tuple[bytes, str]]] = {}
        for value in sorted({each.value for each in planted if each.value}):
            for encoding in ENCODINGS:
                try:
                    written = value.encode(encoding)
                except UnicodeEncodeError:
                    continue
                if len(written) < PREFIX:
                    raise ValueError("A planted value is too short to be looked for.")
                entries = self._values.setdefault(written[:PREFIX], [])
                if (written, value) not in entries:
                    entries.append((written, value))
        self._table = np.zeros(1 << _TABLE_BITS, dtype=bool)
        if self._values:
            prefixes = np.frombuffer(b"".join(self._values), dtype=np.uint8)
            self._table[_slots(prefixes)[::PREFIX]] = True

    def found(self, data: bytes) -> set[str]:
        """The planted values that stand in ``data``."""
        if len(data) < PREFIX:
            return set()
        seen = np.frombuffer(data, dtype=np.uint8)
        found: set[str] = set()
        for start in range(0, seen.size, 1 << 22):
            block = seen[start : start + (1 << 22) + PREFIX - 1]
            if block.size < PREFIX:
                break
            for at in np.flatnonzero(self._table[_slots(block)]) + start:
                place = int(at)
                for written, value in self._values.get(data[place : place + PREFIX], ()):
                    if value not in found and _stands_at(data, place, written, value):
                        found.add(value)
        return found


def _stands_at(data: bytes, place: int, written: bytes, value: str) -> bool:
    if not data.startswith(written, place):
        return False
    if not value.isdigit() or len(written) != len(value):
        return True
    before = data[max(0, place - 1) : place]
    after = data[place + len(written) : place + len(written) + 1]
    return not before.isdigit() and not after.isdigit()


def _slots(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A table slot for every window of ``PREFIX`` bytes."""
    count = data.size - PREFIX + 1
    word = np.zeros(count, dtype=np.uint64)
    for offset in range(PREFIX):
        word = (word << np.uint64(8)) | data[offset : offset + count]
    slots: NDArray[np.uint64] = (word * _MULTIPLIER) >> np.uint64(64 - _TABLE_BITS)
    return slots
