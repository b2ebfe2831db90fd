"""Whether a candidate is a face: what several looks at it say, weighed.

The network's score at one look tells little where it is low; that of a closer look, of a larger
one, of leaning ones and of one with stretched contrast err at other places. How much each counts
is fitted by ``scripts/fit_face_evidence.py`` (logistic regression) and stands in
``face_evidence.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.pixels.centerface import CenterFace, Faces
from deid.pixels.interface import Image

WEIGHTS = Path(__file__).with_name("face_evidence.json")

Candidates = NDArray[np.float64]
"""One row a candidate: x and y of its middle, width, height, score, and the degrees to the left by
which the picture was turned when it was seen; width and height are those of the upright face."""

Numbers = NDArray[np.float64]

BATCH = 8

LITTLE = 0.005
"""The least score that is told from another: far below, the network's numbers are noise."""


@dataclass(frozen=True)
class View:
    """How a candidate is looked at again: a square of ``side`` pixels, its face ``face`` wide."""

    side: int
    face: int
    lean: float = 0.0
    mirrored: bool = False
    stretched: bool = False


VIEWS = (
    View(96, 60),
    View(96, 60, stretched=True),
    View(128, 80),
    View(96, 60, lean=-22.0),
    View(96, 60, lean=22.0),
)
"""In the order in which they are taken: each decides whether the next is worth its time."""


@dataclass(frozen=True)
class Weighing:
    """Weights of the features, the last that of nothing, and the least sum that counts."""

    weights: Numbers
    least: float

    def sums(self, features: Numbers) -> Numbers:
        """The logarithm of the odds that each row of ``features`` is a face."""
        found: Numbers = features @ self.weights[:-1] + self.weights[-1]
        return found


@lru_cache(maxsize=1)
def stages() -> tuple[Weighing, ...]:
    """The weighing before any view, then that after each of :data:`VIEWS`."""
    loaded = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    return tuple(Weighing(np.array(each["weights"]), each["least"]) for each in loaded)


def weigh(
    network: CenterFace, picture: Image, candidates: Candidates, threshold: float | None = None
) -> tuple[Candidates, Faces, Numbers]:
    """The candidates that are faces, what the view of the best score saw, and their odds.

    Those that are hopeless after some views are not looked at further. ``threshold`` is the
    probability from which a face counts, the fitted one if None.
    """
    scores, seen = np.empty((len(candidates), 0)), candidates[:, :5].copy()
    seen[:, 4] = 0
    odds = np.empty(0)
    for number, weighing in enumerate(stages()):
        if number:
            score, faces = look_again(network, picture, candidates, VIEWS[number - 1])
            scores = np.column_stack([scores, score])
            better = score > seen[:, 4]
            seen[better] = faces[better]
        least = weighing.least
        if threshold is not None:
            # The earlier stages move with the last.
            least += float(np.log(threshold / (1 - threshold))) - stages()[-1].least
        share = candidates[:, 2] * candidates[:, 3] / (picture.shape[0] * picture.shape[1])
        odds = weighing.sums(features(candidates, scores)) - surer(share)
        left = odds >= least
        candidates, scores, seen, odds = candidates[left], scores[left], seen[left], odds[left]
    return candidates, seen, odds


def look_again(
    network: CenterFace, picture: Image, candidates: Candidates, view: View
) -> tuple[Numbers, Faces]:
    """The score of each candidate in that view, and the face seen there, in the picture's pixels.

    Where no face is seen, the score is 0 and the face is the candidate.
    """
    scores, faces = np.zeros(len(candidates)), candidates[:, :5].copy()
    middle = view.side / 2
    for start in range(0, len(candidates), BATCH):
        some = candidates[start : start + BATCH]
        seen = network.faces([_view(picture, each, view) for each in some], LITTLE)
        for number, found in enumerate(seen, start):
            away = np.hypot(found[:, 0] - middle, found[:, 1] - middle)
            wide = found[:, 2]
            likely = found[(away < view.face / 2) & (wide > view.face / 2) & (wide < view.face * 2)]
            if len(likely):
                best = likely[likely[:, 4].argmax()]
                scores[number] = best[4]
                faces[number] = _in_picture(best, candidates[number], view)
    return scores, faces


