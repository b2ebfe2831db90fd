"""How high a score is for a picture like this one: quantile regression on held-out pictures.

Bertran, Tang, Roth, Kearns, Morgenstern and Wu, Scalable Membership Inference Attacks via
Quantile Regression, NeurIPS 2023. Theirs is a network; with a few hundred pictures ours is linear
in few features and solved exactly (Koenker and Bassett, Econometrica 1978, as a linear program).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Floats = NDArray[np.float64]

FOLDS: Final = 5
LOW: Final = 0.5
HIGH: Final = 0.9
LEAST_ROWS: Final = 25


def fit(features: Floats, values: Floats, quantile: float) -> Floats | None:
    """Return the coefficients whose pinball loss is least, the constant first; None if unsolved."""
    design = np.column_stack([np.ones(len(values)), features])
    count, width = design.shape
    identity = np.eye(count)
    cost = np.concatenate(
        [np.zeros(2 * width), np.full(count, quantile), np.full(count, 1 - quantile)]
    )
    solved = linprog(
        cost,
        A_eq=np.hstack([design, -design, identity, -identity]),
        b_eq=values,
        method="highs",
        options={"time_limit": 10.0},
    )
    if not solved.success:
        return None
    return np.asarray(solved.x[:width] - solved.x[width : 2 * width])


def scores(
    values: Floats,
    features: Floats,
    subjects: NDArray[np.int64],
    held_out: NDArray[np.bool_],
    seed: int = 0,
) -> Floats | None:
    """Return (score - median) / (upper decile - median), each predicted from the features.

    The regression is fitted on held-out pictures of other subjects than those it judges, in
    folds by subject; members are judged by a fold's regression drawn by lot. None where there
    are too few held-out pictures.
    """
    if held_out.sum() < LEAST_ROWS * FOLDS / (FOLDS - 1):
        return None
    centre, spread = features[held_out].mean(axis=0), features[held_out].std(axis=0)
    scaled = np.clip((features - centre) / np.where(spread > 1e-9, spread, 1.0), -5, 5)
    scaled = scaled[:, spread > 1e-9]
    rng = np.random.default_rng(seed)
    names = np.unique(subjects)
    folds = dict(zip(names.tolist(), (rng.permutation(len(names)) % FOLDS).tolist(), strict=True))
    # Held-out subjects must be spread evenly, or a fold could have none of them.
    outside = np.unique(subjects[held_out])
    folds |= dict(zip(rng.permutation(outside).tolist(), (np.arange(len(outside)) % FOLDS).tolist(),
                      strict=True))  # fmt: skip
    fold = np.array([folds[each] for each in subjects.tolist()])
    result = np.zeros(len(values))
    for number in range(FOLDS):
        known = held_out & (fold != number)
        asked = fold == number
        if known.sum() < LEAST_ROWS:
            return None
        middle = fit(scaled[known], values[known], LOW)
        upper = fit(scaled[known], values[known], HIGH)
        if middle is None or upper is None:
            return None
        design = np.column_stack([np.ones(int(asked.sum())), scaled[asked]])
        low, high = design @ middle, design @ upper
        # Where the lines nearly cross, their distance is no scale.
        scale = np.maximum(high - low, 0.1 * max(float(values[known].std()), 1e-9))
        result[asked] = (values[asked] - low) / scale
    return result
