"""Who was in training: attacks by loss, confidence, neighbourhood, RMIA and quantile regression.

The network only answers; labels and membership stay here. Each attack gives a picture a score,
higher for what looks like training; scores are averaged by subject. Verdicts are made of the
interval of the AUC at a level that allows for the number of attacks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.document import Policy
from policies.findings import Finding, Severity
from sandbox_runner.inspection import evaluation
from sandbox_runner.inspection.attacks import drawing, quantiles, references, statistics
from sandbox_runner.inspection.attacks.asking import Asker
from sandbox_runner.inspection.attacks.population import HELD_OUT, MEMBER, OPEN, Population
from sandbox_runner.inspection.attacks.statistics import Subjects, by_subject
from sandbox_runner.inspection.attacks.task import Task
from sandbox_runner.oracle import OracleFault

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Each picture is asked as it is, and so often disturbed: moved by a pixel, with a little noise.
NEIGHBOURS: Final = 3
NOISE: Final = 0.05
#: The weight of a reference that never saw the picture (offline RMIA, appendix B.2.2).
OFFLINE_A: Final = 0.3
_SHIFTS: Final = ((1, 0), (0, -1), (-1, 1))
_SHOWN: Final = 10


@dataclass(frozen=True)
class Answers:
    """How well the network does on each picture (log odds, or minus the log of the error).

    ``fits`` [n] as it is, ``sure`` [n] without its label or None, ``nearby`` [n] the mean of its
    disturbed copies, ``plain`` [n, k] what it answered, ``completed`` [n] how well the middle of a
    picture is given back that was taken away, or None.
    """

    fits: Floats
    sure: Floats | None
    nearby: Floats
    plain: Floats
    completed: Floats | None = None


def ask(asker: Asker, population: Population, task: Task) -> Answers:
    """Ask about every picture and its neighbours. Raises OracleFault and OutOfTime."""
    count = len(population.pixels)
    rng = np.random.default_rng(count)
    spread = max(float(population.pixels.std()), 1e-6) * NOISE

    rebuilds = task.kind == "reconstruction"
    middle = _middle(population.pixels.shape[2], population.pixels.shape[3])
    grey = float(population.pixels.mean())

    def pictures(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        batch = population.pixels[numbers % count].copy()
        for place, view in enumerate((numbers // count).tolist()):
            if view > NEIGHBOURS:
                batch[place, 0][middle] = grey
            elif view:
                down, right = _SHIFTS[view - 1]
                moved = _moved(batch[place, 0], down, right)
                batch[place, 0] = moved + rng.normal(0, spread, moved.shape)
        return batch

    size = population.pixels.shape[2] * population.pixels.shape[3]
    asked = 1 + NEIGHBOURS + rebuilds
    given = asker.shuffled(count * asked, pictures)
    views = given.reshape(asked, count, -1).astype(np.float64)
    if rebuilds:
        if views.shape[2] != size:
            raise OracleFault("shape")
        # A neighbour is held against the picture itself: a network that stores it gives it back.
        flat = population.pixels.reshape(count, size).astype(np.float64)
        errors = [((view - flat) ** 2).mean(axis=1) for view in views]
        fits = [-np.log(error + 1e-8) for error in errors]
        hidden = ((views[-1] - flat) ** 2)[:, middle.reshape(-1)].mean(axis=1)
        return Answers(fits[0], None, np.mean(fits[1:-1], axis=0), views[0], -np.log(hidden + 1e-8))
    odds = [_odds(view, population, task) for view in views]
    nearby = np.mean([each[0] for each in odds[1:]], axis=0)
    return Answers(odds[0][0], odds[0][1], nearby, views[0])


def _middle(height: int, width: int) -> Flags:
    """Return which pixels are in the middle third of rows and of columns."""
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 3 : height - height // 3, width // 3 : width - width // 3] = True
    return mask


def _moved(picture: NDArray[np.float32], down: int, right: int) -> NDArray[np.float32]:
    """Return the picture moved by a pixel, its border repeated."""
    rows = np.clip(np.arange(picture.shape[0]) - down, 0, picture.shape[0] - 1)
    columns = np.clip(np.arange(picture.shape[1]) - right, 0, picture.shape[1] - 1)
    return np.asarray(picture[np.ix_(rows, columns)])


def _odds(answers: Floats, population: Population, task: Task) -> tuple[Floats, Floats]:
    """Return log odds of the true class, and of the likeliest one."""
    binary = population.classes <= 2
    width = answers.shape[1]
    if width not in ((1, 2) if binary else (population.classes,)):
        raise OracleFault("shape")
    if task.threshold:
        # What says it is a probability may be outside of it; odds are bounded anyway.
        answers = np.log(np.clip(answers, 1e-6, 1 - 1e-6))
        if width == 1:
            answers = answers - np.log1p(-np.exp(answers))
    logits = np.concatenate([np.zeros_like(answers), answers], axis=1) if width == 1 else answers
    every = np.arange(logits.shape[1])
    odds = np.stack(
        [references.true_odds(logits, np.full(len(logits), number)) for number in every], axis=1
    )
    top = odds.max(axis=1)
    if (population.targets < 0).any():
        # Classes that only members have (people, say): its class for some and its likeliest for
        # others would tell them apart by how they were counted.
        return top, top
    return odds[np.arange(len(odds)), population.targets], top


def attack(answers: Answers, population: Population, seed: int = 0) -> dict[str, Floats]:
    """Return each attack's score a picture; attacks that the task does not allow are left out."""
    found = {"loss": answers.fits}
    if answers.sure is not None:
        found["confidence"] = answers.sure
    found["neighbourhood"] = answers.fits - answers.nearby
    if answers.completed is not None:
        found["completion"] = answers.completed
    reference = population.reference
    if reference is not None and answers.sure is not None:
        found["rmia"] = _rmia(answers.fits, reference, population)
    regression = quantiles.scores(
        answers.fits,
        _features(population),
        population.subjects,
        population.groups == HELD_OUT,
        seed,
    )
    if regression is not None:
        found["quantile"] = regression
    return found


