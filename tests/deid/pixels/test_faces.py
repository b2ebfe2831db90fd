"""Faces are found from 24 pixels on and however the picture is turned."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import pytest

from deid.pixels.faces import FaceNetwork, default_face_detector
from deid.pixels.interface import Box
from synthetic.photos import (
    PORTRAIT,
    PORTRAIT_CUT,
    PORTRAIT_FACE,
    SCENES,
    package_photo,
)

COVERED = 0.9
"""Share of a face's rectangle that has to be masked for it to count as found."""


@dataclass(frozen=True)
class Head:
    """A cut-out head and where its face is in it: x, y, width, height."""

    name: str
    pixels: np.ndarray
    face: tuple[int, int, int, int]


@lru_cache(maxsize=1)
def heads() -> list[Head]:
    """One large head, and a hundred of 25 pixels from Labeled Faces in the Wild."""
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


def composed(
    head: Head, width: int, rng: np.random.Generator, turns: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A scene with the head in it, and the mask of the face, turned together."""
    x, y, face_width, face_height = head.face
    scale = width / face_width
    cut = cv2.resize(head.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    scene = package_photo(SCENES[int(rng.integers(len(SCENES)))]).copy()
    while min(scene.shape[:2]) < max(cut.shape[:2]) + 40:
        scene = cv2.resize(scene, None, fx=1.5, fy=1.5)
    top = int(rng.integers(scene.shape[0] - cut.shape[0]))
    left = int(rng.integers(scene.shape[1] - cut.shape[1]))
    scene[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    face = np.zeros(scene.shape[:2], dtype=bool)
    at_x, at_y = left + round(x * scale), top + round(y * scale)
    face[at_y : at_y + round(face_height * scale), at_x : at_x + width] = True
    return np.ascontiguousarray(np.rot90(scene, turns)), np.rot90(face, turns)


def masked(shape: tuple[int, ...], boxes: list[Box]) -> np.ndarray:
    mask = np.zeros(shape[:2], dtype=bool)
    for box in boxes:
        mask[box.y : box.bottom, box.x : box.right] = True
    return mask


def is_found(mask: np.ndarray, face: np.ndarray) -> bool:
    return bool((mask & face).sum() >= COVERED * face.sum())


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_face_is_found_at_every_rotation(turns: int):
    picture, face = composed(heads()[0], 60, np.random.default_rng(1), turns)
    boxes = default_face_detector().detect(picture)
    assert is_found(masked(picture.shape, boxes), face)
    for box in boxes:
        assert box.x >= 0 and box.y >= 0
        assert box.right <= picture.shape[1] and box.bottom <= picture.shape[0]


def test_without_the_rotations_a_lying_face_would_be_missed():
    """The reason for looking four times; if this fails, three looks can be saved."""
    upright = FaceNetwork(rotations=False)
    missed = 0
    for number, head in enumerate(heads()[1:25]):
        picture, face = composed(head, 60, np.random.default_rng(number), 1 + 2 * (number % 2))
        missed += not is_found(masked(picture.shape, upright.detect(picture)), face)
    assert missed


def test_a_grey_picture_is_looked_at_like_a_coloured_one():
    picture, face = composed(heads()[0], 80, np.random.default_rng(2))
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    assert is_found(masked(grey.shape, default_face_detector().detect(grey)), face)


def test_boxes_are_grown_by_the_ratios_asked_for():
    picture, _face = composed(heads()[0], 80, np.random.default_rng(3))
    tight = FaceNetwork(width_ratio=1, height_ratio=1).detect(picture)[0]
    wide = FaceNetwork(width_ratio=2, height_ratio=1.5).detect(picture)[0]
    assert wide.width >= 1.8 * tight.width
    with pytest.raises(ValueError, match="grow"):
        FaceNetwork(width_ratio=0.8).detect(picture)


def test_small_and_large_faces_are_found_in_a_large_picture():
    scene = cv2.resize(package_photo("coffee.png"), (2600, 1700))
    expected = []
    for width, top, left in ((28, 60, 40), (28, 1200, 1240), (520, 300, 1500)):
        head = heads()[0]
        scale = width / head.face[2]
        cut = cv2.resize(head.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        cut = cut[: scene.shape[0] - top, : scene.shape[1] - left]
        scene[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
        face = np.zeros(scene.shape[:2], dtype=bool)
        y, x = top + round(head.face[1] * scale), left + round(head.face[0] * scale)
        face[y : y + round(head.face[3] * scale), x : x + width] = True
        expected.append(face)
    mask = masked(scene.shape, default_face_detector().detect(scene))
    assert [is_found(mask, face) for face in expected] == [True, True, True]


def test_textures_without_a_face_stay_as_they_are():
    for name in ("brick.png", "grass.png", "gravel.png", "coins.png"):
        picture = package_photo(name)
        assert masked(picture.shape, default_face_detector().detect(picture)).mean() <= 0.01, name


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3, 3), (33, 31, 3)])
def test_pictures_of_any_size_are_looked_at(shape: tuple[int, ...]):
    noise = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    for box in default_face_detector().detect(noise):
        assert 0 <= box.x < box.right <= shape[1]
        assert 0 <= box.y < box.bottom <= shape[0]


@pytest.mark.slow
def test_recall_by_size_and_rotation(capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(40)
    results: dict[str, list[bool]] = defaultdict(list)
    over = []
    for number in range(400):
        head = heads()[0 if number % 3 == 0 else 1 + int(rng.integers(100))]
        width, turns = int(rng.choice([24, 32, 40, 60, 90, 140])), number % 4
        picture, face = composed(head, width, rng, turns)
        if rng.random() < 0.3:
            picture = (picture * 0.4).astype(np.uint8)
        if rng.random() < 0.3:
            picture = cv2.GaussianBlur(picture, (0, 0), 1.0)
        mask = masked(picture.shape, default_face_detector().detect(picture))
        found = is_found(mask, face)
        near = cv2.dilate(face.astype(np.uint8), np.ones((int(width * 0.6) | 1,) * 2, np.uint8))
        over.append((mask & (near == 0)).mean())
        posture = "upright" if turns == 0 else "turned"
        results["all"].append(found)
        results[f"{width} px {posture}"].append(found)
        results[head.name.split()[0]].append(found)
        if turns and width >= 40:
            results["turned, 40 px+"].append(found)
        if not turns:
            results["upright"].append(found)
    with capsys.disabled():
        print("\n400 placed faces of 101 people")
        for group, found in sorted(results.items()):
            print(f"{group:20} {100 * np.mean(found):6.1f} % of {len(found)}")
        print(f"masked beside faces {100 * np.mean(over):.2f} %")
    assert np.mean(results["all"]) >= 0.97
    assert np.mean(results["turned, 40 px+"]) >= 0.98
    assert np.mean(over) <= 0.03
