"""Find rows of training pictures whatever their scale, offset, type and place in a tensor.

A window of 33 neighbouring pixels is described by which neighbour is larger: 32 bits that no
increasing scale changes, so that normalising, scaling, a gamma curve or another type leave them as
they are. A window of a tensor with the same bits is then compared number by number.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sandbox_runner.inspection.samples import Sample

STEPS: Final = 32
#: A smooth ramp looks like any other ramp: the order must turn at least this often.
TURNS: Final = 10
WINDOWS_A_SAMPLE: Final = 256
#: Spearman-like agreement is implied by the bits; Pearson's must hold as well.
LEAST_CORRELATION: Final = 0.9
_BLOCK: Final = 1 << 20
_TABLE_BITS: Final = 24


@dataclass(frozen=True)
class RowMatch:
    """How many windows of one sample were found in one tensor, and how well they agree."""

    sample: int
    windows: int
    correlation: float
    first_offset: int


def signatures(line: NDArray[np.floating[Any]]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Return the 32 bits from each offset of a line, and where they turn often enough."""
    steps = np.diff(line) > 0
    count = len(steps) - STEPS + 1
    if count <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.bool_)
    bits = steps.astype(np.uint64)
    packed = np.zeros(count, dtype=np.uint64)
    for position in range(STEPS):
        packed |= bits[position : position + count] << np.uint64(position)
    turned = np.r_[0, np.cumsum(steps[1:] != steps[:-1])]
    turns = turned[STEPS - 1 : STEPS - 1 + count] - turned[:count]
    return packed, turns >= TURNS


@dataclass
class RowIndex:
    """The windows of all samples, by signature."""

    keys: list[NDArray[np.uint64]] = field(default_factory=list)
    owners: list[NDArray[np.int64]] = field(default_factory=list)
    windows: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, number: int, sample: Sample) -> None:
        """Put windows of the sample's rows and columns, as stored and as prepared, in."""
        prepared = sample.prepared
        # A prepared picture is often stored whole: its rows follow each other in one line.
        views = [sample.grey, sample.grey.T, prepared, prepared.T]
        if sample.pixels.ndim == 3:
            views += [sample.pixels.reshape(sample.pixels.shape[0], -1).astype(np.float64)]
        for view in views:
            line = np.ascontiguousarray(view, dtype=np.float32).reshape(-1)
            keys, rich = signatures(line)
            places = np.flatnonzero(rich)
            if not len(places):
                continue
            # Windows that do not overlap count once each.
            slots, first = np.unique(places // (STEPS + 1), return_index=True)
            places = places[first[:: max(1, len(slots) // WINDOWS_A_SAMPLE)]]
            self.keys.append(keys[places])
            self.owners.append(np.full(len(places), number, dtype=np.int64))
            self.windows.append(line[places[:, None] + np.arange(STEPS + 1)])

    def close(self) -> None:
        """Sort the index."""
        if self.keys:
            keys = np.concatenate(self.keys)
            order = np.argsort(keys, kind="stable")
            self._keys = keys[order]
            self._owners = np.concatenate(self.owners)[order]
            self._windows = np.concatenate(self.windows)[order]
        else:
            self._keys, self._owners = np.zeros(0, np.uint64), np.zeros(0, np.int64)
            self._windows = np.zeros((0, STEPS + 1), np.float32)
        self.keys, self.owners, self.windows = [], [], []
        self._table = np.zeros(1 << _TABLE_BITS, dtype=bool)
        self._table[_slot(self._keys)] = True

    def search(self, line: NDArray[np.float32]) -> list[RowMatch]:
        """Return the samples of which windows stand in the line: inverted, mirrored or not."""
        found: dict[int, set[int]] = {}
        best: dict[int, float] = {}
        first: dict[int, int] = {}
        if not len(self._keys):
            return []
        for start in range(0, len(line), _BLOCK):
            straight = line[start : start + _BLOCK + STEPS]
            for sign, part in itertools.product((1.0, -1.0), (straight, straight[::-1])):
                keys, _ = signatures(part * np.float32(sign))
                maybe = np.flatnonzero(self._table[_slot(keys)])
                places = np.searchsorted(self._keys, keys[maybe])
                places[places == len(self._keys)] = 0
                hit = self._keys[places] == keys[maybe]
                for place, offset in zip(places[hit].tolist(), maybe[hit].tolist(), strict=True):
                    ours = part[offset : offset + STEPS + 1] * sign
                    if not np.isfinite(ours).all():
                        continue
                    agreement = _pearson(ours, self._windows[place])
                    if agreement < LEAST_CORRELATION:
                        continue
                    owner = int(self._owners[place])
                    found.setdefault(owner, set()).add(place)
                    best[owner] = max(best.get(owner, 0.0), agreement)
                    first.setdefault(owner, start + offset)
        matches = [RowMatch(o, len(p), best[o], first[o]) for o, p in found.items()]
        return sorted(matches, key=lambda match: -match.windows)


def _slot(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return each key's place in the table that tells most absent keys at once."""
    with np.errstate(over="ignore"):
        return (keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _TABLE_BITS)


def _pearson(a: NDArray[Any], b: NDArray[Any]) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 0.0
