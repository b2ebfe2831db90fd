"""Where to mask in each frame of a video, though not every frame is examined.

Every few frames are examined by the detectors. In between, a place where something stands that the
movement since the frame before does not explain is examined in that frame and the one before: what
appears for one frame only is looked at in that frame. Between examined frames each box stands where
it was found, and moves on with what is under it, forwards and backwards and past the neighbouring
examined frame, so that a detector that overlooks somebody once or twice leaves no frame uncovered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.pixels.interface import Box, Image, without_contained

Detect = Callable[[Image], list[Box]]

SMALL_SIDE = 480
"""Longer side of the pictures in which movement is measured."""

DIFFERENCE = 14
"""Grey levels, after averaging over 3 by 3 pixels, by which a pixel is something new."""

BLOCK, NEW_PIXELS = 16, 6
"""A square of so many pixels a side with so many new ones holds something new."""

CUT = 0.4
"""Part of the squares that are new from which two frames are of different scenes."""

MARGIN = 80
"""Pixels around what is new that are looked at with it."""

WHOLE_FROM = 0.35
"""Part of a frame from which it is examined whole, since that costs little more."""

PERSISTENCE = 2
"""Examined frames that a box outlives without being found again."""

SLACK, SLACK_RATIO = 1.0, 0.02
"""Pixels and part of its size by which a moved box grows on each side, each frame."""

LARGEST_SPREAD = 0.1
"""Part of its size by which a box may grow a frame where what is under it moves apart."""


@dataclass(frozen=True)
class _Motion:
    """How a picture moves to another: ``shifts`` right and down, in pixels of a small picture."""

    shifts: NDArray[np.floating] | None
    ratio: tuple[float, float]

    def under(self, left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
        """The 10th, 50th and 90th percentile of the shifts in a box, in pixels of the picture."""
        if self.shifts is None:
            return np.zeros((3, 2))
        rows, columns = self.shifts.shape[:2]
        x, to_x = _span(left / self.ratio[0], right / self.ratio[0], columns)
        y, to_y = _span(top / self.ratio[1], bottom / self.ratio[1], rows)
        inside = self.shifts[y:to_y, x:to_x].reshape(-1, 2).astype(np.float64)
        return np.percentile(inside, (10, 50, 90), axis=0) * self.ratio


def _span(start: float, end: float, length: int) -> tuple[int, int]:
    first = min(max(0, int(start)), length - 1)
    return first, max(first + 1, min(length, int(np.ceil(end))))


@dataclass(frozen=True)
class _Moving:
    """A box in parts of a pixel, and how many examined frames it has outlived."""

    box: Box
    left: float
    top: float
    right: float
    bottom: float
    age: int = 0

    def moved(self, motion: _Motion) -> _Moving:
        """The box after a frame's movement, a little larger."""
        low, middle, high = motion.under(self.left, self.top, self.right, self.bottom)
        width, height = self.right - self.left, self.bottom - self.top
        spread = np.minimum((high - low) / 2, (LARGEST_SPREAD * width, LARGEST_SPREAD * height))
        still = motion.shifts is None
        across = 0 if still else float(spread[0]) + SLACK + SLACK_RATIO * width
        down = 0 if still else float(spread[1]) + SLACK + SLACK_RATIO * height
        return replace(
            self,
            left=self.left + float(middle[0]) - across,
            right=self.right + float(middle[0]) + across,
            top=self.top + float(middle[1]) - down,
            bottom=self.bottom + float(middle[1]) + down,
        )

    def within(self, rows: int, columns: int) -> Box | None:
        """The box in whole pixels, as far as it lies in the picture."""
        x, y = int(np.floor(self.left)), int(np.floor(self.top))
        width, height = int(np.ceil(self.right)) - x, int(np.ceil(self.bottom)) - y
        return Box(self.box.kind, x, y, width, height, self.box.score).clipped(rows, columns)


@dataclass
class _Step:
    """One frame: what is masked in it, and how its picture moves back to the frame before."""

    boxes: list[Box] = field(default_factory=list)
    back: _Motion | None = None
    found: list[Box] | None = None


@dataclass(frozen=True)
class Plan:
    """``boxes`` of each frame, in pixels, and how many frames were examined: whole, in part."""

    boxes: list[list[Box]]
    examined: int
    looks: int


