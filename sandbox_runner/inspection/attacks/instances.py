"""Training samples stored as what the network's own first layers make of them.

A nearest-neighbour, prototype, RBF or support-vector head, or a table of enrolled templates,
keeps rows that are the features of single samples. They do not look like pictures, so they are
held against the features that the network gives: rows of members are met, rows of others are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
MOST_ROWS: Final = 4096
MOST_WIDTHS: Final = 6
#: Two features of one sample differ by what training noise did, not by more (cosine).
SAME: Final = 0.99


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


def search(
    asker: Asker, tables: Mapping[str, NDArray[np.float32]], population: Population
) -> list[Stored]:
    """Return how each table [rows, width] meets its layers, best first.

    Raises OracleFault and OutOfTime.
    """
    both = population.of(MEMBER, HELD_OUT)
    order = np.random.default_rng(len(both.pixels)).permutation(len(both.pixels))
    wanted: dict[int, list[str]] = {}
    for name, table in tables.items():
        if LEAST_WIDTH <= table.shape[1] <= MOST_WIDTH and 2 <= len(table) <= MOST_ROWS:
            wanted.setdefault(table.shape[1], []).append(name)
    largest = sorted(wanted, key=lambda width: -sum(tables[n].size for n in wanted[width]))
    found: list[Stored] = []
    for width in largest[:MOST_WIDTHS]:
        layers = _features(asker, both.pixels[order], width)
        flat = both.pixels[order].reshape(len(order), -1)
        if flat.shape[1] == width:
            layers.append(flat)
        for name in wanted[width]:
            rows: Floats = tables[name].astype(np.float64)
            for numbers in layers:
                layer: Floats = numbers.astype(np.float64)
                # What all features have in common makes them alike: it is taken out of both. Rows
                # that were scaled are only met without that.
                centre = layer.mean(axis=0)
                found.append(_meet(name, rows - centre, layer - centre, both, order))
                found.append(_meet(name, rows, layer, both, order))
    return sorted(found, key=lambda each: (-(each.members_met - each.others_met), each.p))


def _features(asker: Asker, pixels: NDArray[np.float32], width: int) -> list[NDArray[np.float32]]:
    parts: list[Sequence[NDArray[np.float32]]] = []
    for start in range(0, len(pixels), BATCH):
        asker.check()
        try:
            parts.append(asker.network.features(pixels[start : start + BATCH], width))
        except OracleFault as fault:
            # A batch with a layer more or less than the last is no layer at all.
            if fault.reason not in ("features", "shape", "not-finite"):
                raise
            return []
    if len({len(part) for part in parts}) != 1:
        return []
    return [np.concatenate(layer) for layer in zip(*parts, strict=True)]


def _meet(
    name: str, table: Floats, layer: Floats, both: Population, order: NDArray[np.int64]
) -> Stored:
    values = np.zeros(len(order))
    values[order] = _cosines(layer, table)
    names, place = np.unique(both.subjects, return_inverse=True)
    best = np.array([values[place == n].max() for n in range(len(names))])
    members = np.array([bool(both.members[place == n].any()) for n in range(len(names))])

    def gap(flags: NDArray[np.bool_]) -> float:
        return float(best[flags].mean() - best[~flags].mean())

    _, _, p = statistics.permutation(gap, members, most=10_000)
    met = best >= SAME
    return Stored(
        name,
        statistics.Subjects(best, members),
        int((met & members).sum()),
        int((met & ~members).sum()),
        p,
    )


def _cosines(layer: Floats, table: Floats) -> Floats:
    """Return each row's best cosine with any row of the table."""
    left = layer / np.maximum(np.linalg.norm(layer, axis=1, keepdims=True), 1e-12)
    right = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return np.asarray((left @ right.T).max(axis=1))


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
