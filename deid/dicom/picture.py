"""A file as a picture for people, drawn in the decoder process."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from deid import contact_sheet, stills
from deid.dicom import display
from deid.dicom.decode import stored

LARGEST_SIDE = 2048


def picture_of(data: bytes) -> tuple[dict[str, int], bytes]:
    """A DICOM file, a photograph or a video as PNG, at most 2048 wide.

    Of several frames of DICOM the brightest of each pixel is shown, so that a text of any frame
    is seen; of several pages or frames of anything else, a contact sheet.

    The first value is the size of the image itself, in which boxes are given.
    """
    if data[128:132] == b"DICM" or data[:2] in (b"\x08\x00", b"\x02\x00"):
        dataset, frames, properties = stored(data)
        palette = dataset if "RedPaletteColorLookupTableDescriptor" in dataset else None
        if palette is None:
            dark = str(properties["photometric_interpretation"]) == "MONOCHROME1"
            frame = frames.min(axis=0) if dark else frames.max(axis=0)
        else:
            frame = frames[frames.shape[0] // 2]
        shown = display.pictures(frame, properties, palette)
        image = Image.fromarray(shown[0] if shown else np.zeros(frames.shape[1:3], np.uint8))
    else:
        image = Image.fromarray(contact_sheet.draw(stills.shown(data)))
    size = {"width": image.width, "height": image.height}
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    target = io.BytesIO()
    image.save(target, "PNG")
    return size, target.getvalue()
