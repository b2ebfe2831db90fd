"""Small DICOM files: an ordinary image, and ways to put raw bytes into it."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian

NAME = "HWANGBO^MYUNGHEE"
KOREAN = "황보명희"
NUMBER = "7712345K"
SECRET = "CANARYZQ"  # noqa: S105 - planted to be looked for
ROWS = COLUMNS = 64
CT = "1.2.840.10008.5.1.4.1.1.2"
MG = "1.2.840.10008.5.1.4.1.1.1.2"
SC = "1.2.840.10008.5.1.4.1.1.7"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
PREFIX = "1.2.410.200000.19770315.8245"


def base(sop_class: str = MG, modality: str = "MG") -> Dataset:
    """A small ordinary image of a patient; it holds no secret but its identity fields."""
    data = Dataset()
    data.SOPClassUID = sop_class
    data.SOPInstanceUID = f"{PREFIX}.1"
    data.StudyInstanceUID = f"{PREFIX}.2"
    data.SeriesInstanceUID = f"{PREFIX}.3"
    data.Modality = modality
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.StudyDate, data.StudyTime = "20190807", "101112"
    data.PatientName, data.PatientID = NAME, NUMBER
    data.PatientBirthDate, data.PatientSex, data.PatientAge = "19770315", "F", "042Y"
    data.Manufacturer = "HOLOGIC"
    data.StudyDescription = "Mammography screening"
    data.BodyPartExamined = "BREAST"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = ROWS, COLUMNS
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    pixels = np.random.default_rng(7).integers(300, 340, (ROWS, COLUMNS))
    data.PixelData = pixels.astype("<u2").tobytes()
    return data


def written(
    data: Dataset, syntax: str = ExplicitVRLittleEndian, *, meta: FileMetaDataset | None = None
) -> bytes:
    """The file's bytes."""
    data.file_meta = meta or FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    target = io.BytesIO()
    dcmwrite(target, data, enforce_file_format=True)
    return target.getvalue()


def raw(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    """One explicit little-endian element, whatever its value is."""
    value += b" " * (len(value) % 2)
    if vr in (b"OB", b"OW", b"UN", b"SQ", b"UT", b"UC", b"UR"):
        return struct.pack("<HH2s2xI", group, element, vr, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def before(file: bytes, tag: tuple[int, int], addition: bytes) -> bytes:
    """The file with raw bytes put in front of an element that it has."""
    place = file.index(struct.pack("<HH", *tag), 132)
    return file[:place] + addition + file[place:]


def without(file: bytes, tag: int) -> bytes:
    """The file with an element of a short length taken out."""
    place = file.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 132)
    length = struct.unpack_from("<H", file, place + 6)[0]
    return file[:place] + file[place + 8 + length :]


def jpeg_frame(*, secret: bytes = b"") -> bytes:
    """A baseline JPEG of the usual size, with APP1 and COM segments where a secret is given."""
    from PIL import Image

    picture = io.BytesIO()
    grey = np.random.default_rng(3).integers(100, 110, (ROWS, COLUMNS)).astype(np.uint8)
    Image.fromarray(grey).save(picture, "JPEG", quality=95)
    frame = picture.getvalue()
    if secret:
        extra = b""
        for marker in (b"\xff\xe1", b"\xff\xfe", b"\xff\xec"):
            extra += marker + struct.pack(">H", len(secret) + 2) + secret
        frame = frame[:2] + extra + frame[2:]
    return frame


def compressed(frame: bytes, syntax: str) -> bytes:
    """A file with one encapsulated frame."""
    data = base()
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.LossyImageCompression = "01"
    data.PixelData = encapsulate([frame])
    data["PixelData"].is_undefined_length = True
    return written(data, syntax)


def inflated(file: bytes) -> bytes:
    """A file with its compressed part unfolded, for showing that a secret was planted."""
    for start in range(132, min(len(file), 600)):
        inflater = zlib.decompressobj(-15)
        try:
            plain = inflater.decompress(file[start:])
        except zlib.error:
            continue
        if inflater.eof and len(plain) > ROWS * COLUMNS:
            return plain
    return file
