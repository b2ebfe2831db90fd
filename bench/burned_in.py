"""Pictures with a name drawn into them, and how much of its ink is still there afterwards."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pixel_array
from scipy import ndimage

from synthetic import canaries_in_structure, dicom_files
from synthetic.lettering import open_font

NOTE = "HWANGBO MYUNGHEE 7712345K"
SIZE = 24
SHAPE = (256, 512)
# A name is gone when no more than this share of its ink has the value that it had.
LEFT = 0.02
Pixels = NDArray[np.generic]


@dataclass(frozen=True)
class Burned:
    """A place: the file, and whether what a tool made of it still shows the name."""

    name: str
    file: bytes
    survives: Callable[[bytes], bool]


def places() -> list[Burned]:
    """Every kind of picture in which text hides from a search of bytes."""
    ink = _ink(SHAPE)
    grey = _background(SHAPE, 8)
    grey[ink] = 255
    deep = _background(SHAPE, 12)
    deep[ink] = 65535
    dark = np.asarray(_background(SHAPE, 12), np.uint16) + np.uint16(200)
    dark[ink] = 1  # bright in MONOCHROME1, and not the 0 that tools blank with
    colour = np.stack([_background(SHAPE, 8, seed) for seed in (1, 2, 3)], axis=2)
    colour[ink] = (255, 255, 0)
    frames = np.stack([_background(SHAPE, 8, seed) for seed in range(9)])
    frames[3][ink] = 255
    on_one_frame = np.zeros(frames.shape, bool)
    on_one_frame[3] = ink
    device_shape = (768, 1024)
    on_device = _ink(device_shape)
    device = _background(device_shape, 8)
    device[on_device] = 255
    ramp = (np.arange(256, dtype="<u2") * 257).tobytes()
    palette: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for each in ("Red", "Green", "Blue"):
        palette[f"{each}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palette[f"{each}PaletteColorLookupTableData"] = ramp
    capture = dicom_files.SC
    return [
        _drawn("secondary capture", grey, ink, capture),
        _drawn("BurnedInAnnotation NO that lies", grey, ink, capture, BurnedInAnnotation="NO"),
        _drawn("text at the maximum of 16 bits", deep, ink, capture),
        _drawn(
            "MONOCHROME1", dark, ink, capture, PhotometricInterpretation="MONOCHROME1"
        ),
        _drawn("palette", grey, ink, capture, **palette),
        _drawn(
            "colour", colour, ink, capture, SamplesPerPixel=3, PlanarConfiguration=0,
            PhotometricInterpretation="RGB",
        ),
        _drawn(
            "one frame of nine", frames, on_one_frame, "1.2.840.10008.5.1.4.1.1.7.2",
            NumberOfFrames=9,
        ),
        _drawn("JPEG", grey, ink, capture, jpeg=True),
        _drawn(
            "ultrasound of a known device", device, on_device, "1.2.840.10008.5.1.4.1.1.6.1",
            Modality="US", Manufacturer="GE Healthcare", ManufacturerModelName="LOGIQE9",
            BodyPartExamined="ABDOMEN", StudyDescription="Abdomen",
        ),
        Burned("unused high bits of words", canaries_in_structure.unused_high_bits(), _high_bits),
    ]  # fmt: skip


def _drawn(
    name: str,
    pixels: Pixels,
    ink: NDArray[np.bool_],
    sop_class: str,
    *,
    jpeg: bool = False,
    **attributes: Any,
) -> Burned:
    data = dicom_files.base(sop_class, "OT")
    data.Rows, data.Columns = ink.shape[-2:]
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit = data.BitsStored - 1
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    data.PixelData = pixels.tobytes()
    syntax = "1.2.840.10008.1.2.1"
    if jpeg:
        frame = io.BytesIO()
        Image.fromarray(pixels).save(frame, "JPEG", quality=95)
        data.PixelData = encapsulate([frame.getvalue()])
        data["PixelData"].is_undefined_length = True
        data.LossyImageCompression, syntax = "01", dicom_files.JPEG_BASELINE
    file = dicom_files.written(data, syntax)
    before = decoded(file)
    assert before is not None

    def survives(output: bytes) -> bool:
        after = decoded(output)
        if after is None and b"\xe0\x7f\x10\x00" not in output:
            return False  # no pixels at all
        if after is None or after.shape != before.shape:
            # A picture that cannot be compared is not shown to be clean.
            return True
        same = after == before
        if same.ndim > ink.ndim:
            same = same.all(axis=-1)  # a colour is gone when any of its parts is
        return float(same[ink].mean()) > LEFT

    return Burned(name, file, survives)


def _high_bits(output: bytes) -> bool:
    pixels = pydicom.dcmread(io.BytesIO(output), force=True).get("PixelData", b"")
    return bool((np.frombuffer(pixels, "<u2") >> 12).any())


def decoded(file: bytes) -> Pixels | None:
    """The stored values of all frames; None where nothing here decodes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(io.BytesIO(file), force=True)
            return np.asarray(pixel_array(dataset, raw=True))
        # Strangers' bytes in strangers' decoders: any exception means the same here.
        except Exception:
            return None


def _ink(shape: tuple[int, int]) -> NDArray[np.bool_]:
    drawn = Image.new("L", shape[::-1])
    ImageDraw.Draw(drawn).text((20, 24), NOTE, font=open_font(NOTE, SIZE), fill=255)
    return np.asarray(drawn) > 127


def _background(shape: tuple[int, int], bits: int, seed: int = 5) -> Pixels:
    """A smooth picture in the lower quarter of its bits, never of 0."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, shape), 12)
    smooth = (noise - noise.min()) / (noise.max() - noise.min())
    return np.asarray(1 + smooth * (1 << (bits - 2))).astype("<u2" if bits > 8 else "u1")
