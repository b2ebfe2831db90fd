"""Of many frames, the few to look at: some as they are, some put together of their pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

GROUP = 128
"""Frames from one that is looked at in any case to the next."""

SUDDEN = 1
"""Frames of a group that are looked at because a place differs most from those beside them."""

TILE = 32
"""Pixels of a side of a place."""

LAGS = (0, 1)
"""A place is judged alone, and by the frames so long before and after."""

_NATIVE = (np.uint8, np.uint16, np.int16, np.float32)
Scores = NDArray[np.float32]


def sampled(count: int) -> list[int]:
    """The numbers of the frames that are looked at in any case."""
    return sorted({*range(0, count, GROUP), count - 1})


class Moments:
    """What to look at of ``count`` frames ``[rows, columns(, samples)]`` that come in batches.

    Writing is thin. How much in each place is, is measured in every frame and compared with the
    frames before and after it. Of each group are looked at: its first frame; those in which a
    place suddenly has most; and one picture for each of LAGS, which shows every place at the moment
    at which it had most. Those consist of pieces of real frames: what neither is the sharpest of
    its place nor comes and goes may be missing from all.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._ends = set(sampled(count))
        self._seen = 0
        self._frames: dict[int, NDArray[Any]] = {}
        self._scores: dict[int, Scores] = {}
        self._begin()

    def _begin(self) -> None:
        self._patchworks = {lag: _Patchwork() for lag in LAGS}
        self._sudden: list[tuple[float, int, NDArray[Any]]] = []

    def add(self, frames: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """The pictures, of stored values, that these frames make possible."""
        for frame in frames:
            number, self._seen = self._seen, self._seen + 1
            self._frames[number], self._scores[number] = frame, thinness(frame)
            self._judge(number)
            self._frames.pop(number - max(LAGS), None)
            self._scores.pop(number - 2 * max(LAGS), None)
            if number not in self._ends:
                continue
            yield frame
            yield from (sudden for _score, _number, sudden in self._sudden)
            for patchwork in self._patchworks.values():
                if patchwork.picture is not None:
                    yield patchwork.picture
            self._begin()
        # What comes next may be decoded into the same memory.
        self._frames = {number: frame.copy() for number, frame in self._frames.items()}
        self._sudden = [(score, number, each.copy()) for score, number, each in self._sudden]

    def _judge(self, number: int) -> None:
        """Compare the frames whose later neighbour this one is."""
        last = self._count - 1
        for lag, patchwork in self._patchworks.items():
            for middle in range(number - lag, last if number == last else number - lag + 1):
                if middle < 0 or middle in self._ends:
                    continue
                frame, scores = self._frames[middle], self._scores[middle]
                if lag:
                    before = self._scores[max(0, middle - lag)]
                    after = self._scores[min(last, middle + lag)]
                    scores = scores - np.maximum(before, after)
                if lag == 1:
                    found = [*self._sudden, (float(scores.max()), middle, frame)]
                    self._sudden = sorted(found, key=lambda each: -each[0])[:SUDDEN]
                patchwork.offer(frame, scores)


class _Patchwork:
    """A picture that keeps the best of each place."""

    def __init__(self) -> None:
        self.picture: NDArray[Any] | None = None
        self._best: Scores | None = None

    def offer(self, frame: NDArray[Any], scores: Scores) -> None:
        """Take the places that are better than before, with those beside them: lines go on."""
        scores = np.asarray(cv2.dilate(scores, np.ones((3, 5), np.uint8)))
        if self.picture is None or self._best is None:
            self.picture, self._best = frame.copy(), scores
            return
        down, across = (
            np.linspace(0, side, parts + 1).round().astype(int)
            for side, parts in zip(frame.shape, scores.shape, strict=False)
        )
        for row, column in np.argwhere(scores > self._best):
            place = np.s_[down[row] : down[row + 1], across[column] : across[column + 1]]
            self.picture[place] = frame[place]
        self._best = np.maximum(self._best, scores)


def thinness(frame: NDArray[Any]) -> Scores:
    """How much stands out of its surroundings as strokes of a few pixels do, for each place."""
    if frame.dtype not in _NATIVE or (frame.dtype == np.uint8 and frame.max() < 32):
        frame = np.nan_to_num(frame.astype(np.float32))
    rows, columns = frame.shape[:2]
    half = (max(1, columns // 2), max(1, rows // 2))  # noise is less and strokes are still there
    smaller = cv2.resize(frame, half, interpolation=cv2.INTER_AREA)
    strokes = cv2.absdiff(smaller, cv2.blur(smaller, (5, 5)))
    size = (max(1, columns // TILE), max(1, rows // TILE))
    places = cv2.resize(strokes, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(places if places.ndim == 2 else places.max(axis=2))
