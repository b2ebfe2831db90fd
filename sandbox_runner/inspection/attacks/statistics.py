"""What an attack's scores say, counted by subject and with how sure that is.

A subject is the unit everywhere: pictures of one person are not independent, and it is a person
whose presence is to be hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, mannwhitneyu

from sandbox_runner.inspection import scores

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

RESAMPLES: Final = 1000
#: False positive rates at which an attack is told to succeed, lowest first.
RATES: Final = (0.001, 0.01, 0.1)
#: So many subjects that were not in training must be expected among the false positives.
EXPECTED: Final = 10


@dataclass(frozen=True)
class Subjects:
    """One score a subject, and whether the subject was in training."""

    scores: Floats
    members: Flags

    @property
    def counts(self) -> tuple[int, int]:
        """How many were in training, and how many were not."""
        inside = int(self.members.sum())
        return inside, len(self.members) - inside


def by_subject(values: Floats, subjects: NDArray[np.int64], members: Flags) -> Subjects:
    """Return the mean score of each subject's pictures; all of one subject are of one side."""
    names, place = np.unique(subjects, return_inverse=True)
    counts = np.bincount(place, minlength=len(names))
    means = np.bincount(place, weights=values, minlength=len(names)) / counts
    first = np.zeros(len(names), dtype=bool)
    first[place[members]] = True
    return Subjects(means, first)


def area(subjects: Subjects) -> float:
    """Return the AUC of the scores; NaN without both sides."""
    return scores.auc(subjects.scores, subjects.members.astype(np.int64))


def _draws(members: Flags, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return resampled subjects, each side with as many as there are of it."""
    sides = [np.flatnonzero(members), np.flatnonzero(~members)]
    return [
        np.concatenate([side[rng.integers(0, len(side), len(side))] for side in sides])
        for _ in range(RESAMPLES)
    ]


def area_interval(subjects: Subjects, level: float = 0.95, seed: int = 0) -> scores.Interval:
    """Return the AUC with the percentile interval of a bootstrap by subject.

    Raises ``ValueError`` without both sides.
    """
    return _interval(subjects, area, level, seed)


def advantage_interval(subjects: Subjects, level: float = 0.95, seed: int = 0) -> scores.Interval:
    """Return the best true minus false positive rate (Yeom et al., CSF 2018), with its interval.

    The best of all thresholds is above zero by chance: about 1.2 * sqrt(1/m + 1/n) for m and n
    subjects, so the AUC is what verdicts are made of.
    """
    return _interval(subjects, advantage, level, seed)


def advantage(subjects: Subjects) -> float:
    """Return the greatest difference of true and false positive rate over all thresholds."""
    false, true = roc(subjects)
    return float((true - false).max())


def _interval(subjects: Subjects, figure: object, level: float, seed: int) -> scores.Interval:
    if min(subjects.counts) == 0:
        raise ValueError("there are no subjects on one side")
    assert callable(figure)
    rng = np.random.default_rng(seed)
    drawn = [
        figure(Subjects(subjects.scores[chosen], subjects.members[chosen]))
        for chosen in _draws(subjects.members, rng)
    ]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return scores.Interval(float(figure(subjects)), float(low), float(high))


def difference_interval(
    first: Subjects, second: Subjects, level: float = 0.95, seed: int = 0
) -> scores.Interval:
    """Return how much larger the AUC of ``first`` is, both on the same subjects in one order.

    Raises ``ValueError`` where they are not the same subjects.
    """
    if not np.array_equal(first.members, second.members):
        raise ValueError("these are not the same subjects")
    rng = np.random.default_rng(seed)
    drawn = [
        area(Subjects(first.scores[chosen], first.members[chosen]))
        - area(Subjects(second.scores[chosen], second.members[chosen]))
        for chosen in _draws(first.members, rng)
    ]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return scores.Interval(area(first) - area(second), float(low), float(high))


def roc(subjects: Subjects) -> tuple[Floats, Floats]:
    """Return false and true positive rates at every threshold, from (0, 0) to (1, 1)."""
    order = np.argsort(-subjects.scores, kind="stable")
    ranked, inside = subjects.scores[order], subjects.members[order]
    # Between equal scores there is no threshold.
    last = np.append(ranked[1:] != ranked[:-1], True)
    true = np.cumsum(inside)[last] / max(1, int(inside.sum()))
    false = np.cumsum(~inside)[last] / max(1, int((~inside).sum()))
    return np.append(0.0, false), np.append(0.0, true)


def lowest_rate(outside: int) -> float | None:
    """Return the lowest rate at which ten false positives are expected, or None."""
    return next((rate for rate in RATES if outside * rate >= EXPECTED), None)


def needed(rate: float) -> int:
    """Return how many subjects outside of training make ``rate`` measurable."""
    return round(EXPECTED / rate)


def true_rate(subjects: Subjects, rate: float, level: float = 0.95) -> scores.Interval:
    """Return the share of members found at a false positive rate of at most ``rate``.

    The interval is Clopper's and Pearson's (Biometrika 1934), for the threshold as it stands.
    """
    false, true = roc(subjects)
    found = float(true[false <= rate].max())
    count, hits = subjects.counts[0], round(found * subjects.counts[0])
    edge = (1 - level) / 2
    low = float(beta.ppf(edge, hits, count - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - edge, hits + 1, count - hits)) if hits < count else 1.0
    return scores.Interval(found, low, high)


def rank_sum(subjects: Subjects) -> float:
    """Return the one-sided p that members' scores are larger (Mann and Whitney, 1947).

    By the normal approximation, which has no least p.
    """
    inside, outside = subjects.scores[subjects.members], subjects.scores[~subjects.members]
    found = mannwhitneyu(inside, outside, alternative="greater", method="asymptotic")
    return float(found.pvalue)


def permutation(
    statistic: object, members: Flags, *, rounds: int = 1000, most: int = 0, seed: int = 0
) -> tuple[float, float, float]:
    """Return the statistic, its mean under permuted membership, and the one-sided p.

    ``statistic`` takes flags a subject and gives a number that is larger the more is remembered.
    The p is never zero (Phipson and Smyth, 2010): (hits + 1) / (rounds + 1). Where no permutation
    of the first ``rounds`` came near, there are ``most``, for a p that many looks will divide.
    """
    assert callable(statistic)
    rng = np.random.default_rng(seed)
    seen = float(statistic(members))
    drawn: list[float] = []
    hits = 0
    while len(drawn) < (rounds if hits else max(rounds, most)):
        drawn += [float(statistic(rng.permutation(members))) for _ in range(rounds)]
        hits = sum(each >= seen - 1e-12 for each in drawn)
    return seen, float(np.mean(drawn)), (hits + 1) / (len(drawn) + 1)
