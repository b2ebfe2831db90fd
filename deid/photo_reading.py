"""The pictures of a photograph's file, upright, and nothing else of it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from deid.photo_policy import (
    MAXIMUM_ALL_PIXELS,
    MAXIMUM_PICTURES,
    MAXIMUM_PIXELS,
    PhotoRefused,
)

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "GIF", "BMP")
LONGEST_MILLISECONDS = 60_000
# TIFF's NewSubfileType: a smaller copy of another page, or its transparency.
_SUBFILE_TYPE, _COPY_OR_MASK = 254, 1 | 4
_SUB_DIRECTORIES = 330
_BITS, _SAMPLES = 258, 277


@dataclass
class Reading:
    """Pictures of uint8 grey or colour, uint16 grey or colour; ``kind`` is the format to write.

    ``milliseconds`` has the time of each frame of an animation and is empty for pages.
    ``actions`` says by name what was left out or changed.
    """

    pictures: list[NDArray[Any]]
    kind: str
    milliseconds: list[int] = field(default_factory=list)
    actions: dict[str, str] = field(default_factory=dict)


def read(data: bytes) -> Reading:
    """Decode a file. Raises :class:`PhotoRefused` where not every picture of it can be."""
    try:
        with warnings.catch_warnings():
            # What Pillow says of broken metadata is nobody's to read: it goes nowhere.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.init()
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return _read(image, data)
    except PhotoRefused:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
        raise PhotoRefused("too-large") from None
    except UnidentifiedImageError:
        heic = data[4:8] == b"ftyp"
        raise PhotoRefused("heic" if heic else "unsupported-format") from None
    except Exception:  # decoders of broken files raise nearly anything
        # The text of a decoder's error may quote the file, so it is not passed on.
        raise PhotoRefused("cannot-decode") from None


def displayed(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """What a viewer shows: 16 bits are stretched to the values that are there."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = (float(each) for each in np.percentile(pixels, (0.5, 99.5)))
    scaled = (pixels.astype(np.float32) - low) * (255 / max(1.0, high - low))
    shown: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return shown


def _read(image: Image.Image, data: bytes) -> Reading:
    stored = str(image.format)
    actions = {"metadata": "removed"}
    kind = "JPEG" if stored in ("JPEG", "MPO") else "TIFF" if stored == "TIFF" else "PNG"
    reading = Reading([], kind, actions=actions)
    copies: list[bool] = []
    total = 0
    for number, frame in enumerate(_frames(image)):
        # The second picture of an MPO is the other eye or a larger preview of the same scene.
        if stored == "MPO" and number:
            actions["further pictures"] = "removed"
            break
        if frame.width * frame.height > MAXIMUM_PIXELS:
            raise PhotoRefused("too-large")
        total += frame.width * frame.height
        if number >= MAXIMUM_PICTURES or total > MAXIMUM_ALL_PIXELS:
            raise PhotoRefused("too-many-pictures")
        tags: Any = getattr(frame, "tag_v2", {}) if stored == "TIFF" else {}
        if _SUB_DIRECTORIES in tags:
            actions["further pictures"] = "removed"
        copies.append(bool(int(tags.get(_SUBFILE_TYPE, 0)) & _COPY_OR_MASK))
        frame.load()
        reading.pictures.append(_picture(frame, data, number, actions))
        reading.milliseconds.append(_milliseconds(frame))
    if any(copies) and not all(copies):
        actions["further pictures"] = "removed"
        kept = [place for place, copy in enumerate(copies) if not copy]
        reading.pictures = [reading.pictures[place] for place in kept]
    if kind == "TIFF" or len(reading.pictures) == 1:
        reading.milliseconds = []
    if kind == "JPEG" and reading.pictures[0].dtype != np.uint8:
        reading.kind = "PNG"
    return reading


def _frames(image: Image.Image) -> Iterator[Image.Image]:
    """The pictures one after another: counting them first would read a million of them."""
    number = 0
    while True:
        yield image
        number += 1
        try:
            image.seek(number)
        except EOFError:
            return


def _milliseconds(image: Image.Image) -> int:
    try:
        return min(LONGEST_MILLISECONDS, max(0, round(float(image.info.get("duration", 0)))))
    except (TypeError, ValueError, OverflowError):
        return 0


def _picture(image: Image.Image, data: bytes, number: int, actions: dict[str, str]) -> NDArray[Any]:
    orientation = _orientation(image, actions)
    if _is_deep_colour(image, data):
        return _turned(_deep_colour(data, number, image.size, actions), orientation)
    upright = _upright(image, orientation, actions)
    if upright.mode.startswith("I"):
        return _deep_grey(upright)
    if upright.mode == "F":
        raise PhotoRefused("sample-type")
    upright = _in_srgb(upright, actions)
    if upright.has_transparency_data or upright.mode in ("RGBa", "La"):
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        upright = Image.alpha_composite(white, rgba).convert("RGB")
        actions["transparency"] = "laid on white"
    wanted = "L" if upright.mode in ("1", "L") else "RGB"
    return np.array(upright.convert(wanted), dtype=np.uint8)


def _orientation(image: Image.Image, actions: dict[str, str]) -> int:
    try:
        value = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken metadata is removed anyway; a picture left lying is no leak
        actions["orientation"] = "unreadable"
        return 1
    if value != 1:
        actions["orientation"] = "applied"
    return value


def _upright(image: Image.Image, orientation: int, actions: dict[str, str]) -> Image.Image:
    if orientation == 1:
        return image
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as above: what cannot be read of metadata is not needed
        actions["orientation"] = "unreadable"
        return image


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """As :func:`PIL.ImageOps.exif_transpose` turns a picture, for samples that Pillow has not."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _is_deep_colour(image: Image.Image, data: bytes) -> bool:
    """Whether samples of colour have 16 bits, of which Pillow would keep eight."""
    if image.format == "PNG":
        return data[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06")
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        bits = tags.get(_BITS, (1,))
        return 16 in bits and int(tags.get(_SAMPLES, 1)) > 1 and image.mode in ("RGB", "RGBA")
    return False


def _deep_colour(
    data: bytes, number: int, size: tuple[int, int], actions: dict[str, str]
) -> NDArray[np.uint16]:
    encoded = np.frombuffer(data, np.uint8)
    # OpenCV would turn by the orientation itself otherwise, in some formats and not in others.
    found, pages = cv2.imdecodemulti(encoded, cv2.IMREAD_UNCHANGED, range=(number, number + 1))
    pixels = pages[0] if found and len(pages) == 1 else None
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != size[::-1]:
        raise PhotoRefused("sample-type")
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise PhotoRefused("sample-type")
    colour: NDArray[np.uint16] = np.ascontiguousarray(pixels[:, :, 2::-1])
    if pixels.shape[2] == 4:
        actions["transparency"] = "laid on white"
        alpha = pixels[:, :, 3:].astype(np.uint32)
        mixed = colour.astype(np.uint32) * alpha + 65535 * (65535 - alpha)
        colour = ((mixed + 32767) // 65535).astype(np.uint16)
    actions["colour profile"] = "removed"
    return colour


def _deep_grey(image: Image.Image) -> NDArray[np.uint16]:
    values = np.array(image)
    if values.min() < 0 or values.max() > 65535:
        raise PhotoRefused("sample-type")
    return values.astype(np.uint16)


def _in_srgb(image: Image.Image, actions: dict[str, str]) -> Image.Image:
    """The picture without its colour profile, in the colours that the profile meant."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return image
    try:
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        actions["colour profile"] = "removed, unreadable"
        return image
    if converted is None:
        return image
    actions["colour profile"] = "converted to sRGB"
    return converted
