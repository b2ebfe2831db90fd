"""One interface for everything that looks for identifying regions in a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Kind: TypeAlias = Literal["text", "face", "plate"]
Image: TypeAlias = NDArray[np.uint8]
"""``[rows, columns]`` grey or ``[rows, columns, 3]`` red, green, blue, as displayed."""


@dataclass(frozen=True)
class Box:
    """A region to mask: whole pixels of the picture it was found in, ``x`` to the right.

    ``score`` is the detector's own confidence from 0 to 1; it orders boxes of one kind for the
    people who review them and is not a probability.
    """

    kind: Kind
    x: int
    y: int
    width: int
    height: int
    score: float = 1.0

    @property
    def right(self) -> int:
        """First column to the right of the box."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First row below the box."""
        return self.y + self.height

    def grown(self, width_ratio: float, height_ratio: float) -> Box:
        """The box made larger around its centre; ratios below 1 raise :class:`ValueError`."""
        if width_ratio < 1 or height_ratio < 1:
            raise ValueError("A box may only grow: both ratios must be at least 1.")
        add_x = int(np.ceil(self.width * (width_ratio - 1) / 2))
        add_y = int(np.ceil(self.height * (height_ratio - 1) / 2))
        return Box(
            self.kind,
            self.x - add_x,
            self.y - add_y,
            self.width + 2 * add_x,
            self.height + 2 * add_y,
            self.score,
        )

    def clipped(self, rows: int, columns: int) -> Box | None:
        """The part of the box inside a picture of that size; None when nothing is left."""
        left, top = max(0, self.x), max(0, self.y)
        right, bottom = min(columns, self.right), min(rows, self.bottom)
        if right <= left or bottom <= top:
            return None
        return Box(self.kind, left, top, right - left, bottom - top, self.score)


def listed(boxes: Iterable[Box]) -> list[list[str | int | float]]:
    """Boxes as plain values for a message: kind, x, y, width, height in pixels, score."""
    return [
        [box.kind, int(box.x), int(box.y), int(box.width), int(box.height), float(box.score)]
        for box in boxes
    ]


class Detector(Protocol):
    """Finds regions in one picture."""

    def detect(self, image: Image) -> list[Box]:
        """Boxes inside ``image``; an empty list when nothing was found.

        Raises :class:`ValueError` for anything that is not an 8-bit picture.
        """
        ...


class TextDetector(Detector, Protocol):
    """Finds text."""

    def glance(self, image: Image) -> list[Box]:
        """What one quick look finds, as :meth:`detect` gives it."""
        ...


@dataclass(frozen=True)
class Together:
    """Several detectors as one: every box of each of them, what one contains not repeated."""

    detectors: Sequence[Detector]

    def detect(self, image: Image) -> list[Box]:
        """The union of the boxes of all detectors."""
        return without_contained(box for each in self.detectors for box in each.detect(image))


def check_image(image: Image) -> tuple[int, int]:
    """The rows and columns of a displayable picture; :class:`ValueError` for anything else."""
    if image.dtype != np.uint8:
        raise ValueError("A picture for detection must have 8 bits a sample.")
    if image.ndim == 3 and image.shape[2] != 3:
        raise ValueError("A colour picture for detection must have three channels.")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError("A picture for detection must have rows and columns.")
    return int(image.shape[0]), int(image.shape[1])


def without_contained(boxes: Iterable[Box]) -> list[Box]:
    """The boxes, largest first, without those that lie wholly inside a kept one of their kind."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda each: (-each.width * each.height, each.y, each.x)):
        inside = any(
            other.kind == box.kind
            and other.x <= box.x
            and other.y <= box.y
            and other.right >= box.right
            and other.bottom >= box.bottom
            for other in kept
        )
        if not inside:
            kept.append(box)
    return kept


SPARE = 1.1
"""How much larger than what two boxes cover the one box may be that takes their place."""


def joined(boxes: Iterable[Box]) -> list[Box]:
    """The boxes, largest first, with one in place of several that cover nearly the same.

    Several looks find one line several times; for whoever judges the boxes it is one. The box
    around two of a kind replaces them where it covers hardly more than they do together.
    """
    kept: list[Box] = []
    waiting = without_contained(boxes)[::-1]
    while waiting:
        box = waiting.pop()
        for other in kept:
            if (one := _around(box, other)) is not None:
                kept.remove(other)
                waiting.append(one)
                break
        else:
            kept.append(box)
    return without_contained(kept)


def _around(box: Box, other: Box) -> Box | None:
    """The box around two of one kind that overlap, unless it would cover much that they do not."""
    wide = min(box.right, other.right) - max(box.x, other.x)
    tall = min(box.bottom, other.bottom) - max(box.y, other.y)
    if box.kind != other.kind or wide <= 0 or tall <= 0:
        return None
    covered = box.width * box.height + other.width * other.height - wide * tall
    x, y = min(box.x, other.x), min(box.y, other.y)
    width, height = max(box.right, other.right) - x, max(box.bottom, other.bottom) - y
    if width * height > SPARE * covered:
        return None
    return Box(box.kind, x, y, width, height, max(box.score, other.score))
