"""Compare tensors, viewed as pictures, with training samples: small copies of both, correlated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sandbox_runner.inspection.samples import Sample
from sandbox_runner.sdk.glovebox.pictures import resize_by_area

SIDE: Final = 24
LEAST_ELEMENTS: Final = 256
VIEWS_A_TENSOR: Final = 512
_TOGETHER: Final = 64
_LARGE: Final = 1 << 21


@dataclass(frozen=True)
class Likeness:
    """The sample that one view of a tensor is most like, and how much (Pearson)."""

    sample: int
    correlation: float
    rows: int
    columns: int
    offset: int


_RAMP = np.linspace(-1.0, 1.0, SIDE)
_PLANE = np.stack([np.ones(SIDE * SIDE), np.repeat(_RAMP, SIDE), np.tile(_RAMP, SIDE)], axis=1)
_PLANE_INVERSE = np.linalg.pinv(_PLANE)


def _small(
    picture: NDArray[Any], widen: Callable[[NDArray[Any]], NDArray[np.float32]] = np.asarray
) -> NDArray[np.float32] | None:
    """Return the picture as a unit vector of 24x24 with the plane of its slope taken out."""
    picture = _coarse(picture, widen) if picture.size > _LARGE else widen(picture)
    flat = resize_by_area(picture, (SIDE, SIDE)).reshape(-1)
    flat = flat - _PLANE @ (_PLANE_INVERSE @ flat)
    norm = float(np.linalg.norm(flat))
    if not math.isfinite(norm) or norm < 1e-12:
        return None
    return np.asarray(flat / norm, dtype=np.float32)


def _coarse(
    picture: NDArray[Any], widen: Callable[[NDArray[Any]], NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Return a large picture as means of blocks, at least 512 a side where it had so many.

    A large tensor is never whole in memory as float64; what does not fill a block at its right and
    lower edge, less than 1/512 of it, is left out.
    """
    down, across = (max(1, side // 512) for side in picture.shape)
    rows, columns = picture.shape[0] // down, picture.shape[1] // across
    coarse = np.empty((rows, columns))
    step = max(1, _LARGE // (down * picture.shape[1]))
    for first in range(0, rows, step):
        last = min(rows, first + step)
        part = widen(picture[first * down : last * down, : columns * across])
        blocks = part.reshape(last - first, down, columns, across)
        coarse[first:last] = blocks.mean(axis=(1, 3), dtype=np.float64)
    return coarse


@dataclass
class LikenessIndex:
    """Small copies of all samples, turned and mirrored in the eight ways."""

    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    sides: set[tuple[int, int]] = field(default_factory=set)

    def add(self, number: int, sample: Sample) -> None:
        """Put one sample in; the sizes of its pictures become views to try."""
        self.sides |= {sample.prepared.shape, sample.grey.shape}
        vector = _small(sample.prepared)
        if vector is None:
            return
        square = vector.reshape(SIDE, SIDE)
        for turned in (np.rot90(square, quarter) for quarter in range(4)):
            for view in (turned, turned.T):
                self.vectors.append(np.ascontiguousarray(view).reshape(-1))
                self.owners.append(number)

    def close(self) -> None:
        """Put the copies together, one row each."""
        self._index = (
            np.stack(self.vectors) if self.vectors else np.zeros((0, SIDE * SIDE), np.float32)
        )
        self.vectors = []

    def search(
        self,
        array: NDArray[Any],
        widen: Callable[[NDArray[Any]], NDArray[np.float32]] = np.asarray,
    ) -> Likeness | None:
        """Return the best likeness of any view of the tensor, or None where there is no view.

        ``array`` is as stored; ``widen`` makes numbers of a part of it.
        """
        if not len(self._index):
            return None
        views = [
            (v, view.shape, at)
            for view, at in self._views(array)
            if (v := _small(view, widen)) is not None
        ]
        best: Likeness | None = None
        for start in range(0, len(views), _TOGETHER):
            some = views[start : start + _TOGETHER]
            products = np.abs(self._index @ np.stack([v for v, _, _ in some]).T)
            row, column = np.unravel_index(int(products.argmax()), products.shape)
            value = float(products[row, column])
            if best is None or value > best.correlation:
                _, (rows, columns), offset = some[column]
                best = Likeness(self.owners[row], value, rows, columns, offset)
        return best

    def _views(self, array: NDArray[Any]) -> Iterator[tuple[NDArray[Any], int]]:
        flat = array.reshape(-1)
        if len(flat) < LEAST_ELEMENTS:
            return
        shapes = {(math.prod(array.shape[:-1]), array.shape[-1])}
        shapes.add((array.shape[0], math.prod(array.shape[1:])))
        root = math.isqrt(len(flat))
        shapes.add((root, root))
        shapes |= {side for side in self.sides if side[0] * side[1] <= len(flat)}
        shapes |= {(side[1], side[0]) for side in self.sides if side[0] * side[1] <= len(flat)}
        # Each row of a matrix may be a whole picture, stored flat.
        if array.ndim >= 2:
            each = math.prod(array.shape[1:])
            width = math.isqrt(each)
            if width * width == each and width >= 16:
                shapes.add((width, width))
        given = 0
        for rows, columns in sorted(shapes):
            if min(rows, columns) < 12 or max(rows, columns) > 64 * min(rows, columns):
                continue
            step = rows * columns
            for offset in range(0, len(flat) - step + 1, step):
                if given >= VIEWS_A_TENSOR:
                    return
                given += 1
                yield flat[offset : offset + step].reshape(rows, columns), offset
