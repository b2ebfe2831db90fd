"""Sensitivity, specificity and AUC with intervals, by picture and by subject.

Intervals are percentiles of a bootstrap that resamples subjects, for pictures of one subject are
not independent (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

RESAMPLES: Final = 1000
LEVEL: Final = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def rounded(self, digits: int) -> dict[str, float]:
        """Return the three numbers with so many decimals."""
        return {
            "value": round(self.value, digits),
            "low": round(self.low, digits),
            "high": round(self.high, digits),
        }


def auc(scores: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """Return the area under the ROC curve (Mann-Whitney, ties half); NaN without both classes."""
    positive, negative = scores[targets == 1], np.sort(scores[targets == 0])
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.searchsorted(negative, positive, side="left")
    through = np.searchsorted(negative, positive, side="right")
    return float((below + through).sum() / (2 * len(positive) * len(negative)))


def _share(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean()) if len(hits) else float("nan")


def figures(
    scores: NDArray[np.float64], targets: NDArray[np.int64], threshold: float
) -> dict[str, float]:
    """Return the figures of one set; a score above ``threshold`` says positive."""
    said = scores > threshold
    return {
        "auc": auc(scores, targets),
        "sensitivity": _share(said[targets == 1]),
        "specificity": _share(~said[targets == 0]),
        "accuracy": _share(said == (targets == 1)),
    }


def by_subject(
    scores: NDArray[np.float64], targets: NDArray[np.int64], subjects: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return one row a subject: the highest score, and positive if any picture is."""
    names = np.unique(subjects)
    highest = np.array([scores[subjects == name].max() for name in names], dtype=np.float64)
    any_positive = np.array([targets[subjects == name].max() for name in names], dtype=np.int64)
    return highest, any_positive, names


def intervals(
    scores: NDArray[np.float64],
    targets: NDArray[np.int64],
    subjects: NDArray[np.int64],
    threshold: float,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return each figure with its interval; one that a set cannot give is left out."""
    measured = figures(scores, targets, threshold)
    rng = np.random.default_rng(seed)
    names = np.unique(subjects)
    rows = [np.flatnonzero(subjects == name) for name in names]
    drawn: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(RESAMPLES):
        chosen = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        for name, value in figures(scores[chosen], targets[chosen], threshold).items():
            if np.isfinite(value):
                drawn[name].append(value)
    edge = (1 - LEVEL) / 2
    result: dict[str, Interval] = {}
    for name, value in measured.items():
        if np.isfinite(value) and drawn[name]:
            low, high = np.quantile(drawn[name], [edge, 1 - edge])
            result[name] = Interval(value, float(low), float(high))
    return result


#: Which class must have enough subjects before a figure may be shown.
_NEEDS: Final = {
    "auc": (0, 1),
    "sensitivity": (1,),
    "specificity": (0,),
    "accuracy": (0, 1),
}


def table(
    scores: NDArray[np.float64],
    targets: NDArray[np.int64],
    subjects: NDArray[np.int64],
    *,
    threshold: float,
    cell_threshold: int,
    digits: int,
) -> dict[str, Any]:
    """Return the official figures by patient and by image.

    A figure whose class has fewer subjects than ``cell_threshold`` is None (suppressed).
    """
    subject_scores, subject_targets, names = by_subject(scores, targets, subjects)
    groups = {
        side: len(np.unique(subjects[targets == side])) if side else
        int((subject_targets == 0).sum())
        for side in (0, 1)
    }  # fmt: skip
    levels = {
        "patient": (subject_scores, subject_targets, names),
        "image": (scores, targets, subjects),
    }
    result: dict[str, Any] = {}
    for level, (s, t, who) in levels.items():
        measured = intervals(s, t, who, threshold)
        result[level] = {
            name: measured[name].rounded(digits)
            if name in measured and all(groups[side] >= cell_threshold for side in needs)
            else None
            for name, needs in _NEEDS.items()
        }
    return result
