"""Faces put into photographs at sizes, angles and disturbances, so that where they are is known.

The heads are cut out of pictures that scikit-image carries: NASA's portrait, and a hundred faces
of 25 by 25 pixels from Labeled Faces in the Wild. No other installed package carries a face; those
of ``photographed_heads.py`` are fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deid.pixels.interface import Box
from synthetic.photos import PORTRAIT, PORTRAIT_CUT, PORTRAIT_FACE, SCENES, package_photo

SIZES = (24, 32, 40, 60, 90, 140)
"""Widths of a face in pixels."""

COVERED = 0.95
"""Share of the oval in a face's rectangle that has to be masked for it to count as found."""

NEAR = 1.6
"""How much larger than the face's box a mask may be before it counts as masking beside."""

FACELESS = (
    *SCENES, "clock_motion.png", "hubble_deep_field.jpg", "ihc.png", "moon.png",
    "page.png", "retina.jpg", "text.png", "motorcycle_right.png",
)  # fmt: skip
"""Pictures without a face."""


@dataclass(frozen=True)
class Split:
    """Which people are shown, and before which photographs."""

    people: Callable[[], list[Head]]
    scenes: tuple[str, ...]


FITTING = Split(
    lambda: heads()[1::2],
    ("motorcycle_right.png", "coffee.png", "grass.png", "clock_motion.png",
     "hubble_deep_field.jpg", "ihc.png", "retina.jpg", "text.png", "page.png"),
)  # fmt: skip
"""What the detector's weights and thresholds are fitted with; the figures are never taken here."""

WILD = Split(lambda: heads()[2::2], SCENES)
"""The other half of the small people. Of the photographs the coffee and the grass were fitted
with, and the motorcycle from a little to the right."""

NATURAL = Split(lambda: heads()[:1], SCENES)
"""The portrait alone: sharp, with hair, neck and shoulders. Nothing was fitted with it."""

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

DISTURBANCES: Mapping[str, Callable[[Pixels], Pixels]] = {
    "none": lambda picture: picture,
    "dark": lambda picture: (picture * 0.35).astype(np.uint8),
    "blurred": lambda picture: cv2.GaussianBlur(picture, (0, 0), 1.0),
    "grey": lambda picture: cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY),
}


@dataclass(frozen=True)
class Head:
    """A cut-out head and where its face is in it: x, y, width, height."""

    name: str
    pixels: Pixels
    face: tuple[float, float, float, float]

    def reduced(self, width: int) -> Head:
        """The head with a face of ``width`` pixels, averaged."""
        x, y, face_width, face_height = self.face
        rows, columns = self.pixels.shape[:2]
        size = tuple(max(1, round(side * width / face_width)) for side in (columns, rows))
        smaller = cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA)
        across, down = size[0] / columns, size[1] / rows
        face = (x * across, y * down, face_width * across, face_height * down)
        return Head(self.name, smaller.astype(np.uint8, copy=False), face)


@dataclass(frozen=True)
class Placed:
    """A face in a picture: its width, how far it is turned to the left, and its oval."""

    head: str
    width: int
    degrees: float
    oval: Mask


@lru_cache(maxsize=1)
def heads() -> list[Head]:
    """The portrait, then 100 faces of 25 by 25 pixels; those may show a person twice."""
    top, bottom, left, right = PORTRAIT_CUT
    portrait = Head("portrait", package_photo(PORTRAIT)[top:bottom, left:right], PORTRAIT_FACE)
    skimage_data = pytest.importorskip("skimage.data")
    small = (skimage_data.lfw_subset()[:100] * 255).astype(np.uint8)
    return [
        portrait,
        *(
            Head(f"wild {number}", np.stack([each] * 3, axis=2), (3, 3, 19, 21))
            for number, each in enumerate(small)
        ),
    ]


