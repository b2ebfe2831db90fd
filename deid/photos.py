"""Photographs: decoded, masked and written anew, so that nothing but the pixels is left.

Metadata, thumbnails, further pictures and trailing bytes are not removed one by one: the cleaned
file is made from the decoded pixels alone, and its structure is checked before it is kept.
Decoding strangers' files belongs into a process without keys; see ``deid.decoder``.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from deid.pixels.interface import Box, Detector, without_contained
from deid.pixels.redact import redact
from policies.errors import Invalid, _

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP")
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif"}
MAXIMUM_PIXELS = 60_000_000
MAXIMUM_BYTES = 256 << 20
JPEG_QUALITY = 95

REASONS = {
    "unsupported-format": _(
        "This picture's format cannot be read; JPEG, PNG, TIFF, WebP, GIF and BMP can."
    ),
    "too-large": _("This picture is larger than {limit} million pixels or {megabytes} MiB."),
    "several-pictures": _(
        "This file holds several pictures (animation or pages); split it into single pictures."
    ),
    "sample-type": _("This picture's kind of samples cannot be cleaned without loss."),
    "cannot-decode": _("This picture is damaged or incomplete."),
    "not-clean": _("The cleaned picture still held more than pixels and was not kept."),
}


class PhotoRefused(Invalid):
    """A picture that cannot be proven clean; ``reason`` is one of ``REASONS``."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            REASONS[reason],
            code=f"deid.photo.{reason}",
            limit=MAXIMUM_PIXELS // 1_000_000,
            megabytes=MAXIMUM_BYTES >> 20,
        )
        self.reason = reason


@dataclass(frozen=True)
class PhotoPolicy:
    """What a dataset wants masked. ``plates`` says that plates would have to be masked if seen."""

    text: bool = True
    faces: bool = True
    plates: bool = True

    def masks(self, box: Box) -> bool:
        """Whether boxes of this kind are masked."""
        return {"text": self.text, "face": self.faces, "plate": self.plates}[box.kind]


@dataclass(frozen=True)
class PhotoResult:
    """``data`` is the new file, ``suffix`` the one that its format has.

    ``boxes`` were masked, in the pixels of the new picture. ``actions`` says by name what was
    done. ``needs_review`` is the reason why a person has to look at this picture, or empty.
    """

    data: bytes
    suffix: str
    boxes: tuple[Box, ...]
    actions: Mapping[str, str]
    needs_review: str


def clean_photo(
    original: bytes,
    *,
    detectors: Sequence[Detector],
    policy: PhotoPolicy | None = None,
) -> PhotoResult:
    """Return the picture of a file as a file of its pixels only, boxes masked.

    The orientation is applied. JPEG stays JPEG (quality 95, without chroma subsampling), TIFF
    stays TIFF, everything else becomes PNG. Nothing is written: an original lies on no disk.
    Without loss, the samples outside the boxes are those of the decoded picture, except that
    transparent pixels are laid on white, since what they hide would be published too, and colours
    of an embedded profile are converted to sRGB. 16-bit grey stays 16-bit.

    No detector for number plates exists here, so a picture of a policy with ``plates`` always has
    ``needs_review`` set: text found in it is masked, but that is not a plate detector.

    Raises :class:`PhotoRefused` for anything that cannot be read whole or cleaned surely.
    """
    policy = policy or PhotoPolicy()
    if len(original) > MAXIMUM_BYTES:
        raise PhotoRefused("too-large")
    pixels, kind, actions = _decode(original)
    picture = _displayed(pixels)
    found = (box for detector in detectors for box in detector.detect(picture))
    boxes = tuple(without_contained(box for box in found if policy.masks(box)))
    masked = redact(pixels, boxes)
    data = _encode(masked, kind)
    for name in ("text", "face", "plate"):
        count = sum(box.kind == name for box in boxes)
        if count:
            actions[name] = f"masked {count}"
    if policy.plates:
        actions["plate"] = "not looked for: a person has to"
    review = "plates" if policy.plates else ""
    return PhotoResult(data, SUFFIXES[kind], boxes, actions, review)


def masked_again(data: bytes, marks: Sequence[Sequence[int]]) -> bytes:
    """The picture of a file, cleaned or original, with these boxes masked and nothing looked for.

    For what a person has drawn, or taken away, after the detectors; raises :class:`PhotoRefused`.
    """
    pixels, kind, _actions = _decode(data)
    boxes = [Box("text", *(int(side) for side in mark)) for mark in marks]
    return _encode(redact(pixels, boxes), kind)


def _decode(data: bytes) -> tuple[NDArray[Any], str, dict[str, str]]:
    """The upright pixels (uint8 grey or colour, or uint16 grey), the format to write, actions."""
    try:
        with warnings.catch_warnings():
            # What Pillow says of broken metadata is nobody's to read: it goes nowhere.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.init()
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAXIMUM_PIXELS:
                    raise PhotoRefused("too-large")
                return _read(image, data)
    except PhotoRefused:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
        raise PhotoRefused("too-large") from None
    except UnidentifiedImageError:
        raise PhotoRefused("unsupported-format") from None
    except Exception:  # decoders of broken files raise nearly anything
        # The text of a decoder's error may quote the file, so it is not passed on.
        raise PhotoRefused("cannot-decode") from None


