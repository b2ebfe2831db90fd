"""The same picture in every transfer syntax and kind of pixel, with writing burned in."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pack_bits
from pydicom.uid import UID, ExplicitVRLittleEndian

from synthetic import dicom_files

SHAPE = (122, 203)
"""Rows and columns; no multiple of eight: frames of single bits then begin within a byte."""

NOTE = "KIM 4711"
MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.2"
NATIVE: Mapping[str, str] = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "big-endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
}
JPEG: Mapping[str, str] = {
    "JPEG baseline": "1.2.840.10008.1.2.4.50",
    "JPEG lossless": "1.2.840.10008.1.2.4.57",
    "JPEG lossless SV1": "1.2.840.10008.1.2.4.70",
}
COMPRESSED: Mapping[str, str] = {
    "RLE": "1.2.840.10008.1.2.5",
    **JPEG,
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG-LS near": "1.2.840.10008.1.2.4.81",
    "JPEG 2000 lossless": "1.2.840.10008.1.2.4.90",
    "JPEG 2000": "1.2.840.10008.1.2.4.91",
}


@dataclass(frozen=True)
class Kind:
    """A kind of pixel: its numbers, and how many frames there are."""

    dtype: str
    stored: int
    photometric: str = "MONOCHROME2"
    frames: int = 1
    planar: int = 0
    allocated: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Samples of a pixel."""
        return 3 if self.photometric.startswith(("RGB", "YBR")) else 1


def _palette() -> dict[str, Any]:
    tables: dict[str, Any] = {}
    ramp = (np.arange(256, dtype="<u2") * 257).tobytes()
    for name in ("Red", "Green", "Blue"):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tables[f"{name}PaletteColorLookupTableData"] = ramp
    return tables


KINDS: Mapping[str, Kind] = {
    "8 bits": Kind("u1", 8),
    "12 of 16 bits": Kind("<u2", 12),
    "16 bits": Kind("<u2", 16),
    "signed 16 bits": Kind("<i2", 16),
    "signed 12 of 16 bits": Kind("<i2", 12),
    "32 bits": Kind("<u4", 32),
    "MONOCHROME1": Kind("<u2", 12, "MONOCHROME1"),
    "palette": Kind("u1", 8, "PALETTE COLOR", extra=_palette()),
    "palette of 16 bits": Kind("<u2", 16, "PALETTE COLOR", extra=_palette()),
    "RGB": Kind("u1", 8, "RGB"),
    "RGB of 16 bits": Kind("<u2", 16, "RGB"),
    "RGB by plane": Kind("u1", 8, "RGB", planar=1),
    "YBR": Kind("u1", 8, "YBR_FULL"),
    "YBR by plane": Kind("u1", 8, "YBR_FULL", planar=1),
    "YBR subsampled": Kind("u1", 8, "YBR_FULL_422"),
    "frames": Kind("u1", 8, frames=3),
    "many frames": Kind("<u2", 12, frames=11),
    "frames in colour": Kind("u1", 8, "RGB", frames=3),
    "single bits": Kind("u1", 1, frames=1, allocated=1),
    "frames of single bits": Kind("u1", 1, frames=11, allocated=1),
}


def strokes() -> NDArray[np.bool_]:
    """The pixels of the writing."""
    import cv2

    drawn = np.zeros(SHAPE, np.uint8)
    cv2.putText(drawn, NOTE, (20, 50), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 2)
    return drawn > 127


def values(kind: Kind, seed: int = 5) -> NDArray[Any]:
    """Stored values ``[frames, rows, columns(, samples)]`` with writing in the last frame."""
    import cv2

    generator = np.random.default_rng(seed)
    shape = SHAPE if kind.photometric != "YBR_FULL_422" else (SHAPE[0], SHAPE[1] - 1)
    top = (1 << kind.stored) - 1
    frames = []
    for number in range(kind.frames):
        planes = []
        for sample in range(kind.samples):
            smooth = cv2.GaussianBlur(generator.normal(0, 1, shape), (0, 0), 9)
            smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
            plane = smooth * top * (0.3 if kind.stored > 1 else 0)
            if kind.photometric.startswith("YBR") and sample:
                plane = np.full(shape, 128.0)
            if number == kind.frames - 1 and not (kind.photometric.startswith("YBR") and sample):
                plane[strokes()[:, : shape[1]]] = top
            planes.append(plane)
        frames.append(np.stack(planes, -1) if kind.samples > 1 else planes[0])
    made = np.stack(frames)
    if kind.photometric == "MONOCHROME1":
        made = top - made
    if kind.dtype[-2] == "i":
        made = made - (1 << (kind.stored - 1))
    return made.round().astype(kind.dtype)


