"""Dividing subjects, never images, between training, validation and the sealed evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SHARES = {"train": 0.7, "validation": 0.1, "sealed": 0.2}


def split_subjects(labels: Mapping[str, str], rng: np.random.Generator) -> dict[str, str]:
    """The split of every subject: 70 % train, 10 % validation, 20 % sealed of each label.

    A label with three or more subjects has at least one in each split, so that nothing small
    is without an evaluation.
    """
    splits: dict[str, str] = {}
    for label in sorted(set(labels.values())):
        subjects = sorted(subject for subject, own in labels.items() if own == label)
        order = [subjects[place] for place in rng.permutation(len(subjects))]
        least = 1 if len(order) >= 3 else 0
        validation = max(least, round(SHARES["validation"] * len(order)))
        sealed = max(least, round(SHARES["sealed"] * len(order)))
        for place, subject in enumerate(order):
            if place < validation:
                splits[subject] = "validation"
            elif place < validation + sealed:
                splits[subject] = "sealed"
            else:
                splits[subject] = "train"
    return splits
