"""A file as a picture for people, drawn in the decoder process."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from deid.dicom import display
from deid.dicom.decode import stored

LARGEST_SIDE = 2048


def picture_of(data: bytes, side: int = 0) -> tuple[dict[str, int], bytes]:
    """A DICOM file or a photograph as PNG, at most 2048 wide; as a small JPEG with a ``side``.

    Of several frames the brightest of each pixel is shown, so that a text of any frame is seen.

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
        image = _photo(data)
    size = {"width": image.width, "height": image.height}
    image.thumbnail((side or LARGEST_SIDE, side or LARGEST_SIDE))
    target = io.BytesIO()
    if side:
        image.convert("RGB").save(target, "JPEG", quality=80)
    else:
        image.save(target, "PNG")
    return size, target.getvalue()


def _photo(data: bytes) -> Image.Image:
    """A photograph as it is meant to be seen, without anything but its pixels."""
    with Image.open(io.BytesIO(data)) as opened:
        turned = ImageOps.exif_transpose(opened)
        mode = "RGBA" if "A" in turned.getbands() else "RGB"
        return Image.fromarray(np.asarray(turned.convert(mode)))


def masked_photo(data: bytes, marks: list[list[int]]) -> bytes:
    """A cleaned photograph with boxes filled, in its own format; other pixels as decoded."""
    with Image.open(io.BytesIO(data)) as opened:
        kind = opened.format or ""
    image = _photo(data)
    pen = ImageDraw.Draw(image)
    for x, y, width, height in marks:
        pen.rectangle((x, y, x + width - 1, y + height - 1), fill=0)
    target = io.BytesIO()
    if kind == "JPEG":
        image.convert("RGB").save(target, "JPEG", quality=95, subsampling=0)
    elif kind in ("PNG", "TIFF"):
        image.save(target, kind)
    else:
        raise ValueError("not a format that is published")
    return target.getvalue()
