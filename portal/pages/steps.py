"""The way through a state machine as steps: what is passed, where it stands, what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from portal.pages.states import word_of


@dataclass(frozen=True)
class Step:
    """One step; ``word`` is untranslated, ``place`` is past, current or ahead."""

    word: str
    place: str


def drawn(path: Sequence[str], state: str, *, reached: str = "") -> list[Step]:
    """Return the usual ``path`` with ``state`` marked.

    A state beside the path (rejected, stopped) stands after the last step that was ``reached``,
    and what would have followed is left out.
    """
    if state in path:
        here = path.index(state)
        return [Step(word_of(name), _place(number, here)) for number, name in enumerate(path)]
    passed = path[: path.index(reached) + 1] if reached in path else path[:1]
    return [*(Step(word_of(name), "past") for name in passed), Step(word_of(state), "current")]


def _place(number: int, here: int) -> str:
    if number < here:
        return "past"
    return "current" if number == here else "ahead"
