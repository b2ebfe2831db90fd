"""Photographs: decoded, masked and written anew, so that nothing but the pixels is left.

Metadata, thumbnails, further pictures and trailing bytes are not removed one by one: the cleaned
file is made from the decoded pixels alone, and its structure is checked before it is kept.
Decoding strangers' files belongs into a process without keys; see ``deid.decoder``.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deid import contact_sheet
from deid.photo_policy import MAXIMUM_BYTES, PhotoPolicy, PhotoRefused
from deid.photo_reading import Reading, displayed, read
from deid.photo_structure import holds_only_pixels
from deid.pixels.interface import Box, Detector, without_contained
from deid.pixels.redact import redact

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif"}
JPEG_QUALITY = 95
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEFLATE = 8


@dataclass(frozen=True)
class PhotoResult:
    """``data`` is the new file, ``suffix`` the one that its format has.

    ``boxes`` were masked, in the pixels of the new picture; where it holds several, those of the
    shown ones, in the pixels of their contact sheet. ``actions`` says by name what was done.
    ``needs_review`` is the reason why a person has to look at this picture, or empty.
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
    alive: Callable[[], None] = lambda: None,
) -> PhotoResult:
    """Return the pictures of a file as a file of their pixels only, boxes masked.

    The orientation is applied. JPEG stays JPEG (quality 95, without chroma subsampling), TIFF
    stays TIFF, everything else becomes PNG; an animation an animated PNG. Every page and every
    frame is looked at; a frame of an animation is masked where its neighbours are, too. Nothing
    is written: an original lies on no disk. Without loss, the samples outside the boxes are those
    of the decoded picture, except that transparent pixels are laid on white, since what they hide
    would be published too, and colours of an embedded profile are converted to sRGB. Samples of
    16 bits stay so, without their profile. ``alive`` is called after each picture.

    No detector for number plates exists here, and nothing knows a street scene, so every picture
    of a policy with ``plates`` has ``needs_review`` set: text found in it is masked, but that is
    not a plate detector.

    Raises :class:`PhotoRefused` for anything that cannot be read whole or cleaned surely.
    """
    policy = policy or PhotoPolicy()
    if len(original) > MAXIMUM_BYTES:
        raise PhotoRefused("too-large")
    reading = read(original)
    actions = reading.actions
    found: list[list[Box]] = []
    for number, pixels in enumerate(reading.pictures):
        if number and _same(pixels, reading.pictures[number - 1]):
            found.append(found[-1])
            continue
        picture = displayed(pixels)
        boxes = (box for detector in detectors for box in detector.detect(picture))
        found.append([box for box in boxes if policy.masks(box)])
        alive()
    if reading.milliseconds:
        found = _with_neighbours(found)
    masks = [without_contained(each) for each in found]
    reading.pictures = [
        redact(pixels, boxes) for pixels, boxes in zip(reading.pictures, masks, strict=True)
    ]
    data = encode(reading)
    for name in ("text", "face", "plate"):
        count = sum(box.kind == name for boxes in masks for box in boxes)
        if count:
            actions[name] = f"masked {count}"
    if len(masks) > 1:
        actions["pictures"] = f"{len(masks)}, each looked at"
    if policy.plates:
        actions["plate"] = "not looked for: a person has to"
    review = "plates" if policy.plates else ""
    if not review and len(masks) > contact_sheet.CELLS:
        review = "more pictures than are shown"
    shown = contact_sheet.boxes([each.shape[:2] for each in reading.pictures], masks)
    return PhotoResult(data, SUFFIXES[reading.kind], tuple(shown), actions, review)


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and bool((one == other).all())


def _with_neighbours(found: list[list[Box]]) -> list[list[Box]]:
    """What a detector misses in one frame of an animation it may see in the next."""
    return [
        [box for near in found[max(0, number - 1) : number + 2] for box in near]
        for number in range(len(found))
    ]


def encode(reading: Reading) -> bytes:
    """The file of the pixels and nothing else; raises :class:`PhotoRefused` if there is more."""
    pictures = reading.pictures
    if any(each.ndim == 3 and each.dtype == np.uint16 for each in pictures):
        data = _deep(pictures, reading.kind)
    else:
        images = [Image.fromarray(each) for each in pictures]
        stream = io.BytesIO()
        if reading.kind == "JPEG":
            images[0].save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        elif reading.kind == "TIFF":
            several = {"save_all": True, "append_images": images[1:]} if len(images) > 1 else {}
            images[0].save(stream, "TIFF", compression="tiff_deflate", **several)
        elif len(images) > 1:
            stream.write(_animation(images, reading.milliseconds))
        else:
            images[0].save(stream, "PNG")
        data = stream.getvalue()
    if not holds_only_pixels(data):
        raise PhotoRefused("not-clean")
    return data


def _deep(pictures: list[NDArray[Any]], kind: str) -> bytes:
    """Colour of 16 bits, which Pillow does not write."""
    turned = [each[:, :, ::-1] if each.ndim == 3 else each for each in pictures]
    options = [cv2.IMWRITE_TIFF_COMPRESSION, _DEFLATE] if kind == "TIFF" else []
    done, encoded = (
        cv2.imencodemulti(".tiff", turned, options)
        if kind == "TIFF"
        else cv2.imencode(".png", turned[0])
    )
    if not done or (kind != "TIFF" and len(pictures) > 1):
        raise PhotoRefused("sample-type")
    return bytes(encoded.tobytes())


def _animation(images: list[Image.Image], milliseconds: Sequence[int]) -> bytes:
    """An animated PNG of whole frames: Pillow would leave out what does not change.

    See PNG (third edition), 11.3.6. A picture without animation shows the first frame.
    """
    mode = "L" if all(each.mode == "L" for each in images) else "RGB"
    if len({each.size for each in images}) > 1:
        raise PhotoRefused("sample-type")
    width, height = images[0].size
    parts = [PNG_SIGNATURE]
    sequence = 0
    for number, image in enumerate(images):
        stream = io.BytesIO()
        image.convert(mode).save(stream, "PNG")
        header, pixels = _header_and_pixels(stream.getvalue())
        if number == 0:
            parts += [header, _chunk(b"acTL", struct.pack(">LL", len(images), 0))]
        control = struct.pack(
            ">5L2H2B", sequence, width, height, 0, 0, milliseconds[number], 1000, 0, 0
        )
        parts.append(_chunk(b"fcTL", control))
        sequence += 1
        if number == 0:
            parts.append(_chunk(b"IDAT", pixels))
        else:
            parts.append(_chunk(b"fdAT", struct.pack(">L", sequence) + pixels))
            sequence += 1
    return b"".join([*parts, _chunk(b"IEND", b"")])


def _header_and_pixels(png: bytes) -> tuple[bytes, bytes]:
    place, header, pixels = len(PNG_SIGNATURE), b"", []
    while place < len(png):
        length = int.from_bytes(png[place : place + 4])
        if png[place + 4 : place + 8] == b"IHDR":
            header = png[place : place + 12 + length]
        elif png[place + 4 : place + 8] == b"IDAT":
            pixels.append(png[place + 8 : place + 8 + length])
        place += 12 + length
    return header, b"".join(pixels)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))
