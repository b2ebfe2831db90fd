"""Private training: what a manifest may ask for, what the trainer's record says, what it changes.

Epsilon and delta are by *subject*: with the record, whoever knows everything but one subject's data
learns at most so much about whether, and with what, that subject is in the split ``train``. Only
the runner's record of the platform's own trainer says so; nothing that a job wrote does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from policies.document import Policy
from policies.errors import Invalid, _
from policies.findings import Finding
from policies.names import unknown

#: The recipe of the trainer that adds noise (sandbox_runner/private).
RECIPE: Final = "private"
OPTIMIZERS: Final = ("sgd", "adam")
TASKS: Final = ("classification", "reconstruction")
UNIT: Final = "subject"
NOT_GUARANTEED: Final = "not guaranteed"
MOST_SIDE: Final = 2048
LEAST_NOISE: Final = 0.3
MOST_NOISE: Final = 1000.0
#: What is measured on the subjects of the training themselves, so that its figures are not private.
MEASURED: Final = ("membership.", "memorisation.", "samples.")
#: What a review is lighter by, where the policy lets it: these may be notes instead of reviews.
LIGHTER: Final = ("membership.", "memorisation.", "tensors.precision")
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PrivateTraining:
    """The section ``[private]``.

    ``epsilon`` is the budget: without ``noise`` the noise is chosen so that ``steps`` fit into it,
    with ``noise`` training stops before the step that would not fit. ``delta`` 0 means the
    largest power of ten that is at most a tenth of 1 / subjects. ``rate`` is the chance of each
    subject to be drawn in a step, ``pictures`` how many of a drawn subject's are taken at most.
    """

    epsilon: float
    steps: int
    rate: float
    learning_rate: float
    delta: float = 0.0
    noise: float = 0.0
    clip: float = 1.0
    optimizer: str = "sgd"
    momentum: float = 0.9
    pictures: int = 16
    positive_weight: float = 1.0

    def as_mapping(self) -> dict[str, Any]:
        """Return the section as it stands in a manifest; what was not set is left out."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value or name == "momentum"}


KEYS: Final = tuple(field.name for field in fields(PrivateTraining))
# Least and most of each number; the least itself is not allowed where the third is true.
_RANGES: Final[Mapping[str, tuple[float, float, bool]]] = {
    "epsilon": (0.0, 1000.0, True),
    "steps": (1, 100_000, False),
    "rate": (0.0, 1.0, True),
    "learning_rate": (0.0, 100.0, True),
    "delta": (0.0, 0.1, True),
    "noise": (LEAST_NOISE, MOST_NOISE, False),
    "clip": (0.0, 1000.0, True),
    "momentum": (0.0, 0.999, False),
    "pictures": (1, 256, False),
    "positive_weight": (0.0, 1000.0, True),
}
_WHOLE: Final = ("steps", "pictures")
_NEEDED: Final = ("epsilon", "steps", "rate", "learning_rate")


def read_private(section: Mapping[str, Any], policy: Policy) -> PrivateTraining:
    """Return the section ``[private]``, or raise Invalid whose ``field`` names the fault."""
    for name in _NEEDED:
        if name not in section:
            raise Invalid(
                _("A private training needs this."), field=f"private.{name}", code="private.missing"
            )
    values: dict[str, Any] = {}
    for name, value in section.items():
        values[name] = _optimizer(value) if name == "optimizer" else _number(name, value)
    asked = PrivateTraining(**values)
    for name, most in (("epsilon", policy.privacy.epsilon), ("delta", policy.privacy.delta)):
        if getattr(asked, name) > most:
            raise Invalid(
                _("This dataset's policy allows at most {most}."),
                field=f"private.{name}",
                code="private.most",
                most=most,
            )
    return asked


def _optimizer(value: object) -> str:
    if not isinstance(value, str) or value not in OPTIMIZERS:
        sentence = _("There is no optimizer {name}.")
        raise unknown(sentence, value, OPTIMIZERS, "private.optimizer", "private.optimizer")
    return value


