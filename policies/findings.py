"""What an inspection found, and what all findings together mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from policies.names import is_inert

Severity = Literal["info", "review", "block"]
Verdict = Literal["pass", "review", "block"]
SEVERITIES: tuple[Severity, ...] = ("info", "review", "block")

Evidence = Mapping[str, int | float | str | bool]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    ``rule`` names the check (``tensors.shape``), ``artefact`` a declared file or metric,
    ``message`` is a fixed sentence that never quotes the artefact's content. ``evidence`` is
    public: figures (rounded when shown) and words that the job did not choose. ``internal`` is
    for reviewers only: names, samples, pictures' references. ``hard`` blocks are never lifted.
    """

    rule: str
    severity: Severity
    artefact: str
    message: str
    evidence: Evidence = field(default_factory=dict)
    internal: Mapping[str, Any] = field(default_factory=dict)
    hard: bool = False

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError("unknown severity")
        if self.hard and self.severity != "block":
            raise ValueError("only a block is hard")

    def public(self) -> dict[str, Any]:
        """Return what the applicant and the bundle see; numbers have three digits."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "hard": self.hard,
            "artefact": self.artefact,
            "message": self.message,
            "evidence": {key: _public(value) for key, value in self.evidence.items()},
        }

    def as_mapping(self) -> dict[str, Any]:
        """Return everything, for reviewers and for storage; always valid JSON."""
        whole = self.public()
        whole["evidence"] = {key: _plain(value) for key, value in self.evidence.items()}
        return whole | {"internal": {str(key): _plain(v) for key, v in self.internal.items()}}


def finding_from_mapping(values: Mapping[str, Any]) -> Finding:
    """Return a finding from :meth:`Finding.as_mapping` or :meth:`Finding.public`."""
    return Finding(
        rule=str(values["rule"]),
        severity=values["severity"],
        artefact=str(values["artefact"]),
        message=str(values["message"]),
        evidence=dict(values.get("evidence", {})),
        internal=dict(values.get("internal", {})),
        hard=values.get("hard") is True,
    )


def verdict(findings: Iterable[Finding]) -> Verdict:
    """Return block if any finding blocks, review if any asks for it, else pass."""
    worst = max((SEVERITIES.index(found.severity) for found in findings), default=0)
    verdicts: tuple[Verdict, ...] = ("pass", "review", "block")
    return verdicts[worst]


def has_hard_block(findings: Iterable[Finding]) -> bool:
    """Whether a finding blocks that nobody may lift."""
    return any(found.hard for found in findings)


def _public(value: object) -> Any:
    plain = _plain(value)
    if isinstance(plain, float):
        return float(f"{plain:.3g}")
    if isinstance(plain, int) and not isinstance(plain, bool):
        return int(float(f"{plain:.3g}")) if abs(plain) < 10**300 else 0
    if isinstance(plain, str):
        return plain if len(plain) <= 200 and is_inert(plain) else "?"
    return plain


def _plain(value: object) -> Any:
    """Return JSON values; what is none becomes a word, so that a report is never unreadable."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else "not finite"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return type(value).__name__
