"""A file as a picture for people, drawn in the decoder process."""

from __future__ import annotations

import codecs
import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from pydicom import Dataset

from deid import contact_sheet, stills
from deid.dicom import display
from deid.dicom.decode import stored
from deid.photo_reading import FORMATS
from deid.photo_room import suffix_of

LARGEST_SIDE = 2048
MOST_FIELDS, LONGEST_TEXT = 1000, 300


def picture_of(
    data: bytes, *, largest: int = LARGEST_SIDE, small: bool = False
) -> tuple[dict[str, int], bytes]:
    """A DICOM file, a photograph or a video as PNG, at most ``largest`` wide; ``small`` as JPEG.

    Of several frames of DICOM the brightest of each pixel is shown, so that a text of any frame
    is seen; of several pages or frames of anything else, a contact sheet.

    The first value is the size of the image itself, in which boxes are given.
    """
    if _is_dicom(data):
        dataset, frames, properties = stored(data)
        palette = _palette(dataset)
        if palette is None:
            dark = str(properties["photometric_interpretation"]) == "MONOCHROME1"
            frame = frames.min(axis=0) if dark else frames.max(axis=0)
        else:
            frame = frames[frames.shape[0] // 2]
        image = _drawn(frame, properties, palette)
    else:
        image = Image.fromarray(contact_sheet.draw(stills.shown(data)))
    size = {"width": image.width, "height": image.height}
    if not small:
        return size, _png(image, largest)
    image.thumbnail((largest, largest))
    target = io.BytesIO()
    image.convert("RGB").save(target, "JPEG", quality=80)
    return size, target.getvalue()


def frames_of(data: bytes, *, most: int) -> tuple[list[int], int, list[bytes]]:
    """Single frames of a DICOM file as PNG: their numbers from 1, how many there are, pictures.

    At most ``most``, spread evenly with the first and the last among them; none of a still.
    """
    if not _is_dicom(data):
        return [], 1, []
    dataset, frames, properties = stored(data)
    count = int(frames.shape[0])
    if count < 2:
        return [], count, []
    places = sorted({round(place) for place in np.linspace(0, count - 1, min(most, count))})
    palette = _palette(dataset)
    drawn = [_png(_drawn(frames[place], properties, palette), LARGEST_SIDE) for place in places]
    return [place + 1 for place in places], count, drawn


def metadata_of(data: bytes) -> dict[str, str]:
    """What a photograph says beside its pixels, by the names of its fields; anything else nothing.

    Text is read in the character set it was written in. Binary parts are given by their length:
    what they say is not for reading.
    """
    if not suffix_of(data):
        return {}
    found: dict[str, Any] = {}
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        exif = opened.getexif()
        parts = [exif, *(exif.get_ifd(each) for each in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo))]
        names = (ExifTags.TAGS, ExifTags.TAGS, ExifTags.GPSTAGS)
        for part, known in zip(parts, names, strict=True):
            found |= {str(known.get(tag, f"0x{tag:04X}")): value for tag, value in part.items()}
        found |= {name: value for name, value in opened.info.items() if isinstance(name, str)}
    shown = {name: _words(name, value) for name, value in found.items()}
    return {name: shown[name] for name in sorted(shown)[:MOST_FIELDS]}


def _words(name: str, value: object) -> str:
    said = _decoded(name, value) if isinstance(value, bytes) else _as_meant(str(value))
    if said is None or (isinstance(value, bytes) and len(said) > LONGEST_TEXT):
        return f"{len(value)} bytes"  # type: ignore[arg-type]
    text = "".join(each if each.isprintable() else "␣" for each in said)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " …"


def _decoded(name: str, value: bytes) -> str | None:
    """Bytes as text, by the character sets that Exif 3.0 and Windows write; None for no text."""
    if name.startswith("XP"):
        sets: tuple[str, ...] = ("utf-16-le",)
    elif value[:8] == b"UNICODE\0":
        value, sets = value[8:], ("utf-16",) if value[8:10] in _MARKS else ("utf-16-le",)
    else:
        if value[:8] in (b"ASCII\0\0\0", b"UTF-8\0\0\0"):
            value = value[8:]
        sets = ("ascii", "utf-8")
    for each in sets:
        with contextlib.suppress(UnicodeError):
            return value.decode(each).rstrip("\0")
    return None


def _as_meant(text: str) -> str:
    """A text whose bytes were taken for Latin letters, as its writer meant it."""
    with contextlib.suppress(UnicodeError):
        raw = text.encode("latin-1")
        with contextlib.suppress(UnicodeError):
            return raw.decode("utf-8")
        meant = raw.decode("euc_kr")
        if all(each.isascii() or "가" <= each <= "힣" for each in meant):
            return meant
    return text


_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM" or data[:2] in (b"\x08\x00", b"\x02\x00")


def _palette(dataset: Dataset) -> Dataset | None:
    return dataset if "RedPaletteColorLookupTableDescriptor" in dataset else None


def _drawn(frame: NDArray[Any], properties: dict[str, Any], palette: Dataset | None) -> Image.Image:
    shown = display.pictures(frame, properties, palette)
    return Image.fromarray(shown[0] if shown else np.zeros(frame.shape[:2], np.uint8))


def _png(image: Image.Image, largest: int) -> bytes:
    image.thumbnail((largest, largest))
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()
