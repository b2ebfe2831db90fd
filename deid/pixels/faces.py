"""Faces: candidates from CenterFace at eight rotations, each looked at again in several ways."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.pixels.centerface import CenterFace, Faces
from deid.pixels.face_evidence import Candidates, weigh
from deid.pixels.interface import Box, Image, check_image, without_contained

TILE = 704
"""Largest side of what is given to the network in one piece: small pieces stay in the caches."""

STRIP = 352
"""Rows of a piece of a leaning picture: the lower, the less of its empty corners is looked at."""

OVERLAP = 48
"""Pixels that neighbouring tiles share; larger faces are found in the reduced picture."""

REDUCTION = 0.4
"""How much smaller each further look is, until the whole picture is one tile."""

TURNED_SCALE, LEANING_SCALE = 0.6, 0.55
"""The scales of the looks at the turned picture, where faces of 40 pixels are wanted, not of 24. A
leaning picture has empty corners and costs more."""

UPRIGHT = ((0.0, 1.0),)
TURNED = (
    *((degrees, TURNED_SCALE) for degrees in (90.0, 180.0, 270.0)),
    *((degrees, LEANING_SCALE) for degrees in (45.0, 135.0, 225.0, 315.0)),
)
"""Degrees to the left and scales at which a picture is looked at. Where a face leans by 45 degrees
the network sees little, so quarters alone miss some."""

FEW_PIXELS = 400_000
"""Pixels to which small pictures are enlarged, at most twofold: a face of 20 pixels is five places
of the heat map."""

CANDIDATE = 0.04
"""Score from which a place is looked at again."""

DARK = 160
"""A picture whose lightest hundredth is darker, of 255, is brightened: dark faces score low."""

WITHIN, LARGER, SURER = 0.4, 1.2, 3.0
"""A surer face about the middle of another: how far away in sides of that, how many times smaller,
and by how much the logarithm of its odds is higher."""

Matrix = NDArray[np.float64]


class FaceNetwork:
    """Finds faces from about 20 pixels on.

    Two steps, since a low threshold finds every face and much else. First candidates: the picture
    is looked at in tiles, upright in its own size and turned by eighths a little reduced, and each
    again smaller for large faces. Then every candidate is cut out, brought to sizes that the
    network knows well, and looked at again in several ways, which are weighed together
    (:mod:`deid.pixels.face_evidence`). A face counts from the probability ``threshold`` on; the
    fitted one if None. Boxes are grown by ``width_ratio`` and ``height_ratio`` (at least 1), for
    hair and ears tell too.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        threshold: float | None = None,
        rotations: bool = True,
        width_ratio: float = 1.4,
        height_ratio: float = 1.4,
    ) -> None:
        self._network = CenterFace(threads)
        self._threshold = threshold
        self._looks = (*UPRIGHT, *TURNED) if rotations else UPRIGHT
        self._ratios = (width_ratio, height_ratio)

    def detect(self, image: Image) -> list[Box]:
        """The boxes of faces, grown: one or two a face."""
        rows, columns = check_image(image)
        colour = brightened(image if image.ndim == 3 else np.stack([image] * 3, axis=2))
        boxes = []
        found, seen, odds = weigh(self._network, colour, self.candidates(colour), self._threshold)
        alone = ~_around_a_surer_one(found, odds)
        found, seen, odds = found[alone], seen[alone], odds[alone]
        chance = 1 / (1 + np.exp(-odds))
        # A closer look places a face better, the first may hold more of it.
        both = [_bounds(each, found[:, 5], chance) for each in (found, seen)]
        for x, y, width, height, score in np.vstack(both):
            left, top = int(np.floor(x - width / 2)), int(np.floor(y - height / 2))
            right, bottom = int(np.ceil(x + width / 2)), int(np.ceil(y + height / 2))
            box = Box("face", left, top, right - left, bottom - top, float(score))
            inside = box.grown(*self._ratios).clipped(rows, columns)
            if inside is not None:
                boxes.append(inside)
        return without_contained(boxes)

    def candidates(self, picture: Image) -> Candidates:
        """What may be a face in a colour picture, each place once."""
        enlarged = float(np.clip(np.sqrt(FEW_PIXELS / np.prod(picture.shape[:2])), 1, 2))
        sizes: dict[float, Image] = {}
        found = [
            self._look(picture, degrees, scale * enlarged, sizes) for degrees, scale in self._looks
        ]
        return _distinct(np.vstack(found))

    def _look(
        self, picture: Image, degrees: float, scale: float, sizes: dict[float, Image]
    ) -> Candidates:
        """The candidates of the turned picture, at ``scale`` and below; keeps the ``sizes``."""
        found = [np.empty((0, 6))]
        while True:
            if scale not in sizes:
                sizes[scale] = _sized(picture, scale)
            sized = sizes[scale]
            matrix, size = _turning(sized.shape[1], sized.shape[0], degrees)
            back = cv2.invertAffineTransform(matrix)
            for left, top, tile in _tiles(sized, degrees, matrix, size):
                faces = self._network.faces([tile], CANDIDATE)[0]
                middles = (faces[:, :2] + (left, top)) @ back[:, :2].T + back[:, 2]
                middles *= (picture.shape[1] / sized.shape[1], picture.shape[0] / sized.shape[0])
                # Of a face that leaves the picture the part inside lies around the edge.
                middles = np.clip(middles, 0, (picture.shape[1] - 1, picture.shape[0] - 1))
                turned = np.full((len(faces), 1), degrees)
                found.append(np.hstack([middles, faces[:, 2:4] / scale, faces[:, 4:], turned]))
            if max(size) <= TILE:
                return np.vstack(found)
            scale *= REDUCTION