def _read(image: Image.Image, data: bytes) -> tuple[NDArray[Any], str, dict[str, str]]:
    stored = str(image.format)
    # The second picture of an MPO is the other eye or a larger preview of the same scene.
    if stored != "MPO" and getattr(image, "n_frames", 1) != 1:
        raise PhotoRefused("several-pictures")
    image.load()
    actions = {"metadata": "removed"}
    if stored == "MPO":
        actions["further pictures"] = "removed"
    upright = _upright(image, actions)
    kind = "JPEG" if stored in ("JPEG", "MPO") else "TIFF" if stored == "TIFF" else "PNG"
    if upright.mode.startswith("I"):
        return _deep_grey(upright), kind if kind != "JPEG" else "PNG", actions
    if upright.mode == "F":
        raise PhotoRefused("sample-type")
    upright = _in_srgb(upright, actions)
    if upright.has_transparency_data or upright.mode in ("RGBa", "La"):
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        upright = Image.alpha_composite(white, rgba).convert("RGB")
        actions["transparency"] = "laid on white"
    wanted = "L" if upright.mode in ("1", "L") else "RGB"
    return np.array(upright.convert(wanted), dtype=np.uint8), kind, actions


def _upright(image: Image.Image, actions: dict[str, str]) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        upright = ImageOps.exif_transpose(image)
    except Exception:  # broken metadata is removed anyway; a picture left lying is no leak
        actions["orientation"] = "unreadable"
        return image
    if turned:
        actions["orientation"] = "applied"
    return upright


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


def _displayed(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """What a viewer shows: 16 bits are stretched to the values that are there."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = (float(each) for each in np.percentile(pixels, (0.5, 99.5)))
    scaled = (pixels.astype(np.float32) - low) * (255 / max(1.0, high - low))
    shown: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return shown


def _encode(pixels: NDArray[Any], kind: str) -> bytes:
    """The file of the pixels and nothing else; raises :class:`PhotoRefused` if there is more."""
    image = Image.fromarray(pixels)
    stream = io.BytesIO()
    if kind == "JPEG":
        image.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    elif kind == "TIFF":
        image.save(stream, "TIFF", compression="tiff_deflate")
    else:
        image.save(stream, "PNG")
    data = stream.getvalue()
    if not holds_only_pixels(data):
        raise PhotoRefused("not-clean")
    return data


def holds_only_pixels(data: bytes) -> bool:
    """Whether a JPEG, PNG or TIFF has no part that could carry anything but the picture."""
    if data.startswith(b"\xff\xd8"):
        return set(_jpeg_segments(data)) <= JPEG_SEGMENTS
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return set(_png_chunks(data)) <= {b"IHDR", b"IDAT", b"IEND"}
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
        return getattr(image, "n_frames", 1) == 1 and set(image.tag_v2) <= TIFF_TAGS  # type: ignore[attr-defined]


# Quantisation, Huffman tables, baseline and progressive frames, restart interval, scan, JFIF.
JPEG_SEGMENTS = frozenset({0xDB, 0xC4, 0xC0, 0xC2, 0xDD, 0xDA, 0xE0, 0xD9})
# Size, bits, compression, interpretation, strips, samples, planes, resolution, sample format.
TIFF_TAGS = frozenset(
    {256, 257, 258, 259, 262, 273, 277, 278, 279, 282, 283, 284, 296, 317, 339}
)  # fmt: skip
_FOREIGN = -1


def _jpeg_segments(data: bytes) -> Iterator[int]:
    """The marker of each segment; -1 for bytes that belong to none, as after the end."""
    place = 2
    while place + 4 <= len(data) or data[place : place + 2] == b"\xff\xd9":
        if data[place] != 0xFF:
            yield _FOREIGN
            return
        marker = data[place + 1]
        yield marker
        if marker == 0xD9:
            if place + 2 != len(data):
                yield _FOREIGN
            return
        length = int.from_bytes(data[place + 2 : place + 4])
        if marker == 0xE0 and (data[place + 4 : place + 9] != b"JFIF\0" or length != 16):
            yield _FOREIGN
        place += 2 + length
        if marker == 0xDA:
            # Entropy-coded data: a marker is an FF that no 00 and no restart number follows.
            while True:
                place = data.find(b"\xff", place)
                if place < 0 or place + 1 >= len(data):
                    yield _FOREIGN
                    return
                if data[place + 1] != 0 and not 0xD0 <= data[place + 1] <= 0xD7:
                    break
                place += 2
    yield _FOREIGN


def _png_chunks(data: bytes) -> Iterator[bytes]:
    place = 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4])
        yield data[place + 4 : place + 8]
        place += 12 + length
        if data[place - 8 - length : place - 4 - length] == b"IEND":
            if place != len(data):
                yield b""
            return
    yield b""
