"""Videos: every frame decoded, masked and written anew as a JPEG; of the file nothing else is left.

The video is read twice. The first time it is found out where to mask, the second time frame after
frame is masked and written, so that memory holds a few frames whatever the length. Sound goes,
for a voice names its owner, and subtitles, further pictures, tracks of places and all metadata go.
See decision 16 for why the frames are JPEGs.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deid import contact_sheet, video_reading
from deid.photo_policy import PhotoPolicy
from deid.pixels.interface import Box, Detector
from deid.pixels.redact import redact
from deid.video_container import LONGEST_TICKS, TIMESCALE, VideoWriter
from deid.video_reading import Frame, VideoRefused
from deid.video_tracking import plan

JPEG_QUALITY = 95

EXAMINED_EVERY = 0.2
"""Seconds between frames that are examined whatever they show."""

MASKED_LEVEL = 48
"""Brightest value that JPEG may make of a masked pixel, eight pixels away from the edge."""

SUFFIX = ".mp4"


@dataclass(frozen=True)
class VideoResult:
    """``boxes`` are those of the shown frames, in pixels of their contact sheet."""

    frames: int
    boxes: tuple[Box, ...]
    actions: Mapping[str, str]
    needs_review: str


def clean_video(
    original: bytes,
    write: Callable[[bytes], object],
    *,
    detectors: Sequence[Detector],
    policy: PhotoPolicy | None = None,
    alive: Callable[[], None] = lambda: None,
) -> VideoResult:
    """Write the frames of a video, masked, as an MP4 of JPEGs, through ``write``.

    What was written counts only if this returns. A video always has ``needs_review`` set: nothing
    here sees number plates, and a detector that looks at samples is not proof for every frame.
    Raises :class:`VideoRefused` for what cannot be read whole.
    """
    policy = policy or PhotoPolicy()
    sums: list[int] = []
    sizes: set[tuple[int, int]] = set()

    def noted() -> Iterator[NDArray[np.uint8]]:
        for frame in video_reading.frames(original):
            sums.append(zlib.crc32(frame.pixels.data))
            sizes.add((frame.pixels.shape[0], frame.pixels.shape[1]))
            yield frame.pixels

    def detect(picture: NDArray[np.uint8]) -> list[Box]:
        found = [box for detector in detectors for box in detector.detect(picture)]
        alive()
        return [box for box in found if policy.masks(box)]

    planned = plan(noted(), detect, _step(original), alive)
    ((rows, columns),) = sizes
    written = _write(video_reading.frames(original), iter(planned.boxes), iter(sums), write, alive)
    if written != len(planned.boxes):
        raise VideoRefused("video-unsteady")
    actions = {
        "metadata": "removed",
        "sound, subtitles, further tracks": "removed",
        "frames": f"{written}; {planned.examined} examined whole, {planned.looks} in part",
        "coding": f"JPEG, quality {JPEG_QUALITY}",
    }
    for name in ("text", "face", "plate"):
        count = sum(any(box.kind == name for box in boxes) for boxes in planned.boxes)
        if count:
            actions[name] = f"masked in {count} frames"
    if policy.plates:
        actions["plate"] = "not looked for: a person has to"
    shown = contact_sheet.boxes([(rows, columns)] * written, planned.boxes)
    review = "plates" if policy.plates else "video"
    return VideoResult(written, tuple(shown), actions, review)


def masked_again(
    data: bytes, marks: Sequence[Sequence[int]], write: Callable[[bytes], object]
) -> None:
    """Write a cleaned video with the marks of its contact sheet filled in every frame."""
    count, size = _count_and_size(data)
    boxes = contact_sheet.in_pictures(marks, [size] * count)
    sums = (zlib.crc32(frame.pixels.data) for frame in video_reading.frames(data))
    _write(video_reading.frames(data), iter([boxes] * count), sums, write, lambda: None)


def count(data: bytes) -> int:
    """How many frames a video has, by decoding them."""
    return _count_and_size(data)[0]


def sampled(data: bytes, most: int) -> Iterator[NDArray[np.uint8]]:
    """At most so many frames at equal steps: those of the contact sheet."""
    wanted = set(contact_sheet.shown(count(data), most))
    for number, frame in enumerate(video_reading.frames(data)):
        if number in wanted:
            yield frame.pixels


def _count_and_size(data: bytes) -> tuple[int, tuple[int, int]]:
    number, size = 0, (0, 0)
    for frame in video_reading.frames(data):
        number, size = number + 1, (frame.pixels.shape[0], frame.pixels.shape[1])
    return number, size


def _step(data: bytes) -> int:
    frames = video_reading.frames(data)
    rate = next(frames).rate
    frames.close()
    return max(1, round(rate * EXAMINED_EVERY))


def _write(
    frames: Iterable[Frame],
    boxes: Iterator[list[Box]],
    sums: Iterator[int],
    write: Callable[[bytes], object],
    alive: Callable[[], None],
) -> int:
    """Mask and write frames, each of which must be the one that its sum is of."""
    writer: VideoWriter | None = None
    written = 0
    for frame, ticks in _timed(frames):
        masks = next(boxes, None)
        if masks is None or zlib.crc32(frame.pixels.data) != next(sums, None):
            raise VideoRefused("video-unsteady")
        if writer is None:
            writer = VideoWriter(frame.pixels.shape[1], frame.pixels.shape[0], write)
        writer.frame(_jpeg(redact(frame.pixels, masks), masks), ticks)
        written += 1
        alive()
    if writer is None:
        raise VideoRefused("video-format")
    writer.close()
    return written


def _timed(frames: Iterable[Frame]) -> Iterator[tuple[Frame, int]]:
    """Each frame with the time that it is shown; the last one's is that of the one before."""
    waiting: Frame | None = None
    ticks = 0
    for frame in frames:
        if waiting is not None:
            ticks = _ticks(frame.seconds - waiting.seconds, frame.rate)
            yield waiting, ticks
        waiting = frame
    if waiting is not None:
        yield waiting, ticks or _ticks(0, waiting.rate)


def _ticks(seconds: float, rate: float) -> int:
    if not math.isfinite(seconds) or seconds <= 0:
        seconds = 1 / rate
    return min(LONGEST_TICKS, max(1, round(seconds * TIMESCALE)))


def _jpeg(pixels: NDArray[np.uint8], masks: Sequence[Box]) -> bytes:
    """A frame as a JPEG that was decoded again: of its size, and dark where it was masked."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY)
    data = stream.getvalue()
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None or decoded.shape != pixels.shape:
        raise VideoRefused("not-clean")
    for box in masks:
        inside = decoded[box.y + 8 : box.bottom - 8, box.x + 8 : box.right - 8]
        if inside.size and inside.max() > MASKED_LEVEL:
            raise VideoRefused("not-clean")
    return data
