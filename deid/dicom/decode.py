"""Decode, look, mask: the part that runs in a process without keys.

In goes a small DICOM file of pixel attributes only, out come boxes and, where anything had to be
changed, stored values. All samples outside the boxes are those that the decoder gave.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pack_bits

from deid.dicom import display
from deid.pixels.interface import Box, TextDetector, without_contained

# What decoded samples are, where the file's word speaks of how they were compressed or sampled.
FULL = {
    "YBR_FULL_422": "YBR_FULL",
    "YBR_PARTIAL_422": "YBR_FULL",
    "YBR_ICT": "RGB",
    "YBR_RCT": "RGB",
}


MANY_FRAMES = "not every frame searched by itself"


@dataclass(frozen=True)
class Examined:
    """What was found; ``pixels`` are little-endian native values where they were rewritten."""

    boxes: tuple[Box, ...]
    attributes: Mapping[str, Any]
    pixels: bytes | None
    doubt: str = ""  # why a person has to look at the file, if so


def stored(data: bytes) -> tuple[Dataset, NDArray[Any], dict[str, Any]]:
    """A DICOM file's stored values as ``[frames, rows, columns(, samples)]`` with properties."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(io.BytesIO(data), force=True)
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        array, properties = decoder.as_array(dataset, as_rgb=False)  # type: ignore[arg-type]
    if int(dataset.get("NumberOfFrames") or 1) <= 1 and array.ndim == 2 + (
        int(properties["samples_per_pixel"]) > 1
    ):
        array = array[np.newaxis]
    photometric = str(properties["photometric_interpretation"])
    properties["photometric_interpretation"] = FULL.get(photometric, photometric)
    return dataset, array, dict(properties)


# In equalised noise and among calcifications a network sees letters, smaller than letters are.
LEAST_HEIGHT, LEAST_WIDTH = 9, 16  # pixels


def found_in(
    dataset: Dataset, frames: NDArray[Any], properties: Mapping[str, Any], detector: TextDetector
) -> list[Box]:
    """The union of the boxes of every look at the frames."""
    boxes: list[Box] = []
    palette = dataset if "RedPaletteColorLookupTableDescriptor" in dataset else None
    for look in display.looks(frames):
        for picture in display.pictures(look, properties, palette):
            boxes.extend(detector.detect(np.ascontiguousarray(picture)))
        if look.ndim == 2 and look.min() < look.max():
            glanced = detector.glance(display.equalised(look))
            boxes.extend(
                box
                for box in glanced
                if min(box.width, box.height) >= LEAST_HEIGHT
                and max(box.width, box.height) >= LEAST_WIDTH
            )
    return without_contained(boxes)


def black(dataset: Dataset, frames: NDArray[Any], photometric: str) -> Sequence[int | float]:
    """The stored value of black for each sample of a pixel."""
    if photometric.startswith("YBR"):
        middle = 1 << (int(dataset.BitsStored) - 1)
        return (0, middle, middle)
    if frames.ndim == 4:
        return [0] * int(frames.shape[-1])
    if photometric == "PALETTE COLOR" and "RedPaletteColorLookupTableDescriptor" in dataset:
        return (_darkest(dataset, frames),)
    finite = np.nan_to_num(frames) if frames.dtype.kind == "f" else frames
    value = finite.max() if photometric == "MONOCHROME1" else finite.min()
    return (float(value) if frames.dtype.kind == "f" else int(value),)


def _darkest(dataset: Dataset, frames: NDArray[Any]) -> int:
    used = np.unique(frames)
    shown = np.asarray(apply_color_lut(used.reshape(1, -1), dataset)).astype(np.int64)
    return int(used[int(shown.sum(axis=-1).argmin())])


def masked(frames: NDArray[Any], boxes: Sequence[Box], fill: Sequence[int | float]) -> NDArray[Any]:
    """A copy with every box filled in every frame; everything outside is unchanged."""
    result = frames.copy()
    rows, columns = frames.shape[1:3]
    value = fill if frames.ndim == 4 else fill[0]
    for box in boxes:
        inside = box.clipped(rows, columns)
        if inside is not None:
            result[:, inside.y : inside.bottom, inside.x : inside.right] = value
    return result


def examine(
    data: bytes, detector: TextDetector | None, *, rewrite: bool, marks: Sequence[Box] = ()
) -> Examined:
    """Look for text in a file's frames and mask it; ``rewrite`` gives native values in any case.

    ``marks`` are boxes that somebody has drawn already.

    Raises whatever the decoders raise: the caller quarantines the file.
    """
    dataset, frames, properties = stored(data)
    boxes = list(marks)
    if detector is not None:
        boxes += found_in(dataset, frames, properties, detector)
    doubt = "" if detector is None or display.sees_all(len(frames)) else MANY_FRAMES
    if not boxes and not rewrite:
        return Examined((), {}, None, doubt)
    photometric = str(properties["photometric_interpretation"])
    if boxes:
        frames = masked(frames, boxes, black(dataset, frames, photometric))
    bits = 1 if int(dataset.get("BitsAllocated") or 0) == 1 else frames.dtype.itemsize * 8
    attributes = {
        "PhotometricInterpretation": photometric,
        "SamplesPerPixel": int(properties["samples_per_pixel"]),
        "BitsAllocated": bits,
        "Rows": int(frames.shape[1]),
        "Columns": int(frames.shape[2]),
        "frames": int(frames.shape[0]),
    }
    if bits == 1:
        return Examined(tuple(boxes), attributes, bytes(pack_bits(frames, pad=False)), doubt)
    little = np.ascontiguousarray(frames).astype(frames.dtype.newbyteorder("<"), copy=False)
    return Examined(tuple(boxes), attributes, little.tobytes(), doubt)
