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
from deid.dicom.encode import encoded
from deid.dicom.samples import PIXEL_TAGS, check_range
from deid.pixels.interface import Box, TextDetector, joined

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
    """What was found; ``pixels`` are little-endian native values where they were rewritten.

    Where ``lengths`` are given, they are codestreams, one a frame, that decode to the same values.
    """

    boxes: tuple[Box, ...]
    attributes: Mapping[str, Any]
    pixels: bytes | None
    doubt: str = ""  # why a person has to look at the file, if so
    lengths: tuple[int, ...] = ()  # of each frame's codestream, where ``pixels`` are those


def stored(data: bytes | io.BytesIO) -> tuple[Dataset, NDArray[Any], dict[str, Any]]:
    """A DICOM file's stored values as ``[frames, rows, columns(, samples)]`` with properties.

    A stream is closed, and the data set has no pixel data: their memory is given back.
    """
    source = data if isinstance(data, io.BytesIO) else io.BytesIO(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(source, force=True)
        source.close()
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        array, properties = decoder.as_array(dataset, as_rgb=False)  # type: ignore[arg-type]
    for tag in PIXEL_TAGS:
        if tag in dataset:
            del dataset[tag]
    if int(dataset.get("NumberOfFrames") or 1) <= 1 and array.ndim == 2 + (
        int(properties["samples_per_pixel"]) > 1
    ):
        array = array[np.newaxis]
    photometric = str(properties["photometric_interpretation"])
    properties["photometric_interpretation"] = FULL.get(photometric, photometric)
    return dataset, array, dict(properties)


# In equalised noise and among calcifications a network sees letters, smaller than letters are.
LEAST_HEIGHT, LEAST_WIDTH = 9, 16  # pixels
SURE_DOWNWARDS = 0.97
"""How sure what is higher than wide must be by ranks: skin before noise looks like it."""
LONG_EDGE, LEAST_STEP, BACK = 64, 16, 0.02
"""Pixels of an edge, the grey values that it rises by of 255, and the share that it may fall."""
STEEP_EDGE, STEP, HILL = 36, 64, 0.35
"""The same of an edge with a rim, as skin has; rises are then of means, not of single lines."""


class Search:
    """The search for text in the frames of one file, which may come in batches."""

    def __init__(self, detector: TextDetector | None, count: int) -> None:
        self._detector = detector
        self._looks = display.Looks(count)
        self._boxes: list[Box] = []
        self.doubt = "" if detector is None or display.sees_all(count) else MANY_FRAMES
        self.shades = Shades()

    def add(self, dataset: Dataset, frames: NDArray[Any], properties: Mapping[str, Any]) -> None:
        """Look at the next frames."""
        self.shades.add(frames, palette=properties["photometric_interpretation"] == PALETTE)
        if self._detector is None:
            return
        palette = dataset if "RedPaletteColorLookupTableDescriptor" in dataset else None
        for look in self._looks.add(frames):
            shown = display.pictures(look, properties, palette)
            while shown:
                self._boxes.extend(self._detector.detect(np.ascontiguousarray(shown.pop())))
            low = display.low_byte(look) if palette is None else None
            if low is not None:
                self._boxes.extend(self._detector.detect(low))
            if look.ndim == 2 and look.min() < look.max():
                ranks = display.equalised(look)
                self._boxes.extend(
                    box
                    for box in self._detector.glance(ranks)
                    if min(box.width, box.height) >= LEAST_HEIGHT
                    and max(box.width, box.height) >= LEAST_WIDTH
                    and (box.width >= box.height or box.score >= SURE_DOWNWARDS)
                    and not _is_edge(ranks, box)
                )

    def boxes(self) -> list[Box]:
        """The union of the boxes of every look."""
        return joined(self._boxes)


def _is_edge(ranks: NDArray[np.uint8], box: Box) -> bool:
    """Whether a long box lies over the edge of a flat part, and no line of writing does.

    By ranks, the last trace of noise at such an edge looks like a row of strokes. Across an edge
    the mean over its length only rises, or only falls; across writing it comes back. Skin before
    noise has a bright rim, but one third of the box is the body and another the background.
    """
    if max(box.width, box.height) < STEEP_EDGE:
        return False
    inside = ranks[box.y : box.bottom, box.x : box.right]
    profile = inside.mean(axis=1 if box.width >= box.height else 0)
    third = max(1, len(profile) // 3)
    if abs(profile[-third:].mean() - profile[:third].mean()) >= STEP:
        few = len(profile) // 4 * 4
        if _only_rises(profile[:few].reshape(-1, 4).mean(axis=1), STEP, HILL):
            return True
    return max(box.width, box.height) >= LONG_EDGE and _only_rises(profile, LEAST_STEP, BACK)


def _only_rises(profile: NDArray[np.float64], least: float, back: float) -> bool:
    """Whether values rise or fall by ``least``, and come back by at most a share of that."""
    steps = np.diff(profile if profile[-1] >= profile[0] else profile[::-1])
    risen = float(abs(profile[-1] - profile[0]))
    return risen >= least and float(-steps[steps < 0].sum()) <= back * risen


PALETTE = "PALETTE COLOR"


class Shades:
    """The least and the greatest value of frames, and with a palette all that are used."""

    def __init__(self) -> None:
        self._ends: list[int | float] = []
        self._used: set[int] = set()

    def add(self, frames: NDArray[Any], *, palette: bool) -> None:
        """Count the values of more frames."""
        if frames.ndim == 4 or not frames.size:
            return
        if palette:
            seen = np.zeros(1 << (8 * frames.dtype.itemsize), bool)
            seen[frames.reshape(-1)] = True  # a negative index counts from the end
            self._used.update(int(each) for each in np.flatnonzero(seen).astype(frames.dtype))
        finite = np.nan_to_num(frames) if frames.dtype.kind == "f" else frames
        ends = [finite.min(), finite.max()]
        real = float if frames.dtype.kind == "f" else int
        self._ends = [real(min([*self._ends[:1], ends[0]])), real(max([*self._ends[1:], ends[1]]))]

    def black(self, dataset: Dataset, photometric: str, samples: int) -> Sequence[int | float]:
        """The stored value of black for each sample of a pixel."""
        if photometric.startswith("YBR"):
            middle = 1 << (int(dataset.BitsStored) - 1)
            return (0, middle, middle)
        if samples > 1:
            return [0] * samples
        if photometric == PALETTE and "RedPaletteColorLookupTableDescriptor" in dataset:
            used = np.array(sorted(self._used))
            shown = np.asarray(apply_color_lut(used.reshape(1, -1), dataset)).astype(np.int64)
            return (int(used[int(shown.sum(axis=-1).argmin())]),)
        return (self._ends[1] if photometric == "MONOCHROME1" else self._ends[0],)


def masked(frames: NDArray[Any], boxes: Sequence[Box], fill: Sequence[int | float]) -> NDArray[Any]:
    """The frames with every box filled, in place if they can be; all outside is unchanged."""
    result = frames if frames.flags.writeable else frames.copy()
    rows, columns = frames.shape[1:3]
    value = fill if frames.ndim == 4 else fill[0]
    for box in boxes:
        inside = box.clipped(rows, columns)
        if inside is not None:
            result[:, inside.y : inside.bottom, inside.x : inside.right] = value
    return result


def examine(
    data: bytes | io.BytesIO,
    detector: TextDetector | None,
    *,
    rewrite: bool,
    marks: Sequence[Box] = (),
    fill: Sequence[int | float] | None = None,
    family: str = "",
) -> Examined:
    """Look for text in a file's frames and mask it; ``rewrite`` gives the values in any case.

    ``marks`` are boxes that somebody has drawn already. ``fill`` is the stored black where the
    file is a part of a larger one. ``family`` is a transfer syntax to encode in, if that can be
    done without loss.

    Raises whatever the decoders raise: the caller quarantines the file.
    """
    dataset, frames, properties = stored(data)
    del data
    boxes = list(marks)
    doubt = ""
    search = Search(detector, len(frames))
    if fill is None and (detector is not None or marks):
        search.add(dataset, frames, properties)
        boxes += search.boxes()
        doubt = search.doubt
    if not boxes and not rewrite:
        return Examined((), {}, None, doubt)
    photometric = str(properties["photometric_interpretation"])
    samples = int(properties["samples_per_pixel"])
    if boxes:
        black = search.shades.black(dataset, photometric, samples) if fill is None else fill
        frames = masked(frames, boxes, black)
    bits = 1 if int(dataset.get("BitsAllocated") or 0) == 1 else frames.dtype.itemsize * 8
    attributes = {
        "PhotometricInterpretation": photometric,
        "SamplesPerPixel": samples,
        "BitsAllocated": bits,
        "Rows": int(frames.shape[1]),
        "Columns": int(frames.shape[2]),
        "frames": int(frames.shape[0]),
    }
    if bits == 1:
        pixels = bytes(pack_bits(frames, pad=False))
        return Examined(tuple(boxes), attributes, pixels, doubt)
    if family:
        held = int(dataset.get("BitsStored") or bits)
        check_range(frames.tobytes(), bits, held, signed=frames.dtype.kind == "i")
        coded = encoded(frames, attributes, held, family)
        if coded is not None:
            lengths = tuple(len(each) for each in coded)
            return Examined(tuple(boxes), attributes, b"".join(coded), doubt, lengths)
    little = np.ascontiguousarray(frames).astype(frames.dtype.newbyteorder("<"), copy=False)
    return Examined(tuple(boxes), attributes, little.tobytes(), doubt)


def search_part(
    search: Search, data: bytes | io.BytesIO
) -> tuple[list[Box], Sequence[int | float]]:
    """Look at the next frames of a file; the boxes and the stored black of all so far."""
    dataset, frames, properties = stored(data)
    search.add(dataset, frames, properties)
    photometric = str(properties["photometric_interpretation"])
    black = search.shades.black(dataset, photometric, int(properties["samples_per_pixel"]))
    return search.boxes(), black