def plan(
    pictures: Iterable[Image], detect: Detect, step: int, alive: Callable[[], None] = lambda: None
) -> Plan:
    """Return the boxes to mask in each of ``pictures`` (red, green, blue, all of one size).

    Every ``step``-th frame at least is examined whole. Memory holds two whole frames, and of some
    more the movement in a small picture. ``alive`` is called after each frame.
    """
    return _Planner(detect, max(1, step)).run(pictures, alive)


class _Planner:
    def __init__(self, detect: Detect, step: int) -> None:
        self._detect, self._step = detect, step
        # Its annotations do not know that it makes its own answer of None.
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc
        self._steps: list[_Step] = []
        self._examined: list[int] = []
        self._forward: list[_Moving] = []
        self._looks = 0
        self._last_look = -1, Box("text", 0, 0, 0, 0)

    def run(self, pictures: Iterable[Image], alive: Callable[[], None]) -> Plan:
        before: Image | None = None
        for number, picture in enumerate(pictures):
            self._steps.append(_Step())
            if before is None:
                self._examine(number, picture)
            else:
                self._next(number, before, picture)
            before = picture
            alive()
        last = len(self._steps) - 1
        if before is not None and self._examined[-1] != last:
            self._examine(last, before)
        boxes = [without_contained(each.boxes) for each in self._steps]
        return Plan(boxes, len(self._examined), self._looks)

    def _next(self, number: int, before: Image, picture: Image) -> None:
        onward, back, new = self._movement(before, picture)
        place = _around(self._outside_boxes(new), picture)
        if place is not None and not self._has_seen(number - 1, place):
            # What came slowly and goes at once is seen in the last frame that has it.
            self._look(number - 1, before, place)
        if new.mean() >= CUT:
            self._forward = []
        else:
            self._steps[number].back = back
            self._forward = [each.moved(onward) for each in self._forward]
            self._cover(number, self._forward, picture)
        if number - self._examined[-1] >= self._step:
            self._examine(number, picture)
        elif place is not None:
            self._look(number, picture, place)

    def _movement(
        self, before: Image, picture: Image
    ) -> tuple[_Motion, _Motion, NDArray[np.bool_]]:
        """The movement on and back, and the squares of ``picture`` that it does not explain."""
        one, two = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (before, picture))
        rows, columns = one.shape
        scale = min(1.0, SMALL_SIDE / max(rows, columns))
        size = max(16, round(columns * scale)), max(16, round(rows * scale))
        ratio = columns / size[0], rows / size[1]
        if np.array_equal(before, picture):
            still = _Motion(None, ratio)
            return still, still, np.zeros((1, 1), dtype=bool)
        small, other = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (one, two))
        # Each is asked by itself: where something is hidden or comes out they are no opposites.
        on, back = self._flow(small, other, None), self._flow(other, small, None)
        new = _new_squares(one, two, back, ratio)
        return _Motion(on.astype(np.float16), ratio), _Motion(back.astype(np.float16), ratio), new

    def _outside_boxes(self, new: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The new squares that no box covers: in a masked place nothing new can be seen."""
        outside = new.copy()
        for each in self._forward:
            top, left = int(np.ceil(each.top / BLOCK)), int(np.ceil(each.left / BLOCK))
            bottom, right = int(each.bottom // BLOCK), int(each.right // BLOCK)
            outside[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = False
        return outside

    def _has_seen(self, number: int, place: Box) -> bool:
        """Whether a frame was examined there, with enough around it."""
        if self._examined[-1] == number:
            return True
        looked, seen = self._last_look
        inner = MARGIN // 2
        return (
            looked == number
            and seen.x <= place.x + inner
            and seen.y <= place.y + inner
            and seen.right >= place.right - inner
            and seen.bottom >= place.bottom - inner
        )

    def _look(self, number: int, picture: Image, place: Box) -> None:
        """Examine a frame where something is new, the whole of it if that is much of it."""
        rows, columns = picture.shape[:2]
        if place.width * place.height > WHOLE_FROM * rows * columns:
            self._examine(number, picture)
            return
        part = np.ascontiguousarray(picture[place.y : place.bottom, place.x : place.right])
        found = [replace(box, x=box.x + place.x, y=box.y + place.y) for box in self._detect(part)]
        self._looks += 1
        self._last_look = number, place
        self._steps[number].boxes += found
        # The next examined frame on either side shows whether it was more than a moment.
        fresh = [replace(_moving(box), age=PERSISTENCE - 1) for box in found]
        self._forward += fresh
        self._backwards(number, fresh, picture)

    def _examine(self, number: int, picture: Image) -> None:
        here = self._steps[number]
        here.found = self._detect(picture)
        here.boxes += here.found
        fresh = [_moving(box) for box in here.found]
        if self._examined:
            self._between(self._examined[-1], number)
        outlived = [replace(each, age=each.age + 1) for each in self._forward]
        self._forward = [each for each in outlived if each.age < PERSISTENCE] + fresh
        self._backwards(number, fresh, picture)
        self._examined.append(number)
        if len(self._examined) > PERSISTENCE:
            # No box goes further back than this, so the movement there is not needed any more.
            for old in range(self._examined[-PERSISTENCE - 1], self._examined[-PERSISTENCE]):
                self._steps[old].back = None

    def _between(self, first: int, last: int) -> None:
        """What was found at either end of a gap stays masked where it was, all through it."""
        ends = [*(self._steps[first].found or ()), *(self._steps[last].found or ())]
        for number in range(first + 1, last):
            self._steps[number].boxes += ends

    def _backwards(self, number: int, moving: list[_Moving], picture: Image) -> None:
        while moving and number > 0:
            back = self._steps[number].back
            if back is None:
                return
            number -= 1
            moving = [each.moved(back) for each in moving]
            self._cover(number, moving, picture)
            if self._steps[number].found is not None:
                moving = [replace(each, age=each.age + 1) for each in moving]
                moving = [each for each in moving if each.age < PERSISTENCE]

    def _cover(self, number: int, moving: list[_Moving], picture: Image) -> None:
        rows, columns = picture.shape[:2]
        boxes = (each.within(rows, columns) for each in moving)
        self._steps[number].boxes += [box for box in boxes if box is not None]


def _around(new: NDArray[np.bool_], picture: Image) -> Box | None:
    """The rectangle of all new squares with what is around them; None where nothing is new."""
    if not new.any():
        return None
    rows, columns = np.flatnonzero(new.any(axis=1)), np.flatnonzero(new.any(axis=0))
    top, left = int(rows[0]) * BLOCK - MARGIN, int(columns[0]) * BLOCK - MARGIN
    height = (int(rows[-1]) + 1) * BLOCK + MARGIN - top
    width = (int(columns[-1]) + 1) * BLOCK + MARGIN - left
    return Box("text", left, top, width, height).clipped(picture.shape[0], picture.shape[1])


def _moving(box: Box) -> _Moving:
    return _Moving(box, box.x, box.y, box.right, box.bottom)


def _new_squares(
    before: NDArray[Any],
    picture: NDArray[Any],
    back: NDArray[Any],
    ratio: tuple[float, float],
) -> NDArray[np.bool_]:
    """Squares of ``picture`` that are not ``before`` moved; ``back`` is of a small picture."""
    rows, columns = picture.shape
    shifts = cv2.resize(back, (columns, rows), interpolation=cv2.INTER_LINEAR)
    at_x = np.arange(columns, dtype=np.float32)[None] + shifts[:, :, 0] * np.float32(ratio[0])
    at_y = np.arange(rows, dtype=np.float32)[:, None] + shifts[:, :, 1] * np.float32(ratio[1])
    explained = cv2.remap(before, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    signed = picture.astype(np.int16) - explained
    # Averaged, so that the grain of a sensor or of a coder is nothing new.
    new = (np.abs(cv2.blur(signed, (3, 3))) > DIFFERENCE).astype(np.uint8)
    padded = cv2.copyMakeBorder(
        new, 0, -rows % BLOCK, 0, -columns % BLOCK, cv2.BORDER_CONSTANT, value=0
    )
    squares = padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK).sum(axis=(1, 3))
    many: NDArray[np.bool_] = squares >= NEW_PIXELS
    return many
