"""Look once more for text, in a published picture: runs in the decoder process."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from deid import stills
from deid.dicom import display
from deid.dicom.decode import stored
from deid.pixels.interface import Box, TextDetector
from deid.quarantine import Quarantined

SEEN_FRAMES = 64
"""Looks at one file, of which many frames are grouped; more are not looked at, and it is said."""

SHORTEST_SIDE = 10
"""Pixels of the longer side: three letters of the smallest raster type (3x5) take eleven."""


def text_in(
    data: bytes, detector: TextDetector, alive: Callable[[], None] = lambda: None
) -> tuple[list[Box], bool]:
    """Boxes in which something could be read, and whether every frame was seen by itself."""
    shown, whole = _pictures(data)
    found = []
    for picture in shown:
        for box in detector.detect(np.ascontiguousarray(picture)):
            inside = picture[box.y : box.bottom, box.x : box.right]
            # What was masked before has no edge in it; a detector may still answer there.
            if max(box.width, box.height) >= SHORTEST_SIDE and np.ptp(inside):
                found.append(box)
        alive()
    return found, whole


def _pictures(data: bytes) -> tuple[Iterable[NDArray[np.uint8]], bool]:
    if data[128:132] != b"DICM":
        return stills.some(data, SEEN_FRAMES), stills.how_many(data) <= SEEN_FRAMES
    header = dcmread(io.BytesIO(data), stop_before_pixels=True)
    if "Rows" not in header:
        raise Quarantined("no-pixels")
    dataset, frames, properties = stored(data)
    palette: Any = dataset if "RedPaletteColorLookupTableDescriptor" in dataset else None
    looks = list(islice(display.looks(frames), SEEN_FRAMES + 1))
    whole = len(looks) <= SEEN_FRAMES and frames.shape[0] <= display.EACH_FRAME
    shown = [
        picture for look in looks[:SEEN_FRAMES]
        for picture in display.pictures(look, properties, palette)
    ]  # fmt: skip
    return shown, whole