def _number(name: str, value: object) -> float | int:
    least, most, above = _RANGES[name]
    kinds = int if name in _WHOLE else int | float
    good = isinstance(value, kinds) and not isinstance(value, bool)
    # Written so that a number that is none is refused.
    if not good or not (least < value <= most or (value == least and not above)):  # type: ignore[operator]
        sentence = (
            _("This is a whole number from {least} to {most}.")
            if name in _WHOLE
            else _("This is a number above {least}, at most {most}.")
            if above
            else _("This is a number from {least} to {most}.")
        )
        raise Invalid(
            sentence, field=f"private.{name}", code="private.range", least=least, most=most
        )
    return value if name in _WHOLE else float(value)  # type: ignore[arg-type,return-value]


def rounded_up(value: float) -> float:
    """Return the least number of three digits that is not below ``value``: figures are shown so."""
    return _three_digits(value, up=True)


def _three_digits(value: float, *, up: bool) -> float:
    if value <= 0 or not math.isfinite(value):
        return value
    digits, exponent = f"{value:.2e}".split("e")
    number, place = int(digits.replace(".", "")), int(exponent) - 2
    shown = float(f"{number}e{place}")
    if up and shown < value:
        return float(f"{number + 1}e{place}")
    if not up and shown > value:
        # Below 100 stands 99.9.
        return float(f"999e{place - 1}" if number == 100 else f"{number - 1}e{place}")
    return shown


def delta_for(asked: float, subjects: int, policy_most: float) -> float:
    """Return delta for a training set of so many subjects. Raises Invalid.

    A delta of 1 / subjects or more would let one whole subject be published.
    """
    if subjects < 1:
        raise Invalid(
            _("There is no subject to train on."), field="datasets", code="private.subjects"
        )
    if asked:
        if asked * subjects >= 1:
            raise Invalid(
                _("Delta must be below 1 / (number of subjects)."),
                field="private.delta",
                code="private.delta",
            )
        return _three_digits(asked, up=False)  # as it is shown
    return min(float(f"1e{math.floor(math.log10(0.1 / subjects))}"), policy_most)


@dataclass(frozen=True, slots=True)
class Record:
    """What the runner wrote down of a private training; ``weights`` are SHA-256 by file.

    ``trainer`` and ``graph`` are the SHA-256 of the trainer's code and of the closed graph that
    was trained.
    """

    epsilon: float
    delta: float
    noise: float
    rate: float
    steps: int
    clip: float
    subjects: int
    accountant: str
    trainer: str
    graph: str
    weights: Mapping[str, str]

    def as_mapping(self) -> dict[str, Any]:
        """Return plain values; :func:`read_record` reads them back."""
        return asdict(self) | {"unit": UNIT, "weights": dict(self.weights)}


def read_record(values: Mapping[str, Any]) -> Record:
    """Return a record from plain values; raises ValueError for one that no trainer writes."""
    numbers = ("epsilon", "delta", "noise", "rate", "clip")
    if set(values) != {field.name for field in fields(Record)} | {"unit"}:
        raise ValueError("other fields")
    if values["unit"] != UNIT:
        raise ValueError("unit")
    for name in numbers:
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(name)
    for name in ("steps", "subjects"):
        if type(values[name]) is not int or values[name] < 1:
            raise ValueError(name)
    weights = values["weights"]
    if not isinstance(weights, Mapping) or not weights:
        raise ValueError("weights")
    for digest in (values["trainer"], values["graph"], *weights.values()):
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ValueError("digest")
    if not isinstance(values["accountant"], str) or len(values["accountant"]) > 80:
        raise ValueError("accountant")
    if not (values["rate"] <= 1 and values["delta"] < 1):
        raise ValueError("rate")
    kept = {name: value for name, value in values.items() if name != "unit"}
    return Record(**{**kept, "weights": dict(weights)})


