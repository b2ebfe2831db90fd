"""Are pictures that a network makes nearer to its training than to held-out people?

Used for what a generator makes, for what an autoencoder settles on and for what a classifier can
be made to show. Under the null hypothesis it does not matter which subjects were in training, for
the platform divided them by lot: so the membership of subjects is permuted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.document import AttackPolicy
from policies.findings import Finding, Severity
from sandbox_runner.inspection.attacks import drawing, statistics
from sandbox_runner.inspection.attacks.population import HELD_OUT, MEMBER, Population
from sandbox_runner.sdk.glovebox.pictures import resize_by_area

Floats = NDArray[np.float64]

SIDE: Final = 32
COMPONENTS: Final = 40
#: A copy is less than half as far from one subject as from the next one (Carlini et al.,
#: Extracting Training Data from Diffusion Models, USENIX Security 2023, use such a ratio).
COPY: Final = 0.5
_SHOWN: Final = 4


@dataclass(frozen=True)
class Likeness:
    """How made pictures lie to subjects in one space.

    ``distances`` [made, subjects], ``ratio`` is how much farther held-out subjects are than
    members when as many of both are looked at (1 where nothing is remembered), ``p`` its
    significance, ``copies`` how many made pictures are copies of a member, ``others`` of a
    held-out subject, which is what chance gives.
    """

    ratio: float
    p: float
    copies: int
    others: int
    distances: Floats
    members: NDArray[np.bool_]
    nearest: NDArray[np.int64]


def spaces(pictures: NDArray[np.float32], basis: NDArray[np.float32]) -> dict[str, Floats]:
    """Return the pictures [n, H, W] as vectors: as pixels, as edges, and by eigenpictures.

    The eigenpictures (Turk and Pentland, 1991) are those of ``basis``, which are members and
    held-out pictures alike; each of their components counts the same, which sets aside light and
    pose. They are no face recognition: two pictures of one person in other clothes may lie apart.
    """
    pixels, reference = _standard(pictures), _standard(basis)
    found = {"pixels": pixels.reshape(len(pixels), -1), "edges": _edges(pixels)}
    flat = reference.reshape(len(reference), -1)
    mean = flat.mean(axis=0)
    _, sizes, rows = np.linalg.svd(flat - mean, full_matrices=False)
    kept = min(COMPONENTS, int((sizes > 1e-6 * max(float(sizes[0]), 1e-12)).sum()))
    if kept >= 2:
        scale = sizes[:kept] / np.sqrt(len(flat))
        found["eigenpictures"] = (found["pixels"] - mean) @ rows[:kept].T / scale
    return found


def _standard(pictures: NDArray[np.float32]) -> Floats:
    """Return small copies, each with mean 0 and deviation 1: brightness is no likeness."""
    height, width = pictures.shape[1:]
    size = (min(SIDE, height), min(SIDE, width))
    small = np.stack([resize_by_area(each, size) for each in pictures])
    small -= small.mean(axis=(1, 2), keepdims=True)
    spread = small.std(axis=(1, 2), keepdims=True)
    return np.asarray(small / np.maximum(spread, 1e-6))


def _edges(pictures: Floats) -> Floats:
    down = np.abs(np.diff(pictures, axis=1)).reshape(len(pictures), -1)
    across = np.abs(np.diff(pictures, axis=2)).reshape(len(pictures), -1)
    both = np.concatenate([down, across], axis=1)
    return np.asarray(both - both.mean(axis=1, keepdims=True))


def compare(made: Floats, samples: Floats, population: Population, seed: int = 0) -> Likeness:
    """Return how made pictures lie to members and held-out subjects, in one space.

    ``population`` has members and held-out subjects only, its pictures ``samples`` in order.
    """
    squares = (made**2).sum(axis=1)[:, None] + (samples**2).sum(axis=1)[None]
    apart = np.sqrt(np.maximum(squares - 2 * made @ samples.T, 0.0))
    names, place = np.unique(population.subjects, return_inverse=True)
    distances = np.stack([apart[:, place == n].min(axis=1) for n in range(len(names))], axis=1)
    members = np.array([bool(population.members[place == n].any()) for n in range(len(names))])
    rng = np.random.default_rng(seed)
    least = min(int(members.sum()), int((~members).sum()))

    def gap(flags: NDArray[np.bool_]) -> float:
        inside, outside = distances[:, flags].min(axis=1), distances[:, ~flags].min(axis=1)
        return float(np.log((outside + 1e-9) / (inside + 1e-9)).mean())

    _, _, p = statistics.permutation(gap, members, rounds=1000, seed=seed)
    # As many members as held-out subjects: the nearest of more is nearer for no other reason.
    ratios = []
    for _ in range(20):
        sides = [rng.permutation(np.flatnonzero(side))[:least] for side in (members, ~members)]
        inside, outside = (distances[:, side].min(axis=1) for side in sides)
        ratios.append(float(np.exp(np.log((outside + 1e-9) / (inside + 1e-9)).mean())))
    two = np.sort(distances, axis=1)[:, :2]
    first = distances.argmin(axis=1)
    copied = two[:, 0] < COPY * two[:, 1]
    return Likeness(
        float(np.mean(ratios)),
        p,
        int((copied & members[first]).sum()),
        int((copied & ~members[first]).sum()),
        distances,
        members,
        apart.argmin(axis=1),
    )


def check(
    rule: str,
    made: NDArray[np.float32],
    population: Population,
    limits: AttackPolicy,
    artefact: str,
    least: int,
) -> tuple[list[Finding], Mapping[str, Likeness]]:
    """Return what the made pictures [n, H, W] show of members, and the figures by space."""
    both = population.of(MEMBER, HELD_OUT)
    inside = len(np.unique(both.subjects[both.members]))
    outside = len(np.unique(both.subjects[~both.members]))
    if min(inside, outside) < least:
        few = Finding(
            rule,
            "review",
            artefact,
            "Whether the network shows its training cannot be measured: too few subjects.",
            {"needs": least},
            {"members": inside, "held_out": outside},
        )
        return [few], {}
    samples = both.pixels[:, 0]
    vectors, known = spaces(made, samples), spaces(samples, samples)
    found = {name: compare(vectors[name], known[name], both) for name in vectors if name in known}
    best = min(found, key=lambda name: (found[name].p, -found[name].ratio))
    copied = max(found, key=lambda name: found[name].copies - found[name].others)
    sure = found[best].p <= limits.memorisation_p / len(found)
    share = (found[copied].copies - found[copied].others) / len(made)
    severity: Severity = "info"
    if sure and found[best].ratio >= limits.memorisation_ratio:
        severity = "block" if share >= limits.memorisation_copies else "review"
    elif share >= limits.memorisation_copies:
        severity = "review"
    order = np.argsort(found[best].distances.min(axis=1))[:_SHOWN]
    shown = order.tolist() if severity != "info" else []
    finding = Finding(
        rule,
        severity,
        artefact,
        "Pictures that the network gives are nearer to its training than to other people's."
        if severity != "info"
        else "Pictures that the network gives were not nearer to its training with certainty.",
        {
            "space": best,
            "ratio": round(found[best].ratio, 2),
            "p": round(found[best].p, 4),
            "made": len(made),
            "copies": round(max(share, 0.0), 2),
        },
        {
            "spaces": {
                name: {
                    "ratio": each.ratio, "p": each.p, "copies": each.copies, "others": each.others,
                }
                for name, each in found.items()
            },
            "pictures": [
                drawing.pair(
                    made[i],
                    both.pixels[found[best].nearest[i], 0],
                    both.places[int(found[best].nearest[i])],
                )
                for i in shown
            ],
        },
    )  # fmt: skip
    return [finding], found


def by_subject(likeness: Likeness) -> statistics.Subjects:
    """Return a subject's score: how near the nearest made picture is, higher for nearer."""
    nearest = -np.log(likeness.distances.min(axis=0) + 1e-9)
    return statistics.Subjects(nearest, likeness.members)