@lru_cache(maxsize=4)
def default_face_detector(threads: int = 1) -> FaceNetwork:
    """The face detector of the shipped profiles; one session a process, kept.

    Raises :class:`policies.errors.CannotRun` when the network's file is not installed.
    """
    return FaceNetwork(threads=threads)


def brightened(picture: Image) -> Image:
    """A dark picture with the lightness of an ordinary one; another as it is."""
    lightest = float(np.percentile(picture[::4, ::4], 99))
    if lightest >= DARK:
        return picture
    found = cv2.convertScaleAbs(picture, alpha=min(4.0, 230 / max(1.0, lightest)))
    return found.astype(np.uint8, copy=False)


def _sized(picture: Image, scale: float) -> Image:
    if scale == 1:
        return picture
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    found = cv2.resize(picture, (width, height), interpolation=method)
    return found.astype(np.uint8, copy=False)


def _turning(width: int, height: int, degrees: float) -> tuple[Matrix, tuple[int, int]]:
    """Where the points of a picture go when it is turned to the left, and its new size."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    wide = int(np.ceil(width * abs(cosine) + height * abs(sine) - 1e-6))
    high = int(np.ceil(width * abs(sine) + height * abs(cosine) - 1e-6))
    turn = np.array([[cosine, sine], [-sine, cosine]])
    shift = np.array([wide, high]) / 2 - turn @ (width / 2, height / 2)
    return np.hstack([turn, shift[:, None]]), (wide, high)


def _tiles(
    picture: Image, degrees: float, matrix: Matrix, size: tuple[int, int]
) -> Iterator[tuple[int, int, Image]]:
    """Pieces of the turned picture that share ``OVERLAP`` and cover it, and where they start."""
    if degrees % 90 == 0:
        turned = np.ascontiguousarray(np.rot90(picture, round(degrees / 90)))
        for top, bottom in _spans(0, size[1], TILE):
            for left, right in _spans(0, size[0], TILE):
                yield left, top, turned[top:bottom, left:right]
        return
    rows, columns = picture.shape[:2]
    corners = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], float)
    corners = corners @ matrix[:, :2].T + matrix[:, 2]
    for top, bottom in _spans(0, size[1], STRIP):
        for left, right in _spans(*_reach(corners, top, bottom), TILE):
            part = matrix.copy()
            # OpenCV counts from the centre of the first pixel.
            part[:, 2] += part[:, :2] @ (0.5, 0.5) - 0.5 - (left, top)
            piece = cv2.warpAffine(picture, part, (right - left, bottom - top))
            yield left, top, piece.astype(np.uint8, copy=False)


def _reach(corners: Matrix, top: int, bottom: int) -> tuple[int, int]:
    """From where to where the outline through ``corners`` goes between two rows."""
    found = []
    for (x, y), (to_x, to_y) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        for row in (y, to_y, top, bottom):
            if min(y, to_y) <= row <= max(y, to_y) and top <= row <= bottom:
                share = (row - y) / (to_y - y) if to_y != y else 0.0
                found.append(x + share * (to_x - x))
    return max(0, int(np.floor(min(found)))), int(np.ceil(max(found)))


def _spans(start: int, end: int, most: int) -> list[tuple[int, int]]:
    length = end - start
    count = max(1, -(-(length - OVERLAP) // (most - OVERLAP)))
    span = -(-(length + (count - 1) * OVERLAP) // count)
    starts = (
        start + round(number * (length - span) / max(1, count - 1)) for number in range(count)
    )
    return [(each, each + span) for each in starts]


def _distinct(candidates: Candidates) -> Candidates:
    """Of candidates of one place and about one size the one of the best score."""
    left = candidates[np.argsort(-candidates[:, 4], kind="stable")]
    side = np.sqrt(left[:, 2] * left[:, 3])
    kept = []
    while len(left):
        kept.append(left[0])
        away = np.hypot(*(left[:, :2] - left[0, :2]).T)
        other = (away > 0.4 * side[0]) | (side > 1.7 * side[0]) | (side < side[0] / 1.7)
        other[0] = False
        left, side = left[other], side[other]
    return np.array(kept).reshape(-1, 6)


def _around_a_surer_one(candidates: Candidates, odds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which candidates are larger than a much surer one about their middle.

    They are the same face with its hair and shoulders, seen in another look: they would only hide
    more of what is beside it.
    """
    middles, side = candidates[:, :2], np.sqrt(candidates[:, 2] * candidates[:, 3])
    away = np.hypot(*(middles[:, None] - middles[None]).transpose(2, 0, 1))
    within = (away < WITHIN * side[:, None]) & (side[:, None] > LARGER * side[None])
    found: NDArray[np.bool_] = (within & (odds[None] > odds[:, None] + SURER)).any(axis=1)
    return found


def _bounds(faces: Faces, degrees: NDArray[np.float64], scores: NDArray[np.float64]) -> Faces:
    """Upright rectangles around ovals that lean by ``degrees``."""
    width, height = faces[:, 2], faces[:, 3]
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    wide, high = np.hypot(width * cosine, height * sine), np.hypot(width * sine, height * cosine)
    return np.stack([faces[:, 0], faces[:, 1], wide, high, scores], axis=1)
