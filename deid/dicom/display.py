"""Stored values to the 8-bit pictures that people, and detectors, look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut, convert_color_space

from deid.dicom.moments import Moments

EACH_FRAME = 8
"""So many frames are looked at one by one; of more, a few of each group are."""

_SUBSAMPLE = 1 << 16
_BAND = 1 << 20
_ALIKE = 0.5


def _bands(frame: NDArray[Any]) -> Iterator[tuple[slice, NDArray[Any]]]:
    """A frame in bands of rows: what is computed with wider numbers is computed band by band."""
    rows = max(1, _BAND // max(1, frame[0].size))
    for start in range(0, len(frame), rows):
        yield slice(start, start + rows), frame[start : start + rows]


def stretched(frame: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Grey values from ``low`` to ``high`` as 0 to 255."""
    scale = np.float32(255.0 / max(high - low, 1e-9))
    result = np.empty(frame.shape, np.uint8)
    for band, values in _bands(frame):
        wide = (values.astype(np.float32) - np.float32(low)) * scale
        result[band] = np.clip(wide, 0, 255)
    return result


def grey(frame: NDArray[Any], *, inverted: bool) -> list[NDArray[np.uint8]]:
    """One or two pictures of a grey frame ``[rows, columns]``.

    The first spans the usual values, the second, where a few values lie far outside of them (text
    at the maximum of 16 bits over an image of 12), all values.
    """
    finite = np.nan_to_num(frame) if frame.dtype.kind == "f" else frame
    flat = finite.reshape(-1)
    sample = flat[:: max(1, flat.size // _SUBSAMPLE)]
    low, high = (float(value) for value in np.percentile(sample, (1, 99)))
    least, most = float(flat.min()), float(flat.max())
    if most <= least:
        return []
    if high - low >= 0.5 * (most - least):
        pictures = [stretched(finite, least, most)]
    else:
        pictures = [stretched(finite, low, high)] if high > low else []
        pictures.append(stretched(finite, least, most))
    return [255 - picture if inverted else picture for picture in pictures]


def equalised(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values ``[rows, columns]`` by their rank among all pixels, as 0 to 255.

    Every value gets as much of the scale as it has pixels: what a viewer sees with a narrow
    window, be it a few values above a background of thousands, stands out.
    """
    frame = np.nan_to_num(frame) if frame.dtype.kind == "f" else frame
    if frame.dtype.kind == "f" or frame.dtype.itemsize > 2:
        lowest, highest = float(frame.min()), float(frame.max())
        scaled = np.empty(frame.shape, np.uint16)
        for band, values in _bands(frame):
            scaled[band] = (values.astype(np.float64) - lowest) * (
                65535 / max(highest - lowest, 1e-9)
            )
        frame = scaled
    least, most = int(frame.min()), int(frame.max())
    counts = np.zeros(most - least + 1, np.int64)
    for _band, values in _bands(frame):
        counts += np.bincount((values.astype(np.int32) - least).ravel(), minlength=len(counts))
    ranks = np.cumsum(counts) - counts / 2
    seen = ranks[counts > 0]
    low, high = float(seen[0]), float(seen[-1])
    table = np.clip((ranks - low) * (255 / max(high - low, 1e-9)), 0, 255).astype(np.uint8)
    result = np.empty(frame.shape, np.uint8)
    for band, values in _bands(frame):
        result[band] = table[values.astype(np.int32) - least]
    return result


def low_byte(frame: NDArray[Any]) -> NDArray[np.uint8] | None:
    """The low bytes of a 16-bit frame ``[rows, columns]`` where they are a picture of their own.

    So they are if neighbours that differ mostly do so by whole multiples of 256: an ordinary
    picture changes in its low bytes first (of the values of clean files below a third), and one
    whose low bytes hold another does not show it in any window.
    """
    if frame.ndim != 2 or frame.dtype.kind not in "iu" or frame.dtype.itemsize != 2:
        return None
    differ = frame[:, 1:] ^ frame[:, :-1]
    changes = np.count_nonzero(differ)
    alike = np.count_nonzero(differ & 255 == 0) - (differ.size - changes)
    low = (frame & 255).astype(np.uint8)
    return low if alike > _ALIKE * changes and low.min() < low.max() else None


def colour(frame: NDArray[Any], photometric: str, bits: int) -> NDArray[np.uint8]:
    """A colour frame ``[rows, columns, 3]`` as red, green, blue."""
    shifted = (frame >> (bits - 8)).astype(np.uint8) if bits > 8 else frame.astype(np.uint8)
    if photometric.startswith("YBR"):
        return np.asarray(convert_color_space(shifted, "YBR_FULL", "RGB"))
    return shifted


def pictures(
    frame: NDArray[Any], properties: Mapping[str, Any], palette: Dataset | None
) -> list[NDArray[np.uint8]]:
    """The pictures of one frame by its photometric interpretation (PS3.3 C.7.6.3.1.2)."""
    photometric = str(properties["photometric_interpretation"])
    if frame.ndim == 3:
        return [colour(frame, photometric, int(properties["bits_stored"]))]
    if photometric == "PALETTE COLOR" and palette is not None:
        shown = np.asarray(apply_color_lut(frame, palette))
        shown = (shown >> 8).astype(np.uint8) if shown.dtype.itemsize > 1 else shown
        # Two numbers of one colour look the same, and are told apart by whoever reads the numbers.
        return [shown, *grey(frame, inverted=False)]
    return grey(frame, inverted=photometric == "MONOCHROME1")


class Looks:
    """What to look at of ``count`` frames ``[rows, columns(, samples)]`` that come in batches.

    Each of a few frames. Of many, some frames and pictures put together of the others, see
    :class:`~deid.dicom.moments.Moments`: a text that is nowhere the sharpest of its place may be
    missed, so :func:`sees_all` says that a person has to look.
    """

    def __init__(self, count: int) -> None:
        self._moments = Moments(count) if count > EACH_FRAME else None

    def add(self, frames: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """The looks that these frames, which follow the former ones, make possible."""
        return iter(frames) if self._moments is None else self._moments.add(frames)


def looks(frames: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """What to look at of ``[frames, rows, columns(, samples)]``, see :class:`Looks`."""
    return Looks(len(frames)).add(frames)


def sees_all(frames: int) -> bool:
    """Whether :func:`looks` gives every frame as it is."""
    return frames <= EACH_FRAME
