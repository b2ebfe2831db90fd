"""Masking boxes, and nothing but the boxes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from deid.pixels.interface import Box

Pixels = TypeVar("Pixels", bound=np.generic)


def redact(
    array: np.ndarray[tuple[int, ...], np.dtype[Pixels]],
    boxes: Iterable[Box],
    *,
    fill: int | float = 0,
    rows_axis: int = 0,
) -> np.ndarray[tuple[int, ...], np.dtype[Pixels]]:
    """A copy of ``array`` with every box filled; all samples outside the boxes are unchanged.

    ``array`` is a picture of any sample type. ``rows_axis`` is the axis of the rows, the columns
    follow it: 0 for ``[rows, columns(, channels)]``, 1 for ``[frames, rows, columns(, channels)]``,
    where every frame is masked. ``fill`` is the stored value of black (MONOCHROME1 stores black as
    its maximum). Boxes are clipped to the picture.

    A solid fill, because recognisers undo blur. Raises :class:`ValueError` when ``fill`` cannot be
    stored exactly: a wrapped value could be anything but black.
    """
    stored = np.asarray(fill).astype(array.dtype)
    if stored != fill:
        raise ValueError("The fill value does not fit the sample type of the picture.")
    masked = array.copy()
    rows, columns = array.shape[rows_axis], array.shape[rows_axis + 1]
    before = (slice(None),) * rows_axis
    for box in boxes:
        inside = box.clipped(rows, columns)
        if inside is not None:
            masked[(*before, slice(inside.y, inside.bottom), slice(inside.x, inside.right))] = (
                stored
            )
    return masked
