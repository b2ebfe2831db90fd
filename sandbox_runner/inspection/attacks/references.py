"""Small networks of ours that tell how hard a picture is for one that never saw its subject.

The submission's network cannot be trained again: that would show held-out pictures to its code,
and take as long as the job did. Ours is small, trains in seconds in the worker's sandbox, and
each subject is judged only by those of them that trained without it (offline RMIA: Zarifzadeh,
Liu and Shokri, ICML 2024, section 3).
"""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sandbox_runner.sdk.glovebox.pictures import resize_by_area

SIDE: Final = 32
EPOCHS: Final = 30
BATCH: Final = 32
#: Log odds beyond this are certainty; a mean of unbounded ones would be one network's.
MOST_ODDS: Final = 12.0


def confidences(
    pixels: NDArray[np.float32],
    targets: NDArray[np.int64],
    subjects: NDArray[np.int64],
    classes: int,
    *,
    networks: int,
    seconds: float,
    seed: int,
) -> list[float] | None:
    """Return the mean log odds of each picture's class by networks that never saw its subject.

    ``networks`` are trained in pairs on complementary halves of all subjects, together in at
    most ``seconds``. None where there is no torch, a label is unknown, or time was too short for
    one pair.
    """
    if classes < 2 or (targets < 0).any() or len(np.unique(targets)) < 2:
        return None
    try:
        import torch
    except ImportError:
        return None
    # Threads of so small a network wait for each other longer than they work.
    torch.set_num_threads(1)
    torch.manual_seed(seed % 2**31)
    rng = np.random.default_rng(seed)
    small = np.stack([resize_by_area(each[0], (SIDE, SIDE)) for each in pixels])
    small = ((small - small.mean()) / max(float(small.std()), 1e-6)).astype(np.float32)
    x, y = torch.from_numpy(small[:, None]), torch.from_numpy(targets)
    names = np.unique(subjects)
    totals, counts = np.zeros(len(pixels)), np.zeros(len(pixels))
    end = time.monotonic() + seconds
    for number in range(max(1, networks // 2)):
        half = rng.permutation(names)[: len(names) // 2]
        inside = np.isin(subjects, half)
        for side in (inside, ~inside):
            left = (end - time.monotonic()) / max(1, networks - 2 * number)
            odds = _trained_odds(torch, x, y, side, classes, left, rng)
            if odds is not None:
                totals[~side] += odds[~side]
                counts[~side] += 1
        if time.monotonic() > end:
            break
    if not counts.all():
        return None
    return [float(each) for each in totals / counts]


def _trained_odds(
    torch: Any,
    x: Any,
    y: Any,
    side: NDArray[np.bool_],
    classes: int,
    seconds: float,
    rng: np.random.Generator,
) -> NDArray[np.float64] | None:
    nn = torch.nn
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, classes),
    )  # fmt: skip
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    own = np.flatnonzero(side)
    if len(own) < 2:
        return None
    end = time.monotonic() + seconds
    for epoch in range(EPOCHS):
        for chosen in np.array_split(rng.permutation(own), -(-len(own) // BATCH)):
            optimiser.zero_grad()
            batch = x[chosen].flip(3) if rng.random() < 0.5 else x[chosen]
            nn.functional.cross_entropy(network(batch), y[chosen]).backward()
            optimiser.step()
        if time.monotonic() > end:
            if epoch == 0:
                return None
            break
    network.eval()
    with torch.no_grad():
        logits = torch.cat([network(part) for part in x.split(256)]).double().numpy()
    return true_odds(logits, y.numpy())


def true_odds(logits: NDArray[np.float64], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return log(p / (1 - p)) of each true class, from logits [n, classes], within +-12."""
    rows = np.arange(len(logits))
    own = logits[rows, targets]
    others = logits.copy()
    others[rows, targets] = -np.inf
    top = others.max(axis=1)
    rest = top + np.log(np.exp(others - top[:, None]).sum(axis=1))
    return np.asarray(np.clip(own - rest, -MOST_ODDS, MOST_ODDS))
