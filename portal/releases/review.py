"""What a reviewer's one screen says: what was looked for, what was found, what the ledger says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext, gettext_noop

# Groups of the inspection's rules by the beginning of their names, in the order of the gate.
LOOKED_FOR: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        gettext_noop("Files"),
        gettext_noop("Only declared files of allowed kinds and sizes, whole and readable."),
        ("artefacts.", "weights.", "safetensors.", "onnx.", "config."),
    ),
    (
        gettext_noop("Architecture"),
        gettext_noop("Every tensor is one that the declared network has, in shape and type."),
        ("tensors.",),
    ),
    (
        gettext_noop("Hidden payloads"),
        gettext_noop("Other files, text, coded bytes or uneven low bits inside the weights."),
        ("payload.",),
    ),
    (
        gettext_noop("Rewriting"),
        gettext_noop(
            "Where the policy asks: weights with noise, what they can still carry, lost AUC."
        ),
        ("sanitise.",),
    ),
    (
        gettext_noop("Training samples"),
        gettext_noop("Pictures or rows of the data stored in or shaped into the weights."),
        ("samples.",),
    ),
    (
        gettext_noop("Reported metrics"),
        gettext_noop("Declared names and ranges, rounded, small counts suppressed, within budget."),
        ("metrics.",),
    ),
    (
        gettext_noop("The network's answers"),
        gettext_noop("Measured as an oracle on the sealed split; the same when asked again."),
        ("network.", "evaluation."),
    ),
    (
        gettext_noop("Membership"),
        gettext_noop("Whether its answers tell who was among the subjects of the training."),
        ("membership.", "attacks."),
    ),
    (
        gettext_noop("Memorisation"),
        gettext_noop("Pictures of single subjects that it gives back, or keeps as it saw them."),
        ("memorisation.",),
    ),
    (
        gettext_noop("Differential privacy"),
        gettext_noop(
            "Whether the trusted trainer made the weights, and what it accounted for; of any other "
            "training nothing is guaranteed."
        ),
        ("privacy.",),
    ),
)
WORST = ("info", "review", "block")


@dataclass(frozen=True)
class Looked:
    """One thing that was looked for; ``severity`` is the worst that was found, "" for nothing."""

    title: str
    sentence: str
    severity: str
    count: int


def looked_for(findings: Iterable[Mapping[str, Any]]) -> list[Looked]:
    """Return what the inspection looked for, with the worst of what it found."""
    rows = list(findings)
    known = tuple(prefix for _title, _sentence, prefixes in LOOKED_FOR for prefix in prefixes)
    groups = [
        (gettext(title), gettext(sentence), [r for r in rows if r["rule"].startswith(prefixes)])
        for title, sentence, prefixes in LOOKED_FOR
    ]
    others = [row for row in rows if not row["rule"].startswith(known)]
    if others:
        groups.append((gettext("Other"), "", others))
    return [
        Looked(
            title,
            sentence,
            max((row["severity"] for row in found), key=WORST.index, default=""),
            len(found),
        )
        for title, sentence, found in groups
    ]


# The figures of policies.history.Notice, as a reviewer reads them.
FIGURES: Mapping[str, str] = {
    "releases": gettext_noop("releases"),
    "nearest": gettext_noop("distance of the nearest (0: the same, 1.4: unrelated)"),
    "organisations": gettext_noop("organisations"),
    "bits": gettext_noop("bits together"),
}


def notice_words(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the notices of the history in the reader's language."""
    return [
        {
            "message": gettext(row["message"]),
            "figures": [
                (gettext(FIGURES[name]), value)
                for name, value in row["evidence"].items()
                if name in FIGURES
            ],
            "releases": row["releases"],
        }
        for row in rows
    ]


@dataclass(frozen=True)
class Entry:
    """One line of the ledger before and after; ``limit`` is None where nothing bounds it."""

    name: str
    before: float | None
    after: float | None
    limit: float | None

    @property
    def percent(self) -> int:
        """Return how much of the limit is spent afterwards."""
        return min(100, round(100 * (self.after or 0) / self.limit)) if self.limit else 0


LIVE: Mapping[str, str] = {
    "job": gettext_noop("Live numbers of this job, in bits"),
    "grant": gettext_noop("Live numbers of this grant, in bits"),
    "organisation": gettext_noop("Live numbers of this organisation, in bits"),
    "dataset": gettext_noop("Live numbers of this dataset, in bits"),
}
COUNTS: Mapping[str, str] = {
    "sealed_evaluations": gettext_noop("Jobs measured on the sealed split under this grant"),
    "releases_of_grant": gettext_noop("Releases of this grant"),
    "releases_of_dataset": gettext_noop("Releases of this dataset"),
    "released_bits_of_dataset": gettext_noop("Released from this dataset, at most, in bits"),
    "epsilon_of_grant": gettext_noop("Epsilon of this grant's private trainings"),
    "epsilon_of_organisation": gettext_noop(
        "Epsilon of this organisation's private trainings on this dataset"
    ),
    "epsilon_of_dataset": gettext_noop("Epsilon of all private trainings on this dataset"),
    "delta_of_dataset": gettext_noop("Delta of all private trainings on this dataset"),
}


def ledger_rows(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Entry]:
    """Return the ledger line by line, as it was proposed and as it is once this has left."""
    rows = [
        _entry(name, before.get("live_bits", {}).get(key), after.get("live_bits", {}).get(key))
        for key, name in LIVE.items()
    ]
    rows += [_entry(name, before.get(key), after.get(key)) for key, name in COUNTS.items()]
    return [row for row in rows if row.before is not None or row.after is not None]


def _entry(name: str, before: Any, after: Any) -> Entry:
    def spent(value: Any) -> float | None:
        return value.get("spent") if isinstance(value, Mapping) else value

    limits = [value.get("limit") for value in (after, before) if isinstance(value, Mapping)]
    return Entry(gettext(name), spent(before), spent(after), limits[0] if limits else None)
