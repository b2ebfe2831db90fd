"""What a decoder of ours gets back from rewritten weights, held against the bound that is shown.

The decoder knows how the numbers were spread before: it cuts their range into levels that were
equally common, and reads each number's level from the result. Two levels about zero are signs;
sixteen are what somebody would get who had written four bits a number.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LEVELS: Final = (2, 4, 8, 16, 32, 64)
SAMPLE: Final = 1 << 18
#: Fewer pairs by cell of the table than this estimate nothing.
LEAST_BY_CELL: Final = 20


def mutual_bits(before: NDArray[Any], after: NDArray[Any], levels: int) -> float:
    """Return how many bits a number's level after says of its level before, never below 0.

    From the table of counts, less the bias of small counts (Miller 1955).
    """
    edges = np.quantile(before, np.arange(1, levels) / levels)
    rows, columns = np.searchsorted(edges, before), np.searchsorted(edges, after)
    table = np.bincount(rows * levels + columns, minlength=levels**2).reshape(levels, levels)
    joint = table / table.sum()
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    live = joint > 0
    plain = float((joint[live] * np.log2(joint[live] / expected[live])).sum())
    return max(0.0, plain - (levels - 1) ** 2 / (2 * len(before) * math.log(2)))


class ReadBack:
    """Collects pairs of one tensor, at most :data:`SAMPLE` of them, evenly."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._step = max(1, -(-count // SAMPLE))
        self._before: list[NDArray[np.float32]] = []
        self._after: list[NDArray[np.float32]] = []

    def add(
        self, before: NDArray[np.float32], after: NDArray[np.float32], sizes: NDArray[np.float64]
    ) -> None:
        """Take rows of numbers before and after; ``sizes`` are the rows' scales, 0 for none."""
        live = sizes > 0
        by = np.where(live, sizes, 1.0).astype(np.float32)[:, None]
        for pile, rows in ((self._before, before), (self._after, after)):
            pile.append((rows / by)[live].reshape(-1)[:: self._step])

    def bits(self) -> float:
        """Return the bits that the best number of levels reads from the whole tensor."""
        if not self._before:
            return 0.0
        before, after = np.concatenate(self._before), np.concatenate(self._after)
        usable = [n for n in LEVELS if len(before) >= LEAST_BY_CELL * n * n]
        return self._count * max((mutual_bits(before, after, n) for n in usable), default=0.0)