def place(
    scene: Pixels, head: Head, width: int, degrees: float, rng: np.random.Generator, taken: Mask
) -> Placed | None:
    """Put a head into ``scene`` where nothing is ``taken`` yet; None where there is no room."""
    if head.face[2] > 2 * width:
        # Picked pixels would make patterns that no camera makes.
        head = head.reduced(width)
    x, y, face_width, face_height = head.face
    scale = width / face_width
    rows, columns = (round(side * scale) for side in head.pixels.shape[:2])
    around = cv2.getRotationMatrix2D((columns / 2, rows / 2), degrees, 1.0)
    cosine, sine = abs(around[0, 0]), abs(around[0, 1])
    wide = int(np.ceil(columns * cosine + rows * sine))
    high = int(np.ceil(columns * sine + rows * cosine))
    around[:, 2] += ((wide - columns) / 2, (high - rows) / 2)
    around[:, :2] *= scale
    centre = around @ (x + face_width / 2, y + face_height / 2, 1)
    # OpenCV counts from the centre of the first pixel, the face's rectangle from its edge.
    around[:, 2] += around[:, :2] @ (0.5, 0.5) - 0.5
    head_at = cv2.warpAffine(head.pixels, around, (wide, high), flags=cv2.INTER_CUBIC)
    solid = np.full(head.pixels.shape[:2], 255, np.uint8)
    inside = cv2.warpAffine(solid, around, (wide, high), flags=cv2.INTER_NEAREST) > 0
    oval = np.zeros((high, wide), np.uint8)
    axes = (face_width * scale / 2, face_height * scale / 2)
    cv2.ellipse(oval, (tuple(centre), (axes[0] * 2, axes[1] * 2), -degrees), 255, -1)
    for _attempt in range(200):
        if scene.shape[0] <= high or scene.shape[1] <= wide:
            return None
        top, left = (
            int(rng.integers(scene.shape[axis] - side)) for axis, side in ((0, high), (1, wide))
        )
        area = np.s_[top : top + high, left : left + wide]
        if taken[area].any():
            continue
        scene[area][inside] = head_at[inside]
        taken[area] = True
        whole = np.zeros(scene.shape[:2], bool)
        whole[area] = oval > 0
        return Placed(head.name, width, degrees, whole)
    return None


def scene_of(rng: np.random.Generator, scenes: tuple[str, ...] = SCENES) -> Pixels:
    """A picture without a face, of 600 to 1,300 columns."""
    scene = package_photo(scenes[int(rng.integers(len(scenes)))])
    scale = float(rng.uniform(600, 1300)) / scene.shape[1]
    return np.ascontiguousarray(cv2.resize(scene, None, fx=scale, fy=scale))


def masked(shape: tuple[int, ...], boxes: list[Box]) -> Mask:
    """What the boxes hide."""
    mask = np.zeros(shape[:2], dtype=bool)
    for box in boxes:
        mask[box.y : box.bottom, box.x : box.right] = True
    return mask


def is_found(mask: Mask, face: Mask) -> bool:
    """Whether the mask hides the face."""
    return bool((mask & face).sum() >= COVERED * face.sum())


def beside(mask: Mask, faces: list[Placed]) -> float:
    """Share of the picture's pixels that are masked outside ``NEAR`` times the faces' boxes."""
    allowed = np.zeros(mask.shape, bool)
    for face in faces:
        rows, columns = (np.nonzero(face.oval.any(axis=axis))[0] for axis in (1, 0))
        box = Box(
            "face",
            int(columns[0]),
            int(rows[0]),
            int(columns[-1] - columns[0]) + 1,
            int(rows[-1] - rows[0]) + 1,
        )
        near = box.grown(NEAR, NEAR).clipped(*mask.shape)
        assert near is not None
        allowed[near.y : near.bottom, near.x : near.right] = True
    return float((mask & ~allowed).mean())


def pictures(
    seed: int, count: int, split: Split, faces_each: int = 3
) -> Any:  # of (disturbance, picture, list of Placed)
    """``count`` pictures; sizes, angles and disturbances are drawn evenly."""
    rng = np.random.default_rng(seed)
    people = split.people()
    number = 0
    for each in range(count):
        scene = scene_of(rng, split.scenes)
        taken = np.zeros(scene.shape[:2], bool)
        placed = []
        for _face in range(faces_each):
            # A quarter upright, a quarter turned by quarters, the rest at any angle.
            angle = (0.0, float(rng.uniform(0, 360)), 90.0 * int(rng.integers(1, 4)),
                     float(rng.uniform(0, 360)))[number % 4]  # fmt: skip
            # Strides that share no divisor with their counts take every combination in turn.
            width = SIZES[(number // 4) % len(SIZES)]
            head = people[number * 7 % len(people)]
            face = place(scene, head, width, angle, rng, taken)
            number += 1
            if face is not None:
                placed.append(face)
        # Sizes come back every eight pictures: without the second term each would meet only two.
        name = list(DISTURBANCES)[(each + each // 8) % len(DISTURBANCES)]
        yield name, DISTURBANCES[name](scene), placed
