"""Find rows of training pictures whatever their scale, offset, type and place in a tensor.

A window of 33 neighbouring pixels is described by which neighbour is larger: 32 bits that no
increasing scale changes, so that normalising, scaling, a gamma curve or another type leave them as
they are. A window of a tensor with the same bits is then compared number by number. The index holds
each window inverted and mirrored, too, so that a tensor is read once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sandbox_runner.inspection.samples import Sample
from sandbox_runner.sdk.glovebox.pictures import resize_by_area

STEPS: Final = 32
#: Copies of a half and of a third of the height and width are looked for, too.
SMALLER: Final = (2, 3)
LEAST_SIDE: Final = 12
#: A smooth ramp looks like any other ramp: the order must turn at least this often.
TURNS: Final = 10
#: And it must move: a few dots on black are what a pruned tensor is as well.
MOVES: Final = 20
WINDOWS_A_SAMPLE: Final = 256
#: Spearman-like agreement is implied by the bits; Pearson's must hold as well.
LEAST_CORRELATION: Final = 0.9
#: And once more without the pixels farthest from the window's middle: two numbers that lie apart
#: from all others, as at the end of a layer, would agree with any edge.
OUTLIERS: Final = 4
_BLOCK: Final = 1 << 17
_MOST_TABLE_BITS: Final = 27
#: One window of so many is looked at, chosen by its own bits and so the same in sample and tensor.
ANCHOR: Final = 8
_LOW: Final = np.uint32((1 << 32) // ANCHOR - 1)
_TOGETHER: Final = 1 << 14
_SAME_BITS: Final = 8


@dataclass(frozen=True)
class RowMatch:
    """How many windows of one sample were found in one tensor, and how well they agree."""

    sample: int
    windows: int
    correlation: float
    first_offset: int


def signatures(line: NDArray[np.floating[Any]]) -> NDArray[np.uint32]:
    """Return the 32 bits from each offset of a line."""
    if len(line) <= STEPS:
        return np.zeros(0, np.uint32)
    bits: NDArray[Any] = (line[1:] > line[:-1]).view(np.uint8)
    # One bit, then two, four, ...: each number that is twice as long is two shorter ones.
    for width, kind in ((1, np.uint8), (2, np.uint8), (4, np.uint8), (8, np.uint16),
                        (16, np.uint32)):  # fmt: skip
        wide: Any = bits.astype(kind, copy=False)
        bits = wide[:-width] | (wide[width:] << kind(width))
    return np.asarray(bits, dtype=np.uint32)


def _anchored(keys: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Return which windows are looked at."""
    with np.errstate(over="ignore"):
        return np.asarray((keys + np.uint32(0x3C6EF372)) * np.uint32(0x9E3779B1) <= _LOW)


