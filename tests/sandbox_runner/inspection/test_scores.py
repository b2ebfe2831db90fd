"""Figures by patient and by image, with intervals by subject, and suppression."""

from __future__ import annotations

import numpy as np
import pytest

from sandbox_runner.inspection import scores


def test_auc_counts_pairs_and_halves_ties() -> None:
    assert scores.auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == 0.75
    assert scores.auc(np.zeros(6), np.array([0, 1] * 3)) == 0.5
    assert np.isnan(scores.auc(np.zeros(2), np.array([1, 1])))


def test_a_patient_is_positive_if_any_picture_is() -> None:
    highest, positive, names = scores.by_subject(
        np.array([0.2, 0.9, 0.1]), np.array([1, 0, 0]), np.array([5, 5, 9])
    )
    assert highest.tolist() == [0.9, 0.1]
    assert positive.tolist() == [1, 0]
    assert names.tolist() == [5, 9]


def test_the_interval_is_by_subject_not_by_picture() -> None:
    # Ten copies of each picture add no information, so the interval must not shrink.
    rng = np.random.default_rng(0)
    values, targets = rng.normal(0, 1, 60), rng.integers(0, 2, 60)
    values += targets
    subjects = np.arange(60)
    once = scores.intervals(values, targets, subjects, 0.5)["auc"]
    copied = scores.intervals(
        np.repeat(values, 10), np.repeat(targets, 10), np.repeat(subjects, 10), 0.5
    )["auc"]
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.01)
    assert once.low < once.value < once.high


def test_a_class_of_few_subjects_is_suppressed() -> None:
    targets = np.array([1] * 9 + [0] * 30)
    values = targets + np.linspace(0, 0.5, 39)
    table = scores.table(values, targets, np.arange(39), threshold=0.5, cell_threshold=10, digits=3)
    for level in ("patient", "image"):
        assert table[level]["specificity"] is not None
        for figure in ("auc", "sensitivity", "accuracy"):
            assert table[level][figure] is None
    # Many pictures of few subjects stay few subjects.
    table = scores.table(
        values, targets, np.r_[np.zeros(9, int), np.arange(1, 31)],
        threshold=0.5, cell_threshold=10, digits=3,
    )  # fmt: skip
    assert table["image"]["sensitivity"] is None
