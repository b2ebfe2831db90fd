"""Training samples stored as what the network's own first layers make of them.

A nearest-neighbour, prototype, RBF or support-vector head, or a table of enrolled templates,
keeps rows that are the features of single samples. They do not look like pictures, so they are
held against the features that the network gives: rows of members are met, rows of others are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.document import AttackPolicy
from policies.findings import Finding, Severity
from sandbox_runner.inspection.attacks import statistics
from sandbox_runner.inspection.attacks.asking import BATCH, Asker
from sandbox_runner.inspection.attacks.population import HELD_OUT, MEMBER, Population
from sandbox_runner.oracle import OracleFault

Floats = NDArray[np.float64]

LEAST_WIDTH: Final = 8
MOST_WIDTH: Final = 8192
#: Two features of one sample differ by what training noise did, not by more (cosine).
SAME: Final = 0.99
PERMUTATIONS: Final = 10_000
#: So many numbers of a table are read at once.
_NUMBERS: Final = 1 << 22


@dataclass(frozen=True)
class Table:
    """Rows of one width in the weights; ``read(first, last)`` gives some, [n, width]."""

    name: str
    rows: int
    width: int
    read: Callable[[int, int], NDArray[np.float32]]


@dataclass(frozen=True)
class Stored:
    """How one table of rows meets the features of subjects, in the layer where it does best.

    ``cosine`` is each subject's best; ``met`` counts subjects above 0.99 by side.
    """

    tensor: str
    cosine: statistics.Subjects
    members_met: int
    others_met: int
    p: float


def widths(asker: Asker, population: Population) -> dict[int, int]:
    """Return how many layers give how many numbers, of the widths that are looked at.

    The pictures themselves are the first of them: a perceptron's prototypes may be pixels. Raises
    OracleFault and OutOfTime.
    """
    asker.check()
    found = dict(asker.network.widths(population.pixels[:BATCH]))
    found.setdefault(population.pixels[0].size, 0)
    return {width: n for width, n in found.items() if LEAST_WIDTH <= width <= MOST_WIDTH}


def search(
    asker: Asker, tables: Sequence[Table], layers: Mapping[int, int], population: Population
) -> list[Stored]:
    """Return how each table meets each layer of its width (see :func:`widths`), best first.

    Raises OracleFault and OutOfTime.
    """
    both = population.of(MEMBER, HELD_OUT)
    order = np.random.default_rng(len(both.pixels)).permutation(len(both.pixels))
    pixels = both.pixels[order]
    found: list[Stored] = []
    for width in sorted({table.width for table in tables}):
        answers: list[NDArray[np.float32]] = []
        if pixels[0].size == width:
            answers.append(pixels.reshape(len(pixels), -1))
        done = 0
        while answers or done < layers[width]:
            if not answers:
                answers = _features(asker, pixels, width, done)
                done += len(answers)
            for table in tables:
                if table.width == width:
                    found += _meet(asker, table, answers, both, order)
            answers = []
    return sorted(found, key=lambda each: (-(each.members_met - each.others_met), each.p))


def _features(
    asker: Asker, pixels: NDArray[np.float32], width: int, first: int
) -> list[NDArray[np.float32]]:
    """Return some layers' answers. Raises OracleFault where layers come and go between batches.

    Every batch is as large as the others: what has as many rows as a batch by chance, as the
    weights that some modules give, is a layer in each of them or in none.
    """
    parts: list[Sequence[NDArray[np.float32]]] = []
    for start in range(0, len(pixels), BATCH):
        asker.check()
        at = max(0, min(start, len(pixels) - BATCH))
        layers = asker.network.features(pixels[at : at + BATCH], width, first)
        parts.append([layer[start - at :] for layer in layers])
    if not parts[0] or len({len(part) for part in parts}) != 1:
        raise OracleFault("shape")
    return [np.concatenate(layer) for layer in zip(*parts, strict=True)]


def _meet(
    asker: Asker,
    table: Table,
    layers: Sequence[NDArray[np.float32]],
    both: Population,
    order: NDArray[np.int64],
) -> list[Stored]:
    """Return how a table meets each layer.

    What all features have in common makes them alike: it is taken out of both. Rows that were
    scaled are only met without that.
    """
    ways: list[tuple[Floats, NDArray[np.float32]]] = []
    for layer in layers:
        for shift in (layer.mean(axis=0, dtype=np.float64), np.zeros(layer.shape[1])):
            ways.append((shift, _unit(layer - shift)))
    best = np.full((len(ways), len(order)), -1.0)
    step = max(1, _NUMBERS // table.width)
    for first in range(0, table.rows, step):
        asker.check()
        rows = table.read(first, min(first + step, table.rows)).astype(np.float64)
        for number, (shift, features) in enumerate(ways):
            cosines = (features @ _unit(rows - shift).T).max(axis=1)
            best[number] = np.maximum(best[number], cosines)
    values = np.zeros_like(best)
    values[:, order] = best
    return [_stored(table.name, each, both) for each in values]


def _stored(name: str, values: Floats, both: Population) -> Stored:
    names, place = np.unique(both.subjects, return_inverse=True)
    best = np.array([values[place == n].max() for n in range(len(names))])
    members = np.array([bool(both.members[place == n].any()) for n in range(len(names))])

    def gap(flags: NDArray[np.bool_]) -> float:
        return float(best[flags].mean() - best[~flags].mean())

    subjects = statistics.Subjects(best, members)
    if min(subjects.counts) == 0:
        return Stored(name, subjects, 0, 0, 1.0)
    _, _, p = statistics.permutation(gap, members, most=PERMUTATIONS)
    # Many tables divide what p may be, down to less than permutations can show.
    if p <= 1 / PERMUTATIONS:
        p = min(p, statistics.rank_sum(subjects))
    met = best >= SAME
    return Stored(name, subjects, int((met & members).sum()), int((met & ~members).sum()), p)


def _unit(rows: Floats) -> NDArray[np.float32]:
    """Return rows of length one; of their largest number first, for squares may be too large."""
    rows = rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-300)
    norms = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.asarray(rows / norms, dtype=np.float32)


def check(
    found: Sequence[Stored], limits: AttackPolicy, artefact: str, least: int
) -> list[Finding]:
    """Return what the tables mean by the policy."""
    if not found:
        return [
            Finding(
                "memorisation.instances",
                "info",
                artefact,
                "No table of the weights has the width of a layer's answers.",
            )
        ]
    counts = found[0].cosine.counts
    if min(counts) < least:
        return []
    sure = [each for each in found if each.p <= limits.memorisation_p / len(found)]
    severity: Severity = "info"
    shown = found[0]
    stored = [
        each
        for each in sure
        if each.members_met / each.cosine.counts[0]
        >= each.others_met / each.cosine.counts[1] + limits.memorisation_copies
    ]
    near = [each for each in sure if _gap(each) >= limits.memorisation_gap]
    if stored:
        severity, shown = "block", stored[0]
    elif near:
        severity, shown = "review", max(near, key=_gap)
    return [
        Finding(
            "memorisation.instances",
            severity,
            artefact,
            "Rows of the weights are what the network makes of training samples."
            if severity != "info"
            else "Rows of the weights are no nearer to training samples than to others.",
            {
                "met": round(shown.members_met / max(1, shown.cosine.counts[0]), 2),
                "others_met": round(shown.others_met / max(1, shown.cosine.counts[1]), 2),
                "gap": round(_gap(shown), 3),
                "p": round(shown.p, 4),
            },
            {"tensor": shown.tensor, "tables": len(found)},
        )
    ]


def _gap(stored: Stored) -> float:
    values, members = stored.cosine.scores, stored.cosine.members
    return float(values[members].mean() - values[~members].mean())
