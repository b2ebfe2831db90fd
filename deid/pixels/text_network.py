"""The PP-OCRv6 text detector, run directly at a low threshold.

The network (Apache-2.0, carried by the ``rapidocr`` package) gives for every pixel the probability
of lying in the kernel of a text line; the kernel is grown back to the line as in Liao et al.,
"Real-time Scene Text Detection with Differentiable Binarization" (AAAI 2020), section 3.4.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.pixels.interface import Box, Image, check_image
from deid.pixels.onnx_session import open_session, package_file

MULTIPLE = 32
"""The network halves a picture five times."""

TILE = 960
"""Largest side, in pixels given to the network, that is looked at in one piece."""

OVERLAP = 160
"""Pixels that neighbouring tiles share: more than the tallest line is high."""

SMALLEST = 320
"""Smaller pictures get a plain margin: without surroundings the network sees lines in noise."""

TALLEST = 64
"""Tallest line of text, in pixels, at full size and above. Without a bound the network takes a
whole bright organ for one large letter."""

CERTAIN = 0.9
"""Score from which a taller line is believed. Lines of letters score 0.9 at any height; of the
public test images no organ did that is longer than high; a lead marker did."""


class TextNetwork:
    """Finds lines of text in any script.

    ``pixel_threshold`` and ``line_threshold`` are far below the usual 0.3 and 0.5: a mask too
    many costs a few pixels, a name missed is a leak. Every picture is looked at twice. Once as it
    is; and once as its relief, where only thin strokes are left and the organs beneath are gone:
    otherwise writing over anatomy is swallowed by the anatomy. The relief is enlarged twice while
    it stays within ``budget`` pixels, because small and faint letters are found there. Large
    pictures are looked at in half size too, for large letters.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        pixel_threshold: float = 0.1,
        line_threshold: float = 0.2,
        budget: int = 4_400_000,
    ) -> None:
        model = package_file("rapidocr", "models", "PP-OCRv6_det_small.onnx")
        self._session = open_session(model, threads)
        self._input = self._session.get_inputs()[0].name
        self._pixel_threshold = pixel_threshold
        self._line_threshold = line_threshold
        self._budget = budget

    def detect(self, image: Image) -> list[Box]:
        """One box a line of text, grown to cover its letters."""
        rows, columns = check_image(image)
        enlarged = float(np.clip(np.sqrt(self._budget / (rows * columns)), 1, 2))
        boxes = self._detect_at(image, 1.0)
        boxes += self._detect_at(relief(image), enlarged)
        if max(rows, columns) > 1000:
            boxes += self._detect_at(image, 0.5)
        return boxes

    def glance(self, image: Image) -> list[Box]:
        """The lines of text that stand out in a picture as it is, at a fraction of the time."""
        check_image(image)
        return self._detect_at(image, 1.0)

    def _detect_at(self, image: Image, scale: float) -> list[Box]:
        rows, columns = image.shape[:2]
        height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
        resized: Image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC).astype(
            np.uint8, copy=False
        )
        tallest = min(TALLEST / min(scale, 1.0), max(rows, columns) / 2)
        boxes = []
        for top, left in _tiles(height, width):
            tile = resized[top : top + TILE, left : left + TILE]
            for x, y, right, bottom, score in self._lines(tile):
                box = _box(
                    (x + left) / scale,
                    (y + top) / scale,
                    (right + left) / scale,
                    (bottom + top) / scale,
                    score,
                ).clipped(rows, columns)
                if box is not None and _is_line(box, tallest, min(rows, columns)):
                    boxes.append(box)
        return boxes

    def _probability(self, tile: Image) -> NDArray[np.float32]:
        rows, columns = tile.shape[:2]
        below = _multiple(max(rows, SMALLEST)) - rows
        beside = _multiple(max(columns, SMALLEST)) - columns
        plain = [int(each) for each in np.median(tile, axis=(0, 1)).reshape(-1)]
        padded = cv2.copyMakeBorder(tile, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=plain)
        # The network was trained on blue, green, red.
        colour = padded[:, :, ::-1] if padded.ndim == 3 else np.stack([padded] * 3, axis=2)
        batch = (colour.transpose(2, 0, 1)[None].astype(np.float32) / 255 - 0.5) / 0.5
        answer: NDArray[np.float32] = self._session.run(None, {self._input: batch})[0]
        return answer[0, 0, :rows, :columns]

    def _lines(self, tile: Image) -> Iterator[tuple[float, float, float, float, float]]:
        """Left, top, right, bottom and score of each line, in pixels of the tile."""
        probability = self._probability(tile)
        kernel = (probability > self._pixel_threshold).astype(np.uint8)
        count, labels, stats, _centres = cv2.connectedComponentsWithStats(kernel, connectivity=8)
        sums = np.bincount(labels.ravel(), weights=probability.ravel(), minlength=count)
        for label in range(1, count):
            x, y, width, height, area = (int(each) for each in stats[label])
            score = float(sums[label] / area)
            if score < self._line_threshold or min(width, height) < 2:
                continue
            grow = 1.6 * width * height / (2 * (width + height)) + 2
            # The faint last letter of a line is the one that the kernel loses.
            along = 0.3 * (min(width, height) + 2 * grow)
            wide = grow + (along if width >= height else 0)
            tall = grow + (along if width < height else 0)
            yield x - wide, y - tall, x + width + wide, y + height + tall, score


def _is_line(box: Box, tallest: float, side: int) -> bool:
    """Whether the box is of a line's height, or surely one of letters as tall as organs."""
    small, large = sorted((box.width, box.height))
    if small <= tallest:
        return True
    return box.score >= CERTAIN and large >= 1.5 * small and small <= side / 2


def relief(image: Image) -> Image:
    """What stands out by being thin, around a middle grey: bright strokes above, dark ones below.

    The difference of the white and the black top-hat with a disc of 9 pixels, about the stroke of
    the tallest letters that are burned in.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    bright = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, disc).astype(np.int16)
    dark = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, disc).astype(np.int16)
    shifted: Image = np.clip(128 + bright - dark, 0, 255).astype(np.uint8)
    return shifted


def _tiles(height: int, width: int) -> Iterator[tuple[int, int]]:
    step = TILE - OVERLAP
    for top in range(0, max(1, height - OVERLAP), step):
        for left in range(0, max(1, width - OVERLAP), step):
            yield top, left


def _multiple(size: int) -> int:
    return max(MULTIPLE, -(-size // MULTIPLE) * MULTIPLE)


def _box(left: float, top: float, right: float, bottom: float, score: float) -> Box:
    x, y = int(np.floor(left)), int(np.floor(top))
    return Box("text", x, y, int(np.ceil(right)) - x, int(np.ceil(bottom)) - y, min(score, 1.0))
