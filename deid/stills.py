"""What can be looked at of a photograph or a video, and masked once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from deid import contact_sheet, photo_reading
from deid.photo_room import is_video, suffix_of
from deid.photos import encode
from deid.pixels.redact import redact
from deid.video import count, masked_again, sampled


def shown(data: bytes) -> list[NDArray[np.uint8]]:
    """The pictures of a file's contact sheet, in colour, as they are meant to be seen."""
    return list(some(data, contact_sheet.CELLS))


def how_many(data: bytes) -> int:
    """How many pictures a file holds: frames or pages."""
    return count(data) if _is_video(data) else len(photo_reading.read(data).pictures)


def some(data: bytes, most: int) -> Iterator[NDArray[np.uint8]]:
    """At most so many pictures of a file, at equal steps."""
    if _is_video(data):
        yield from sampled(data, most)
        return
    pictures = photo_reading.read(data).pictures
    for place in contact_sheet.shown(len(pictures), most):
        yield _colour(photo_reading.displayed(pictures[place]))


def masked(data: bytes, marks: Sequence[Sequence[int]], tell: Callable[[bytes], None]) -> bytes:
    """A cleaned file with the marks of its sheet filled in every picture, in its own format.

    A video comes in parts, through ``tell``.
    """
    if _is_video(data):
        masked_again(data, marks, tell)
        return b""
    reading = photo_reading.read(data)
    sizes = [(int(each.shape[0]), int(each.shape[1])) for each in reading.pictures]
    boxes = contact_sheet.in_pictures(marks, sizes)
    reading.pictures = [redact(each, boxes) for each in reading.pictures]
    return encode(reading)


def _colour(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return picture if picture.ndim == 3 else np.stack([picture] * 3, axis=2)


def _is_video(data: bytes) -> bool:
    # HEIF and MP4 begin alike.
    return not suffix_of(data) and is_video(data)
