"""What a dataset's earlier releases say of a new one: what one release hides, several may tell.

Two models that differ in little tell of what differs between their training data; many small
releases, also by several organisations, are one large one. No rule here holds anything back: each
is a notice that reviewers read before they vote, and it stays in the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policies.document import HistoryPolicy
from policies.errors import _


@dataclass(frozen=True, slots=True)
class Model:
    """A release as this compares it.

    ``architecture`` is a digest of the tensors' names and shapes ("" where no weights leave),
    ``sketch`` a random projection of the weights, which keeps distances; ``day`` the days from any
    fixed moment to its proposal.
    """

    release: int
    organisation: str
    version: int
    architecture: str
    code: str
    sketch: tuple[float, ...]
    bits: float
    day: float


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to know; ``evidence`` is rounded, ``releases`` are for reviewers only."""

    rule: str
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    releases: tuple[int, ...] = ()

    def as_mapping(self) -> dict[str, Any]:
        """Return plain values, to be kept with the release."""
        return {
            "rule": self.rule,
            "message": self.message,
            "evidence": dict(self.evidence),
            "releases": list(self.releases),
        }


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return how far two sketches are apart, as a part of the larger: 0 the same, 1.4 unrelated."""
    if len(one) != len(other) or not one:
        return math.inf
    apart = math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(one, other, strict=True)))
    size = max(math.hypot(*one), math.hypot(*other))
    return apart / size if size else 0.0


def notices(new: Model, past: Sequence[Model], policy: HistoryPolicy) -> list[Notice]:
    """Return what the history of the dataset says of ``new``; ``past`` in any order."""
    found: list[Notice] = []
    recent = [old for old in past if new.day - old.day <= policy.window_days]
    same = [old for old in past if new.architecture and old.architecture == new.architecture]
    apart = {old.release: distance(new.sketch, old.sketch) for old in same}
    near = [old for old in same if apart[old.release] <= policy.near_distance]
    if near:
        nearest = min(apart[old.release] for old in near)
        found.append(
            Notice(
                "history.near-identical",
                _("Its weights are nearly those of an earlier release of this dataset."),
                {"releases": len(near), "nearest": float(f"{nearest:.2g}")},
                tuple(old.release for old in near),
            )
        )
    other = [old for old in {*near, *_retrained(new, same)} if old.version != new.version]
    if other:
        found.append(
            Notice(
                "history.differencing",
                _(
                    "The same network was released from another version of this dataset: the "
                    "difference may tell of the subjects that are in only one of them."
                ),
                {"releases": len(other)},
                tuple(sorted(old.release for old in other)),
            )
        )
    row = [old for old in recent if old.organisation == new.organisation and old in near]
    if len(row) + 1 >= policy.near_releases:
        found.append(
            Notice(
                "history.row",
                _("Nearly the same weights leave again and again: together they tell more."),
                {"releases": len(row) + 1},
                tuple(old.release for old in row),
            )
        )
    small = [old for old in recent if old.bits <= policy.small_bits]
    organisations = {new.organisation, *(old.organisation for old in small)}
    if new.bits <= policy.small_bits and len(small) + 1 >= policy.small_releases:
        found.append(
            Notice(
                "history.small",
                _("Many small releases of this dataset stand close together; together they count.")
                if len(organisations) == 1
                else _(
                    "Many small releases of this dataset, of several organisations, stand close "
                    "together; together they count."
                ),
                {
                    "releases": len(small) + 1,
                    "organisations": len(organisations),
                    "bits": round(new.bits + math.fsum(old.bits for old in small)),
                },
                tuple(old.release for old in small),
            )
        )
    return found


def _retrained(new: Model, same: Sequence[Model]) -> list[Model]:
    """Return the releases of the same code on the same architecture, however far apart."""
    return [old for old in same if old.code == new.code]