def privacy_finding(
    asked: PrivateTraining | None,
    written: Mapping[str, Any] | None,
    weights: Mapping[str, str],
    artefact: str,
) -> Finding:
    """Return ``privacy.epsilon``: what is guaranteed, or that nothing is.

    ``written`` is the runner's record, ``weights`` are the SHA-256 of the files that are
    inspected: a record of other files, of another training than the manifest asks for, or of a job
    that did not ask for one, says nothing of these.
    """
    if asked is None:
        return Finding(
            "privacy.epsilon",
            "info",
            artefact,
            _(
                "No differential privacy is guaranteed: what a submission's own training claims "
                "of it cannot be checked."
            ),
            {"epsilon": NOT_GUARANTEED},
        )
    record = _record_of(asked, written, weights)
    if record is None:
        return Finding(
            "privacy.epsilon",
            "review",
            artefact,
            _(
                "Private training was asked for, and there is no record that the trusted trainer "
                "made these weights."
            ),
            {"epsilon": NOT_GUARANTEED},
        )
    return Finding(
        "privacy.epsilon",
        "info",
        artefact,
        _(
            "The trusted trainer made these weights with noise: epsilon and delta hold for each "
            "subject of the training, and for the weights alone."
        ),
        {
            "epsilon": rounded_up(record.epsilon),
            "delta": rounded_up(record.delta),
            "unit": UNIT,
            "noise": record.noise,
            "clip": record.clip,
            "rate": record.rate,
            "steps": record.steps,
        },
    )


def _record_of(
    asked: PrivateTraining, written: Mapping[str, Any] | None, weights: Mapping[str, str]
) -> Record | None:
    """Return the record if it is one, of these files and of this training."""
    try:
        record = read_record(written) if written else None
    except (KeyError, TypeError, ValueError):
        return None
    if record is None or dict(record.weights) != dict(weights):
        return None
    same = (record.rate, record.clip) == (asked.rate, asked.clip) and record.steps <= asked.steps
    noise = record.noise == asked.noise if asked.noise else True
    within = record.epsilon <= rounded_up(asked.epsilon) and record.delta * record.subjects < 1
    return record if same and noise and within else None


def guaranteed(findings: Iterable[Finding]) -> tuple[float, float] | None:
    """Return epsilon and delta of ``privacy.epsilon``, None where nothing is guaranteed."""
    for found in findings:
        if found.rule == "privacy.epsilon":
            return figures(found.evidence)
    return None


def figures(evidence: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return epsilon and delta of the finding's evidence, None where nothing is guaranteed."""
    epsilon, delta = evidence.get("epsilon"), evidence.get("delta")
    if isinstance(epsilon, int | float) and isinstance(delta, int | float):
        return float(epsilon), float(delta)
    return None


def lighter(findings: Iterable[Finding], policy: Policy) -> list[Finding]:
    """Return the findings as they weigh after a private training.

    Where the machine's owner and the dataset's policy both let it, and epsilon is at most what they
    say, what noise already answers is a note: membership, memorisation, full precision. Blocks
    stay blocks, everything else stays as it is, and so does the quorum.
    """
    rows = list(findings)
    most = min(policy.deployment.lighter_epsilon, policy.privacy.lighter_epsilon)
    known = guaranteed(rows)
    if known is None or not 0 < known[0] <= most:
        return rows
    return [
        replace(found, severity="info")
        if found.severity == "review" and found.rule.startswith(LIGHTER)
        else found
        for found in rows
    ]


def sheltered(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with what was measured on the training shown to reviewers alone.

    Only after a private training: a figure that leaves beside its weights, and that was computed
    from the data without noise, would tell of a subject what the weights do not.
    """
    rows = list(findings)
    if guaranteed(rows) is None:
        return rows
    return [
        replace(found, evidence={}, internal={**found.internal, "figures": dict(found.evidence)})
        if found.rule.startswith(MEASURED) and found.evidence
        else found
        for found in rows
    ]