def features(candidates: Candidates, scores: Numbers) -> Numbers:
    """What is weighed: one row a candidate; ``scores`` are those of the views, one column each."""
    side = np.sqrt(candidates[:, 2] * candidates[:, 3])
    columns = [_odds(candidates[:, 4]), np.log(side / 40), candidates[:, 5] == 0]
    columns += [np.abs(np.log(candidates[:, 3] / candidates[:, 2]) - TALL)]
    columns += list(_odds(scores).T)
    if scores.shape[1] > 1:
        columns += [_odds(scores.max(axis=1)), _odds(np.median(scores, axis=1))]
    return np.stack(columns, axis=1)


def surer(share: Numbers) -> Numbers:
    """By how much the odds of a candidate of that share of the picture have to be better.

    A wrong box costs what it hides.
    """
    return np.log(np.maximum(share, LARGE) / LARGE)


LARGE = 0.03
"""Share of the picture from which on a candidate has to be surer."""

TALL = 0.3
"""Logarithm of how much taller than wide a face is to the network."""


def _odds(scores: Numbers) -> Numbers:
    kept = np.clip(scores, LITTLE, 1 - LITTLE)
    found: Numbers = np.log(kept / (1 - kept))
    return found


def _view(picture: Image, candidate: Numbers, view: View) -> Image:
    x, y, width, height, _score, degrees = candidate
    scale = view.face / float(np.sqrt(width * height))
    if scale < 0.6:
        # Only what is needed is reduced, by averaging: picked pixels would make patterns.
        reach = view.side / scale
        left, top = max(0, int(x - reach)), max(0, int(y - reach))
        part = picture[top : int(y + reach) + 1, left : int(x + reach) + 1]
        rows, columns = part.shape[:2]
        size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        reduced = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        picture, scale = reduced.astype(np.uint8, copy=False), 1.0
        x, y = (x - left) * size[0] / columns, (y - top) * size[1] / rows
    # OpenCV counts from the centre of the first pixel.
    matrix = cv2.getRotationMatrix2D((x - 0.5, y - 0.5), degrees + view.lean, scale)
    matrix[0, 2] += view.side / 2 - x
    matrix[1, 2] += view.side / 2 - y
    turned = cv2.warpAffine(
        picture,
        matrix,
        (view.side, view.side),
        flags=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    cut = turned.astype(np.uint8, copy=False)
    if view.stretched:
        cut = stretched(cut)
    return np.ascontiguousarray(cut[:, ::-1]) if view.mirrored else cut


def stretched(picture: Image) -> Image:
    """The picture with its darkest and lightest hundredth at the ends of what can be shown."""
    low, high = np.percentile(picture, (1, 99))
    if high - low < 8:
        return picture
    gain = 255 / (high - low)
    above = np.maximum(picture, int(low)) - np.uint8(low)
    return cv2.convertScaleAbs(above, alpha=gain).astype(np.uint8, copy=False)


def _in_picture(seen: Numbers, candidate: Numbers, view: View) -> Numbers:
    """A face in a view, in the pixels of the picture."""
    scale = view.face / float(np.sqrt(candidate[2] * candidate[3]))
    right, down = (seen[:2] - view.side / 2) / scale
    if view.mirrored:
        right = -right
    angle = np.radians(candidate[5] + view.lean)
    x = candidate[0] + right * np.cos(angle) - down * np.sin(angle)
    y = candidate[1] + right * np.sin(angle) + down * np.cos(angle)
    return np.array([x, y, seen[2] / scale, seen[3] / scale, seen[4]])
