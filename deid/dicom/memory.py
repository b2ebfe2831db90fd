"""What values became in the files before: a series repeats almost all of them."""

from __future__ import annotations

from typing import TypeAlias

from deid.dicom.plan import Rule

REPEATED_BYTES = 256
"""Of values that repeat, most are short; longer ones are seldom worth their place."""

BYTES, PERSON_BYTES, ENTRY_BYTES = 32 << 20, 4096, 512
"""The memory's bound, and what a person and an entry take beside the values."""

Key: TypeAlias = tuple[int, str, Rule, bytes]
"""Tag and VR, what to do, and the value: with the person, all that the outcome depends on."""

Outcome: TypeAlias = tuple[str, bytes, str]
"""VR (empty where the element goes), value, and the table's letter."""

Known: TypeAlias = dict[Key, Outcome]


class Memory:
    """Outcomes by person; it lies in the cleaner's process, has a bound, and ends with it."""

    def __init__(self) -> None:
        self._of: dict[tuple[object, ...], Known] = {}
        self._left = BYTES

    def of(self, who: tuple[object, ...]) -> Known:
        """What is known for ``who``: a person, their words, and how their texts are encoded.

        When the memory is full, all is forgotten.
        """
        if self._left < 0:
            self._of, self._left = {}, BYTES
        known = self._of.get(who)
        if known is None:
            known = self._of[who] = {}
            self._left -= PERSON_BYTES
        return known

    def add(self, known: Known, key: Key, outcome: Outcome) -> None:
        """Remember what became of an element."""
        known[key] = outcome
        self._left -= ENTRY_BYTES + len(key[-1]) + len(outcome[1])
