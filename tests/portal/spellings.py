"""Planted values as records of all their spellings, which the search takes as they stand."""

from __future__ import annotations

from collections.abc import Iterable

from deid.spellings import spellings
from synthetic.planted import Planted


def respelt(planted: Iterable[Planted]) -> list[Planted]:
    """One record for every spelling of every value, with the place of the original."""
    return [
        Planted(spelling, each.where, each.file, each.box, each.encoding)
        for each in planted
        for spelling in sorted(spellings(each.value))
    ]
