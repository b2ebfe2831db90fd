"""Files to start from: those of pydicom's wheel, photographs and films with planted metadata."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from pydicom.data import get_testdata_files

from synthetic import canaries_in_photos, canaries_in_videos, dicom_files
from synthetic.photo_metadata import jpeg_with, png_with
from synthetic.photos import package_photo, write_photos
from tests.fuzz.promises import CANARY

LARGEST = 24_000
"""Bytes of a seed: mutations of larger files change nothing that is read."""


def dicom() -> Iterator[bytes]:
    """Small files of every transfer syntax, and one with canaries in its header."""
    data = dicom_files.base()
    canary = CANARY.decode()
    data.PatientName, data.PatientID = canary, canary
    data.StudyDescription, data.InstitutionName = f"mammography {canary}", canary
    data.ImageComments = canary
    data.add_new(0x00110010, "LO", canary)
    data.add_new(0x00111001, "UN", CANARY + b" ")
    yield dicom_files.written(data)
    # No pattern: with one, pydicom would ask the network for files that are not in its wheel.
    for name in sorted(str(each) for each in get_testdata_files()):
        path = Path(name)
        if path.is_file() and path.stat().st_size <= LARGEST and path.suffix != ".zip":
            yield path.read_bytes()


def photo() -> Iterator[bytes]:
    """Tiny pictures of every format, with canaries, and whole ones as cameras leave them."""
    tiny = Image.fromarray(package_photo("chelsea.png")).resize((24, 16))
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"):
        stream = io.BytesIO()
        tiny.save(stream, kind, comment=CANARY)
        data = stream.getvalue()
        yield data
        yield data + CANARY
        if kind == "JPEG":
            yield jpeg_with(data, [(0xFE, CANARY), (0xE1, b"Exif\0\0" + CANARY)], CANARY)
        if kind == "PNG":
            yield png_with(data, [(b"tEXt", b"Comment\0" + CANARY)], CANARY)
    for place in canaries_in_photos.PLACES:
        yield place.build(CANARY)
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"):
        kind = "TIFF" if mode in ("CMYK", "F") else "PNG"
        stream = io.BytesIO()
        tiny.convert("L" if mode == "I;16" else mode).convert(mode).save(stream, kind)
        yield stream.getvalue()
    with tempfile.TemporaryDirectory(prefix="glovebox-") as folder:
        write_photos(Path(folder, "photos"), 3, subjects=3)
        for path in sorted(Path(folder, "photos").rglob("*/*.*")):
            data = path.read_bytes()
            yield data if len(data) <= LARGEST * 4 else data[:LARGEST]


def video() -> Iterator[bytes]:
    """Films of three frames in each container and coding that is read, with canaries."""
    for place in canaries_in_videos.PLACES:
        yield place.build(CANARY)


SEEDS = {"dicom": dicom, "photo": photo, "video": video}