def _native(kind: Kind, stored: NDArray[Any]) -> bytes:
    if kind.allocated == 1:
        return bytes(pack_bits(stored))
    if kind.photometric == "YBR_FULL_422":
        # PS3.3 C.7.6.3.1.2: two brightnesses, then the two colours that they share.
        pairs = stored.reshape(*stored.shape[:2], -1, 2, 3)
        parts = [pairs[..., 0, 0], pairs[..., 1, 0], pairs[..., 0, 1], pairs[..., 0, 2]]
        return np.stack(parts, -1).tobytes()
    return (stored.transpose(0, 3, 1, 2) if kind.planar else stored).tobytes()


def native(kind: Kind) -> pydicom.Dataset:
    """The picture uncompressed."""
    stored = values(kind)
    data = dicom_files.base(MULTI_FRAME if kind.frames > 1 else dicom_files.SC, "OT")
    data.Rows, data.Columns = stored.shape[1:3]
    data.BitsAllocated = kind.allocated or stored.dtype.itemsize * 8
    data.BitsStored, data.HighBit = kind.stored, kind.stored - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    data.SamplesPerPixel, data.PhotometricInterpretation = kind.samples, kind.photometric
    if kind.samples > 1:
        data.PlanarConfiguration = kind.planar
    if kind.frames > 1:
        data.NumberOfFrames = kind.frames
    for keyword, value in kind.extra.items():
        setattr(data, keyword, value)
    value = _native(kind, stored)
    data.PixelData = value + bytes(len(value) % 2)
    data["PixelData"].VR = "OW" if data.BitsAllocated > 8 else "OB"
    return data


def file(kind: Kind, syntax: str) -> bytes:
    """The picture in a transfer syntax; raises :class:`ValueError` where it cannot hold it."""
    data = native(kind)
    if syntax in NATIVE.values():
        if syntax == NATIVE["big-endian"] and data.BitsAllocated > 8:
            data.PixelData = np.frombuffer(data.PixelData, kind.dtype).byteswap().tobytes()
        return dicom_files.written(data, syntax)
    if kind.allocated == 1 or kind.planar:
        raise ValueError("not written so")
    if syntax in JPEG.values():
        return _jpeg(data, kind, syntax)
    if kind.photometric == "YBR_FULL_422":
        raise ValueError("not written so")
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # GDCM's encoder of RLE ends the process at odd sizes.
    options: dict[str, Any] = {}
    plugin = "pydicom" if syntax == COMPRESSED["RLE"] else ""
    if syntax == COMPRESSED["JPEG-LS near"]:
        options["jls_error"] = 2
    if syntax == COMPRESSED["JPEG 2000"]:
        options["j2k_cr"] = [8]
    lossy = bool(options)
    if lossy and kind.photometric == "PALETTE COLOR":
        raise ValueError("numbers of colours are not rounded")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data.compress(UID(syntax), encoding_plugin=plugin, generate_instance_uid=False,
                          **options)  # fmt: skip
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise ValueError(str(error)) from None
    return (
        _as_lossy(data, syntax, "ISO_14495_1" if "jls_error" in options else "ISO_15444_1")
        if lossy
        else dicom_files.written(data, syntax)
    )


def _as_lossy(data: pydicom.Dataset, syntax: str, method: str) -> bytes:
    data.LossyImageCompression = "01"
    data.LossyImageCompressionRatio = "8"
    data.LossyImageCompressionMethod = method
    return dicom_files.written(data, syntax)


def _jpeg(data: pydicom.Dataset, kind: Kind, syntax: str) -> bytes:
    from PIL import Image

    if syntax != JPEG["JPEG baseline"]:
        if kind.photometric == "YBR_FULL_422":
            raise ValueError("not written so")
        return _by_gdcm(dicom_files.written(data), syntax)
    if kind.dtype != "u1" or kind.photometric == "PALETTE COLOR" or kind.photometric == "RGB":
        raise ValueError("not written so")
    frames = []
    for frame in values(kind):
        target = io.BytesIO()
        # Pillow takes the three planes as they are.
        image = Image.fromarray(frame, "YCbCr" if kind.samples > 1 else "L")
        halved = kind.photometric == "YBR_FULL_422"
        image.save(target, "JPEG", quality=90, subsampling=1 if halved else 0)
        frames.append(target.getvalue())
    data.PixelData = encapsulate(frames)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    return _as_lossy(data, syntax, "ISO_10918_1")


def _by_gdcm(file: bytes, syntax: str) -> bytes:
    import gdcm

    kinds: dict[str, Callable[[], int]] = {
        JPEG["JPEG lossless"]: lambda: gdcm.TransferSyntax.JPEGLosslessProcess14,
        JPEG["JPEG lossless SV1"]: lambda: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    }
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "target"
        source.write_bytes(file)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(source))
        if not reader.Read():
            raise ValueError("not read")
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(kinds[syntax]()))
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise ValueError("not written so")
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not writer.Write():
            raise ValueError("not written so")
        return target.read_bytes()
