"""Faces are found from 24 pixels on and however the picture is turned."""

from __future__ import annotations

from collections import defaultdict

import cv2
import numpy as np
import pytest
from scipy.stats import binomtest

from deid.pixels.faces import FaceNetwork, default_face_detector
from synthetic.photos import package_photo
from tests.deid.pixels.placed_faces import (
    FACELESS,
    Head,
    Placed,
    beside,
    heads,
    is_found,
    masked,
    pictures,
    place,
    scene_of,
)

UPRIGHT, ANY_ANGLE, BESIDE, BESIDE_NOTHING = 0.93, 0.94, 0.025, 0.015
"""What is held today. Wanted are 1, 0.98, 0.02 and 0.005: see docs/deid-figures.md."""

SEED = 2026
"""Not one of those that the thresholds were chosen with."""


def composed(
    head: Head, width: int, rng: np.random.Generator, turns: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A scene with the head in it, turned by quarters, and the face's oval."""
    while True:
        scene = scene_of(rng)
        face = place(scene, head, width, 90.0 * turns, rng, np.zeros(scene.shape[:2], bool))
        if face is not None:
            return scene, face.oval


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


def test_pictures_without_a_face_stay_nearly_as_they_are():
    shares = []
    for name in FACELESS:
        picture = package_photo(name)
        shares.append(masked(picture.shape, default_face_detector().detect(picture)).mean())
    print(f"masked of pictures without a face {100 * np.mean(shares):.2f} %")
    assert np.mean(shares) <= BESIDE_NOTHING


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3, 3), (33, 31, 3)])
def test_pictures_of_any_size_are_looked_at(shape: tuple[int, ...]):
    noise = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    for box in default_face_detector().detect(noise):
        assert 0 <= box.x < box.right <= shape[1]
        assert 0 <= box.y < box.bottom <= shape[0]


@pytest.mark.slow
def test_recall_by_size_angle_and_disturbance(capsys: pytest.CaptureFixture[str]):
    results: dict[str, list[bool]] = defaultdict(list)
    over, people = [], set()
    for disturbance, picture, placed in pictures(SEED, 104):
        mask = masked(picture.shape, default_face_detector().detect(picture))
        over.append(beside(mask, placed))
        for face in placed:
            people.add(face.head)
            for group in groups(face, disturbance):
                results[group].append(is_found(mask, face.oval))
    with capsys.disabled():
        print(f"\n{len(results['all'])} placed faces of {len(people)} people")
        for group, found in sorted(results.items()):
            share, bounds = np.mean(found), binomtest(sum(found), len(found)).proportion_ci()
            print(
                f"{group:28} {100 * share:5.1f} % of {len(found):3}"
                f"  ({100 * bounds.low:.1f} to {100 * bounds.high:.1f})"
            )
        print(f"masked beside faces {100 * np.mean(over):.2f} % of the pixels")
    assert len(results["all"]) >= 300
    assert np.mean(results["upright"]) >= UPRIGHT
    assert np.mean(results["40 px and more, any angle"]) >= ANY_ANGLE
    assert np.mean(over) <= BESIDE


def groups(face: Placed, disturbance: str) -> list[str]:
    """What a face counts for."""
    posture = "upright" if not face.degrees else "by quarters" if not face.degrees % 90 else "askew"
    named = ["all", posture, f"{face.width:3} px", disturbance, face.head.split()[0]]
    if face.width >= 40:
        named.append("40 px and more, any angle")
    return named