def _rmia(odds: Floats, reference: Floats, population: Population) -> Floats:
    """Return the share of held-out pictures of others that each picture's ratio dominates.

    Zarifzadeh, Liu and Shokri, Low-Cost High-Power Membership Inference Attacks, ICML 2024, with
    gamma = 1. Beyond the last of them, the ratio itself decides, so that there are no ties.
    """
    own = 1 / (1 + np.exp(-odds))
    out = 1 / (1 + np.exp(-reference))
    usual = 0.5 * ((1 + OFFLINE_A) * out + (1 - OFFLINE_A))
    # Certainty is where most members are: the odds tell apart what a probability of 1 cannot.
    ratio = np.log(own) - np.log(usual) + 1e-3 * (odds - reference)
    outside = np.flatnonzero(population.groups == HELD_OUT)
    dominated = np.zeros(len(ratio))
    for place in range(len(ratio)):
        others = outside[population.subjects[outside] != population.subjects[place]]
        if len(others):
            dominated[place] = float((ratio[place] >= ratio[others]).mean())
    return dominated + 1e-6 * np.tanh(ratio)


def _features(population: Population) -> Floats:
    """Return what may make a picture hard: brightness, contrast, edges, its class, a reference."""
    flat = population.pixels[:, 0].astype(np.float64)
    down = (
        np.abs(np.diff(flat, axis=1)).mean(axis=(1, 2)) if flat.shape[1] > 1 else 0 * flat[:, 0, 0]
    )
    across = (
        np.abs(np.diff(flat, axis=2)).mean(axis=(1, 2)) if flat.shape[2] > 1 else 0 * flat[:, 0, 0]
    )
    columns = [flat.mean(axis=(1, 2)), flat.std(axis=(1, 2)), down + across]
    if population.classes <= 10:
        columns += [
            (population.targets == number).astype(np.float64)
            for number in range(1, population.classes)
        ]
    if population.reference is not None:
        columns.append(population.reference)
    return np.stack(columns, axis=1)


def digest(picture: NDArray[np.float32]) -> bytes:
    """Return by what a picture is known again in another process' answers."""
    return hashlib.sha256(np.ascontiguousarray(picture, dtype="<f4").tobytes()).digest()


def check_same(
    answers: Answers, population: Population, official: Mapping[bytes, Floats], artefact: str
) -> list[Finding]:
    """Hold answers to held-out pictures against those that the official metrics are made of.

    A network that notices that it is attacked, and answers everything alike, contradicts itself.
    """
    places = [
        place
        for place in np.flatnonzero(population.groups == HELD_OUT)
        if digest(population.pixels[place]) in official
    ]
    if not places:
        return []
    before = np.stack([official[digest(population.pixels[place])] for place in places])
    now = answers.plain[places]
    share = evaluation.ROUNDING / evaluation.SAME
    if evaluation.apart(before, now, evaluation.spread_of(before), share) <= evaluation.SAME:
        return []
    return [
        Finding(
            "membership.unsteady",
            "review",
            artefact,
            "The network answers held-out pictures differently when members are among them.",
        )
    ]