def _turning(line: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Return where the 32 steps from each offset of a line turn, and move, often enough."""
    moves = np.diff(line)
    steps = moves > 0
    count = len(steps) - STEPS + 1
    if count <= 0:
        return np.zeros(0, np.bool_)
    turned = np.r_[0, np.cumsum(steps[1:] != steps[:-1])]
    turning = turned[STEPS - 1 : STEPS - 1 + count] - turned[:count] >= TURNS
    moved = np.r_[0, np.cumsum(moves != 0)]
    return np.asarray(turning & (moved[STEPS:] - moved[:-STEPS] >= MOVES))


def _inner_correlation(
    ours: NDArray[np.float64], theirs: NDArray[np.float16]
) -> NDArray[np.float64]:
    """Return Pearson's correlations of windows, row by row, without the sample's outliers."""
    wide = theirs.astype(np.float64)
    apart = np.abs(wide - np.median(wide, axis=1, keepdims=True))
    kept = np.argsort(apart, axis=1)[:, :-OUTLIERS]
    a, b = np.take_along_axis(ours, kept, axis=1), np.take_along_axis(wide, kept, axis=1)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.maximum(np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1)), 1e-300)
    return np.asarray((a * b).sum(axis=1) / norms)


@dataclass
class RowIndex:
    """The windows of all samples, by signature."""

    keys: list[NDArray[np.uint32]] = field(default_factory=list)
    owners: list[NDArray[np.int64]] = field(default_factory=list)
    windows: list[NDArray[np.float16]] = field(default_factory=list)
    places: list[NDArray[np.int64]] = field(default_factory=list)
    windows_a_sample: int = WINDOWS_A_SAMPLE

    def add(self, number: int, sample: Sample) -> None:
        """Put windows of the sample's rows and columns, as stored and as prepared, in."""
        prepared = sample.prepared
        # A prepared picture is often stored whole: its rows follow each other in one line.
        views = [sample.grey, sample.grey.T, prepared, prepared.T, np.diff(prepared, axis=1)]
        for part in SMALLER:
            side = (prepared.shape[0] // part, prepared.shape[1] // part)
            if min(side) >= LEAST_SIDE:
                small = resize_by_area(prepared, side)
                views += [small, small.T]
        if sample.pixels.ndim == 3:
            views += [sample.pixels.reshape(sample.pixels.shape[0], -1).astype(np.float64)]
        for view_number, view in enumerate(views):
            line = np.ascontiguousarray(view, dtype=np.float32).reshape(-1)
            turning = _turning(line)
            for orientation, turned in enumerate((line, line[::-1], -line, -line[::-1])):
                keys = signatures(turned)
                if orientation % 2:
                    keys = keys[::-1]  # in the order of the places in the line
                places = np.flatnonzero(turning & _anchored(keys))
                if not len(places):
                    continue
                # Windows that do not overlap count once each.
                slots, first = np.unique(places // (STEPS + 1), return_index=True)
                places = places[first[:: max(1, len(slots) // self.windows_a_sample)]]
                self.keys.append(keys[places])
                self.places.append((view_number << 40 | places) * 4 + orientation)
                self.owners.append(np.full(len(places), number, dtype=np.int64))
                windows = line[places[:, None] + np.arange(STEPS + 1)]
                # Of length one and without their mean, so that a product is a correlation.
                windows = windows - windows.mean(axis=1, keepdims=True)
                norms = np.maximum(np.linalg.norm(windows, axis=1, keepdims=True), 1e-30)
                self.windows.append((windows / norms).astype(np.float16))

    def close(self) -> None:
        """Sort the index."""
        if self.keys:
            keys = np.concatenate(self.keys)
            order = np.argsort(keys, kind="stable")
            self._keys = keys[order]
            self._places = np.concatenate(self.places)[order]
            self._owners = np.concatenate(self.owners)[order]
            self._windows = np.concatenate(self.windows)[order]
        else:
            self._keys = np.zeros(0, np.uint32)
            self._places = self._owners = np.zeros(0, np.int64)
            self._windows = np.zeros((0, STEPS + 1), np.float16)
        #: Of each window, the number after the last one with the same bits.
        self._after = np.searchsorted(self._keys, self._keys, side="right")
        self.keys, self.owners, self.windows, self.places = [], [], [], []
        bits = min(_MOST_TABLE_BITS, max(16, (16 * len(self._keys)).bit_length()))
        self._down = np.uint32(32 - bits)
        self._table = np.zeros(1 << bits, dtype=bool)
        self._table[self._slots(self._keys)] = True

    @property
    def empty(self) -> bool:
        """Whether there is nothing to find."""
        return not len(self._keys)

    def hits(self, line: NDArray[np.float32], start: int = 0) -> list[tuple[int, float, int]]:
        """Return windows (by their number) in some numbers, their agreement and offset.

        ``start`` is the offset of the numbers in their line. May be called by several threads.
        """
        if not len(self._keys):
            return []
        alike: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        for block in range(0, max(0, len(line) - STEPS), _BLOCK):
            keys = signatures(line[block : block + _BLOCK + STEPS])
            chosen = np.flatnonzero(_anchored(keys))
            maybe = chosen[self._table.take(self._slots(keys[chosen]).astype(np.int64))]
            # In the order of the index, near numbers of which are read together.
            maybe = maybe[np.argsort(keys[maybe])]
            first = np.minimum(np.searchsorted(self._keys, keys[maybe]), len(self._keys) - 1)
            last = np.where(self._keys[first] == keys[maybe], self._after[first], first)
            # Several windows may have the same bits; more than a few are a pattern, not a picture.
            same = np.minimum(last - first, _SAME_BITS)
            nth = np.arange(same.sum()) - np.repeat(np.cumsum(same) - same, same)
            alike.append((np.repeat(maybe + block, same), np.repeat(first, same) + nth))
        if not alike:
            return []
        offsets, places = (np.concatenate(each) for each in zip(*alike, strict=True))
        found: list[tuple[int, float, int]] = []
        for group in range(0, len(offsets), _TOGETHER):
            some = slice(group, group + _TOGETHER)
            found += self._agreeing(line, offsets[some], places[some], start)
        return found

    def _slots(self, keys: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Return each key's place in the table that tells most absent keys at once."""
        with np.errstate(over="ignore"):
            return (keys * np.uint32(0x85EBCA6B)) >> self._down

    def _agreeing(
        self,
        line: NDArray[np.float32],
        offsets: NDArray[np.int64],
        places: NDArray[np.int64],
        start: int,
    ) -> list[tuple[int, float, int]]:
        turned = self._places[places] % 4
        with np.errstate(invalid="ignore", over="ignore"):
            ours = line[offsets[:, None] + np.arange(STEPS + 1)].astype(np.float64)
            ours -= ours.mean(axis=1, keepdims=True)
            mirrored = turned % 2 == 1
            ours[mirrored] = ours[mirrored, ::-1]
            norms = np.maximum(np.sqrt((ours * ours).sum(axis=1)), 1e-300)
            agreement = (ours * self._windows[places]).sum(axis=1) / norms
            agreement[turned >= 2] *= -1
        # NaN is no agreement.
        good = np.flatnonzero(agreement >= LEAST_CORRELATION)
        if not len(good):
            return []
        signs = np.where(turned[good] >= 2, -1.0, 1.0)
        inner = _inner_correlation(ours[good] * signs[:, None], self._windows[places[good]])
        good = good[inner >= LEAST_CORRELATION]
        return list(
            zip(
                places[good].tolist(),
                np.minimum(agreement[good], 1.0).tolist(),
                (offsets[good] + start).tolist(),
                strict=True,
            )
        )

    def matches(self, hits: Iterable[tuple[int, float, int]]) -> list[RowMatch]:
        """Return the samples of which windows were hit in one line."""
        found: dict[int, set[int]] = {}
        best: dict[int, float] = {}
        first: dict[int, int] = {}
        for place, agreement, offset in hits:
            owner = int(self._owners[place])
            # One window may be found as it is and mirrored: it is one.
            found.setdefault(owner, set()).add(int(self._places[place]) // 4 // (STEPS + 1))
            best[owner] = max(best.get(owner, 0.0), agreement)
            first[owner] = min(offset, first.get(owner, offset))
        matches = [RowMatch(o, len(p), best[o], first[o]) for o, p in found.items()]
        return sorted(matches, key=lambda match: -match.windows)

    def search(self, line: NDArray[np.float32]) -> list[RowMatch]:
        """Return the samples of which windows stand in the line: inverted, mirrored or not."""
        return self.matches(self.hits(line))
