"""The arithmetic of a comparison: interleaved repetitions, medians, ratios of neighbours."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Ratio:
    """One figure against another, measured in turns.

    ``ours[i]`` and ``base[i]`` were measured one right after the other, so that another load on
    the machine hits both; the ratio is the median of the ratios of neighbours. ``better`` says
    which way is good: ``higher`` (rates) or ``lower`` (times).
    """

    what: str
    unit: str
    better: str
    ours_name: str
    ours: Sequence[float]
    base_name: str
    base: Sequence[float]

    def __post_init__(self) -> None:
        if not self.ours or len(self.ours) != len(self.base):
            raise ValueError("a ratio needs pairs of measurements")
        if self.better not in ("higher", "lower"):
            raise ValueError("better is higher or lower")
        if min(self.ours) <= 0 or min(self.base) <= 0:
            raise ValueError("a rate or a time is more than nothing")

    @property
    def pairs(self) -> list[float]:
        """The ratio of each pair of neighbours, in the order in which they were measured."""
        return [mine / other for mine, other in zip(self.ours, self.base, strict=True)]

    @property
    def value(self) -> float:
        """The median of the ratios of neighbours."""
        return median(self.pairs)

    def as_mapping(self) -> dict[str, object]:
        """Return the JSON object of ``python -m bench --json``."""
        return {
            "what": self.what,
            "unit": self.unit,
            "better": self.better,
            "ratio": round(self.value, 4),
            "lowest": round(min(self.pairs), 4),
            "highest": round(max(self.pairs), 4),
            self.ours_name: round(median(self.ours), 5),
            self.base_name: round(median(self.base), 5),
            "repetitions": len(self.ours),
        }

    def as_line(self) -> str:
        """Return the line that is printed."""
        low, high = min(self.pairs), max(self.pairs)
        return (
            f"{self.what:<46} {self.value:7.2f}   ({low:.2f} to {high:.2f})   "
            f"{self.ours_name} {_shown(median(self.ours))}, "
            f"{self.base_name} {_shown(median(self.base))} {self.unit}, {self.better} is better"
        )


def _shown(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def in_turns(
    runs: Mapping[str, Callable[[], float]], repetitions: int, *, warm: int = 1
) -> dict[str, list[float]]:
    """Call each run once, then each again, ...; return what each measured, without the first.

    Every other round goes backwards, so that nobody always follows the same neighbour.
    """
    if repetitions < 1 or warm < 0:
        raise ValueError("at least one repetition is needed")
    measured: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(warm + repetitions):
        names = list(runs) if number % 2 == 0 else list(runs)[::-1]
        for name in names:
            value = runs[name]()
            if number >= warm:
                measured[name].append(value)
    return measured


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the values do not exceed."""
    if not values or not 0 < share <= 1:
        raise ValueError("a percentile needs values and a share in (0, 1]")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def load() -> str:
    """Say how busy this machine is: the load of the last minute, and its processors."""
    return f"load {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores"
