"""Our own detector of writing: a small network that says, cell by cell, where strokes are.

Trained by ``scripts/train_stroke_network.py`` on generated writing of any script and size over
phantoms, photographs, textures and clutter that is no writing. It looks at strokes and not at
words, so it finds single letters, numbers and faint ones alike, and takes organs for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.pixels.interface import Box, Image, check_image, without_contained
from deid.pixels.onnx_session import open_session
from policies.errors import CannotRun, _

MODEL = Path(__file__).with_name("stroke_network.onnx")

CELL = 4
"""Pixels of a side of what one output of the network speaks for."""

SCALES = (1.0, 0.5, 0.25)
"""The network was trained on letters of 8 to 40 pixels; larger ones are found in smaller copies."""

CORE, MARGIN = 1024, 96
"""Pixels of a tile that count, and those around it that the network sees of (its field of view)."""

SHORT, FULL = 6, 0.5
"""Cells of the longer side, and the share of writing, from which a box is not cut into smaller."""

REACH, CLOSE = 5, 0
"""Cells added to both ends of a line, at most its height: as a rule, and by a second look."""

TAIL = 0.3
"""What is added at least, in heights of the line."""

MULTIPLE = 8
"""The network halves a picture three times."""

COLOURED = 6
"""Mean difference of a picture's channels, of 255, from which on its colours are looked at too."""

COVERED = 76
"""Of 255, the share of a cell from which on letters found in a larger copy explain it."""

Map = NDArray[np.float32]