def judge(
    found: Mapping[str, Floats], population: Population, policy: Policy, artefact: str
) -> list[Finding]:
    """Return what the attacks' scores mean by the policy."""
    sides = {name: sides_of(values, population, MEMBER) for name, values in found.items()}
    inside, outside = next(iter(sides.values())).counts
    least = policy.release.cell_threshold
    if min(inside, outside) < least:
        return [
            Finding(
                "membership.few",
                "review",
                artefact,
                "Whether subjects of the training can be told cannot be measured: too few.",
                {"needs": least},
                {"members": inside, "held_out": outside},
            )
        ]
    level = 1 - 0.05 / len(sides)
    areas = {name: statistics.area_interval(each, level) for name, each in sides.items()}
    best = max(areas, key=lambda name: areas[name].low)
    lowest = min(areas, key=lambda name: areas[name].high)
    limits = policy.attacks
    severity: Severity = "info"
    if areas[best].low > limits.membership_block_auc:
        severity = "block"
    elif areas[best].low > limits.membership_review_auc:
        severity = "review"
    elif areas[lowest].high < 1 - limits.membership_review_auc:
        # Worse on what it was trained on than on what it never saw: no training does that.
        best, severity = lowest, "review"
    advantage = statistics.advantage_interval(sides[best])
    exposed = _most_exposed(found[best], population)
    findings = [
        Finding(
            "membership.auc",
            severity,
            artefact,
            "Subjects of the training can be told from others."
            if severity != "info"
            else "Subjects of the training were not told from others with certainty.",
            {
                "attack": best,
                "attacks": len(sides),
                "auc": round(areas[best].value, 2),
                "auc_low": round(areas[best].low, 2),
                "auc_high": round(areas[best].high, 2),
                "advantage": round(advantage.value, 2),
                "advantage_low": round(advantage.low, 2),
                "advantage_high": round(advantage.high, 2),
            },
            {
                "members": inside,
                "held_out": outside,
                "auc": {name: area.rounded(3) for name, area in areas.items()},
                "most_exposed": exposed if severity != "info" else [],
                "pictures": [
                    drawing.roc(
                        {name: statistics.roc(each) for name, each in sides.items()}, outside
                    )
                ],
            },
        ),
        _rate(sides, policy, artefact),
    ]
    return [*findings, *_open(found[best], population, artefact, least)]


def sides_of(values: Floats, population: Population, group: int) -> Subjects:
    """Return the subjects of a group, as members, and the held-out ones."""
    kept = np.isin(population.groups, (group, HELD_OUT))
    return by_subject(values[kept], population.subjects[kept], (population.groups == group)[kept])


def _rate(sides: Mapping[str, Subjects], policy: Policy, artefact: str) -> Finding:
    """Return the true positive rate at the lowest false positive rate that can be measured."""
    limits = policy.attacks
    outside = next(iter(sides.values())).counts[1]
    rate = statistics.lowest_rate(outside)
    if rate is None or rate > limits.membership_rate:
        return Finding(
            "membership.unmeasured",
            "review",
            artefact,
            "Not measurable: how many subjects are found where few others are taken for one.",
            {
                "rate": limits.membership_rate,
                "needs": statistics.needed(limits.membership_rate),
            },
            {"held_out": outside},
        )
    level = 1 - 0.05 / len(sides)
    rates = {name: statistics.true_rate(each, rate, level) for name, each in sides.items()}
    best = max(rates, key=lambda name: rates[name].low)
    high = rates[best].low > limits.membership_factor * rate
    return Finding(
        "membership.rate",
        "review" if high else "info",
        artefact,
        "Some subjects of the training stand out where few others are taken for one."
        if high
        else "Few subjects of the training stand out where few others are taken for one.",
        {
            "attack": best,
            "rate": rate,
            "found": round(rates[best].value, 2),
            "found_low": round(rates[best].low, 2),
            "found_high": round(rates[best].high, 2),
        },
        {"found": {name: each.rounded(3) for name, each in rates.items()}},
    )


def _open(values: Floats, population: Population, artefact: str, least: int) -> list[Finding]:
    """Return whether rows that were staged and are no training rows look like training."""
    if not (population.groups == OPEN).any():
        return []
    sides = sides_of(values, population, OPEN)
    if min(sides.counts) < least:
        return []
    area = statistics.area_interval(sides)
    if area.low <= 0.5:
        return []
    return [
        Finding(
            "membership.validation",
            "info",
            artefact,
            "Subjects of the validation split look like subjects of the training.",
            {"auc": round(area.value, 2), "auc_low": round(area.low, 2)},
        )
    ]


def _most_exposed(values: Floats, population: Population) -> list[dict[str, Any]]:
    order = np.argsort(-np.where(population.members, values, -np.inf))[:_SHOWN]
    outside = values[population.groups == HELD_OUT]
    return [
        {
            "sample": population.places[i],
            "held_out_above": round(float((outside >= values[i]).mean()), 3),
        }
        for i in order
        if population.members[i]
    ]
