"""Compare tensors, viewed as pictures, with training samples: small copies of both, correlated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sandbox_runner.inspection.samples import Sample
from sandbox_runner.sdk.glovebox.pictures import resize_by_area

SIDE: Final = 24
LEAST_ELEMENTS: Final = 256
VIEWS_A_TENSOR: Final = 512


@dataclass(frozen=True)
class Likeness:
    """The sample that one view of a tensor is most like, and how much (Pearson)."""

    sample: int
    correlation: float
    rows: int
    columns: int
    offset: int


def _small(picture: NDArray[Any]) -> NDArray[np.float32] | None:
    """Return the picture as a unit vector of 24x24 with the plane of its slope taken out."""
    small = resize_by_area(picture, (SIDE, SIDE))
    ramp = np.linspace(-1.0, 1.0, SIDE)
    design = np.stack([np.ones(SIDE * SIDE), np.repeat(ramp, SIDE), np.tile(ramp, SIDE)], axis=1)
    flat = small.reshape(-1)
    flat = flat - design @ (np.linalg.pinv(design) @ flat)
    norm = float(np.linalg.norm(flat))
    if not math.isfinite(norm) or norm < 1e-12:
        return None
    return (flat / norm).astype(np.float32)


@dataclass
class LikenessIndex:
    """Small copies of all samples, upright and transposed."""

    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    sides: set[tuple[int, int]] = field(default_factory=set)

    def add(self, number: int, sample: Sample) -> None:
        """Put one sample in; the sizes of its pictures become views to try."""
        self.sides |= {sample.prepared.shape, sample.grey.shape}
        vector = _small(sample.prepared)
        if vector is None:
            return
        for view in (vector, vector.reshape(SIDE, SIDE).T.reshape(-1)):
            self.vectors.append(np.ascontiguousarray(view))
            self.owners.append(number)

    def search(self, array: NDArray[np.float32]) -> Likeness | None:
        """Return the best likeness of any view of the tensor, or None where there is no view."""
        if not self.vectors:
            return None
        index = np.stack(self.vectors)
        best: Likeness | None = None
        for view, offset in self._views(array):
            vector = _small(view)
            if vector is None:
                continue
            products = np.abs(index @ vector)
            place = int(products.argmax())
            value = float(products[place])
            if best is None or value > best.correlation:
                best = Likeness(self.owners[place], value, view.shape[0], view.shape[1], offset)
        return best

    def _views(self, array: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.float32], int]]:
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