class StrokeNetwork:
    """Finds writing; ``low`` and ``high`` are probabilities.

    A group of neighbouring cells above ``low`` counts if one of them is above ``high``: a faint
    letter at the end of a line that is otherwise plain belongs to the line.
    """

    def __init__(self, *, threads: int = 1, low: float = 0.2, high: float = 0.4) -> None:
        if not MODEL.is_file():
            raise CannotRun(
                _("The detector {name} is not installed; install Glovebox again."),
                code="deid.detector-missing",
                name=MODEL.name,
            )
        self._session = open_session(MODEL, threads)
        self._low, self._high = low, high

    def detect(self, image: Image) -> list[Box]:
        """One box for each group of letters, grown to cover them."""
        return self._found(image, SCALES, REACH)

    def glance(self, image: Image) -> list[Box]:
        """The same for letters of the usual sizes only, cut close: three quarters of the work."""
        return self._found(image, SCALES[:1], CLOSE)

    def _found(self, image: Image, scales: Sequence[float], reach: int) -> list[Box]:
        rows, columns = check_image(image)
        boxes: list[Box] = []
        for plane in _planes(image):
            covered = np.zeros((rows, columns), np.uint8)
            for scale in scales:
                for box in self._at(plane, scale, covered, reach):
                    covered[box.y : box.bottom, box.x : box.right] = 255
                    boxes.append(box)
        return without_contained(boxes)

    def _at(
        self, plane: NDArray[np.uint8], scale: float, covered: NDArray[np.uint8], reach: int
    ) -> Iterator[Box]:
        """The boxes of a smaller copy, without what larger ones have ``covered`` already.

        Small letters look like one blurred line from afar; they have their own boxes by then.
        """
        rows, columns = plane.shape
        height, width = round(rows * scale), round(columns * scale)
        if scale < 1:
            if min(height, width) < MULTIPLE:
                return
            plane = cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA).astype(
                np.uint8, copy=False
            )
        probability = self.probability(plane)
        if scale < 1 and covered.any():
            shape = (probability.shape[1], probability.shape[0])
            share = cv2.resize(covered, shape, interpolation=cv2.INTER_AREA)
            probability[share > COVERED] = 0
        for left, top, right, bottom, score in list(self._groups(probability, reach)):
            x, y = int(left / scale), int(top / scale)
            wide, tall = int(np.ceil(right / scale)) - x, int(np.ceil(bottom / scale)) - y
            box = Box("text", x, y, wide, tall, score).clipped(rows, columns)
            if box is not None:
                yield box

    def probability(self, plane: NDArray[np.uint8]) -> Map:
        """The probability of writing in each cell of a grey picture ``[rows, columns]``."""
        rows, columns = plane.shape
        below, beside = -rows % MULTIPLE, -columns % MULTIPLE
        # Mirrored: noise repeated to the edge would look like a row of strokes.
        padded = cv2.copyMakeBorder(plane, 0, below, 0, beside, cv2.BORDER_REFLECT_101)
        answer = np.zeros((padded.shape[0] // CELL, padded.shape[1] // CELL), np.float32)
        for top in range(0, padded.shape[0], CORE):
            for left in range(0, padded.shape[1], CORE):
                above, before = min(top, MARGIN), min(left, MARGIN)
                tile = padded[
                    top - above : top + CORE + MARGIN, left - before : left + CORE + MARGIN
                ]
                batch = tile[None, None].astype(np.float32) / np.float32(127.5) - np.float32(1)
                logits = self._session.run(None, {"picture": batch})[0][0, 0]
                inner = logits[above // CELL :, before // CELL :][: CORE // CELL, : CORE // CELL]
                y, x = top // CELL, left // CELL
                answer[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
        return np.asarray(1 / (1 + np.exp(-answer)), dtype=np.float32)

    def _groups(self, probability: Map, reach: int) -> Iterator[tuple[int, int, int, int, float]]:
        """Left, top, right, bottom in pixels, and the highest probability, of each group."""
        cells = (probability > self._low).astype(np.uint8)
        joined = cv2.dilate(cells, np.ones((1, 3), np.uint8))
        count, labels, stats, _centres = cv2.connectedComponentsWithStats(joined, connectivity=8)
        peaks: Map = np.zeros(count, np.float32)
        np.maximum.at(peaks, labels.ravel().astype(np.int64), (probability * cells).ravel())
        sizes = np.bincount(labels.ravel(), weights=cells.ravel(), minlength=count)
        for label in range(1, count):
            if peaks[label] < self._high or sizes[label] < 2:
                continue
            x, y, width, height, _area = (int(each) for each in stats[label])
            inside = labels[y : y + height, x : x + width] == label
            for left, top, wide, tall in _tight(inside):
                # The last letter of a line, where the ground changes under it, is lost first, then
                # dots and tails of letters.
                height = min(wide, tall)
                along = 1 + max(int(TAIL * height), min(height, reach))
                more_wide, more_tall = (along, 1) if wide >= tall else (1, along)
                yield (
                    (x + left - more_wide) * CELL,
                    (y + top - more_tall) * CELL,
                    (x + left + wide + more_wide) * CELL,
                    (y + top + tall + more_tall) * CELL,
                    float(peaks[label]),
                )


def _tight(cells: NDArray[np.bool_]) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, width and height of boxes around all ``cells`` of a group.

    One, unless that would be mostly empty: what leans or bends, as an edge does, is cut across
    until each piece is full or short.
    """
    down, along = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    if not len(down):
        return
    top, left = int(down[0]), int(along[0])
    cells = cells[top : down[-1] + 1, left : along[-1] + 1]
    tall, wide = cells.shape
    if max(tall, wide) <= SHORT or cells.mean() >= FULL:
        yield left, top, wide, tall
        return
    for part in (0, 1):
        middle = max(tall, wide) // 2
        half = slice(0, middle) if part == 0 else slice(middle, None)
        x, y = (part * middle, 0) if wide >= tall else (0, part * middle)
        for box in _tight(cells[:, half] if wide >= tall else cells[half]):
            yield left + x + box[0], top + y + box[1], box[2], box[3]


def _planes(image: Image) -> list[NDArray[np.uint8]]:
    """The grey pictures to look at: one, or three where colours could hide what grey does not show.

    Letters as bright as what they stand on differ from it in their largest or smallest channel.
    """
    if image.ndim == 2:
        return [image]
    grey: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
    largest, smallest = image.max(axis=2), image.min(axis=2)
    if float((largest - smallest).mean()) < COLOURED and not (largest - smallest > 64).any():
        return [grey]
    return [grey, largest, smallest]
