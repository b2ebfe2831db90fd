"""The frames of a video, one after another, and nothing else of its file.

FFmpeg as it lies in OpenCV's wheel (LGPL, without the encoders of the GPL) reads from memory: it
is handed bytes, no path, may use no protocol and only the containers named here, so no playlist
can make it open anything else. Sound, subtitles, further pictures, edit lists and what stands in
boxes is not asked for. The picture is turned as the container says.
"""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.photo_room import EBML, FIRST_BOXES, is_video
from policies.errors import Invalid, _

MAXIMUM_BYTES = 512 << 20
MAXIMUM_PIXELS = 9_000_000
"""Of one frame: a little more than 3840 by 2160."""

MAXIMUM_FRAMES = 54_000
"""Half an hour at 30 frames a second."""

USUAL_RATE = 25.0
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm"
_OPTIONS = f"format_whitelist;{_CONTAINERS}|protocol_whitelist;"

REASONS = {
    "video-format": _("This video's format or coding cannot be read."),
    "video-too-large": _(
        "This video has frames of more than {pixels} million pixels, more than {frames} frames, "
        "or more than {megabytes} MiB; cut it into parts."
    ),
    "truncated": _("This video is cut off, or parts of it are missing."),
    "video-unsteady": _("This video gave other pictures when it was read again."),
    "not-clean": _("The cleaned video still held more than pixels and was not kept."),
}


class VideoRefused(Invalid):
    """A video that cannot be proven clean; ``reason`` is one of ``REASONS``."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            REASONS[reason],
            code=f"deid.video.{reason}",
            pixels=MAXIMUM_PIXELS // 1_000_000,
            frames=MAXIMUM_FRAMES,
            megabytes=MAXIMUM_BYTES >> 20,
        )
        self.reason = reason


@dataclass(frozen=True)
class Frame:
    """``pixels`` are ``[rows, columns, 3]`` red, green, blue; ``seconds`` since the start.

    ``rate`` is the container's own count of frames a second, or a guess.
    """

    pixels: NDArray[np.uint8]
    seconds: float
    rate: float


def frames(data: bytes) -> Generator[Frame, None, None]:
    """Decode a video. Raises :class:`VideoRefused` where it cannot be read to its end."""
    if len(data) > MAXIMUM_BYTES:
        raise VideoRefused("video-too-large")
    if not is_video(data):
        raise VideoRefused("video-format")
    if not _is_whole(data):
        raise VideoRefused("truncated")
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = _OPTIONS
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"
    try:
        stream: Any = io.BytesIO(data)  # OpenCV takes whatever reads and seeks
        capture = cv2.VideoCapture(stream, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    except cv2.error:
        # What a library says of a broken file may quote it.
        raise VideoRefused("video-format") from None
    try:
        if not capture.isOpened():
            raise VideoRefused("video-format")
        # An edit list may leave frames out on purpose; without one each must come.
        yield from _decoded(capture, all_wanted=_may_count(data))
    finally:
        capture.release()


def _decoded(capture: cv2.VideoCapture, *, all_wanted: bool) -> Iterator[Frame]:
    width, height = (
        capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    if not 0 < width * height <= MAXIMUM_PIXELS:
        raise VideoRefused("video-too-large")
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    rate = rate if 0 < rate <= 1000 else USUAL_RATE
    size: tuple[int, ...] = ()
    number = 0
    while True:
        try:
            there, decoded = capture.read()
        except cv2.error:
            raise VideoRefused("truncated") from None
        if not there:
            break
        number += 1
        if number > MAXIMUM_FRAMES or decoded.shape[0] * decoded.shape[1] > MAXIMUM_PIXELS:
            raise VideoRefused("video-too-large")
        if decoded.dtype != np.uint8 or decoded.ndim != 3 or size not in ((), decoded.shape):
            raise VideoRefused("video-format")
        size = decoded.shape
        pixels: NDArray[Any] = np.ascontiguousarray(decoded[:, :, ::-1])
        yield Frame(pixels, float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000, rate)
    if not number:
        raise VideoRefused("video-format")
    if all_wanted and number < capture.get(cv2.CAP_PROP_FRAME_COUNT):
        raise VideoRefused("truncated")


def _may_count(data: bytes) -> bool:
    """Whether the container says how many frames there are, and all of them are to be shown."""
    return data[4:8] in FIRST_BOXES and b"elst" not in data and b"moof" not in data


def _is_whole(data: bytes) -> bool:
    """Whether no part says that it is longer than what is there: decoders pass over that."""
    if data[:4] == b"RIFF":
        return 8 + int.from_bytes(data[4:8], "little") <= len(data)
    if data[:4] == EBML:
        return _segment_is_whole(data)
    place = 0
    found = set()
    while place + 8 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        if length == 1:
            length = int.from_bytes(data[place + 8 : place + 16])
        if kind == b"mdat" and length == 0:
            length = len(data) - place
        if length < 8:
            break
        if kind in (b"moov", b"mdat", b"moof") and place + length > len(data):
            return False
        found.add(kind)
        place += length
    return b"moov" in found


def _segment_is_whole(data: bytes) -> bool:
    """Whether a Matroska file's segment ends within it (RFC 8794, RFC 9559)."""
    place = 4
    length, place = _ebml_number(data, place)
    place += length
    if data[place : place + 4] != b"\x18\x53\x80\x67":
        return False
    length, start = _ebml_number(data, place + 4)
    unknown = length == (1 << 7 * (start - place - 4)) - 1
    return unknown or start + length <= len(data)


def _ebml_number(data: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, and the place behind it."""
    first = data[place] if place < len(data) else 0
    bytes_of_it = 9 - first.bit_length() if first else 8
    value = int.from_bytes(data[place : place + bytes_of_it])
    return value & ((1 << 7 * bytes_of_it) - 1), place + bytes_of_it
