"""Stored values to the 8-bit pictures that people, and detectors, look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut, convert_color_space

SAMPLED_FRAMES = 3
_SUBSAMPLE = 1 << 16


def stretched(frame: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Grey values from ``low`` to ``high`` as 0 to 255."""
    scale = 255.0 / max(high - low, 1e-9)
    values = (frame.astype(np.float32) - np.float32(low)) * np.float32(scale)
    return np.asarray(np.clip(values, 0, 255), dtype=np.uint8)


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
        return [(shown >> 8).astype(np.uint8) if shown.dtype.itemsize > 1 else shown]
    return grey(frame, inverted=photometric == "MONOCHROME1")


def looks(frames: NDArray[Any]) -> list[NDArray[Any]]:
    """What to look at of ``[frames, rows, columns(, samples)]``.

    All of a few frames; of many, the maximum and minimum over all of them, which show a text that
    stands in one frame only, and some frames themselves.
    """
    count = frames.shape[0]
    if count <= SAMPLED_FRAMES:
        return list(frames)
    chosen = sorted({0, count // 2, count - 1})
    return [frames.max(axis=0), frames.min(axis=0), *(frames[index] for index in chosen)]
