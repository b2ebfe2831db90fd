"""What the network says while it sees sealed pictures leaves as so many figures and no more."""

from __future__ import annotations

import numpy as np
import pytest

from policies.document import default_policy
from sandbox_runner.inspection.evaluation import (
    Sealed,
    Settings,
    ask_shuffled,
    check_steady,
    official,
)
from sandbox_runner.oracle import OracleFault

POLICY = default_policy()
SETTINGS = Settings((4, 4), None, 0.0)


def sealed(classes: int, pictures: int = 60) -> Sealed:
    rng = np.random.default_rng(3)
    return Sealed(
        rng.random((pictures, 1, 4, 4), dtype=np.float32),
        np.arange(pictures) % classes,
        np.arange(pictures),
        classes,
    )


@pytest.mark.parametrize(("classes", "width"), [(2, 1), (2, 2), (3, 3), (5, 5)])
def test_one_number_a_picture_or_one_a_class_is_measured(classes: int, width: int) -> None:
    data = sealed(classes)
    answers = np.eye(max(width, classes), dtype=np.float32)[data.targets][:, -width:]

    measured = official(data, answers - np.float32(0.5), SETTINGS, POLICY)

    tables = measured["classes"].values() if classes > 2 else [measured]
    assert all(table["image"]["auc"]["value"] == 1.0 for table in tables)


@pytest.mark.parametrize(("classes", "width"), [(2, 3), (2, 4096), (3, 1), (3, 2), (3, 4)])
def test_pixels_do_not_leave_as_the_specificity_of_classes_that_nobody_has(
    classes: int, width: int
) -> None:
    data = sealed(classes)
    # Each further column says "positive" of one picture or of none: a bit of that picture.
    bits = np.resize(data.pixels[0].reshape(-1) > 0.5, width)
    answers = np.full((len(data.pixels), width), -1.0, np.float32)
    answers[0, bits] = 1.0

    with pytest.raises(OracleFault) as caught:
        official(data, answers, SETTINGS, POLICY)

    assert caught.value.reason == "shape"


class Moody:
    """Answers ``first``, and ``then`` when asked again."""

    def __init__(self, first: np.ndarray, then: np.ndarray, pixels: np.ndarray) -> None:
        self.rows = [
            {picture.tobytes(): row for picture, row in zip(pixels, rows, strict=True)}
            for rows in (first, then)
        ]
        self.asked = 0

    def predict(self, batch: np.ndarray) -> np.ndarray:
        rows = self.rows[self.asked >= 60]
        self.asked += len(batch)
        return np.stack([rows[picture.tobytes()] for picture in batch]).astype(np.float32)


def steadiness(first: np.ndarray, then: np.ndarray) -> list[str]:
    pixels = sealed(2).pixels
    network = Moody(first, then, pixels)
    answers = ask_shuffled(network, pixels)  # type: ignore[arg-type]
    return [found.rule for found in check_steady(network, pixels, answers)]  # type: ignore[arg-type]


def test_a_network_that_answers_alike_is_steady() -> None:
    answers = np.random.default_rng(0).normal(size=(60, 2))
    rounded = answers * (1 + 1e-6)
    assert steadiness(answers, rounded) == []
    assert steadiness(answers + 20, rounded + 20) == []


def test_large_answers_do_not_hide_that_others_change() -> None:
    answers, others = np.random.default_rng(0).normal(size=(2, 60, 2))
    assert steadiness(answers, others) == ["evaluation.unsteady"]
    assert steadiness(answers + 100, others + 100) == ["evaluation.unsteady"]
    answers[7] = others[7] = 1e9
    assert steadiness(answers, others) == ["evaluation.unsteady", "evaluation.scale"]
    # So far off that rounding is all there is: nobody can tell, which is what is said.
    assert "evaluation.scale" in steadiness(answers + 1e6, others + 1e6)
    assert steadiness(np.ones((60, 1)), np.ones((60, 1))) == ["evaluation.scale"]
