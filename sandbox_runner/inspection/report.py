"""What an inspection answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.findings import Finding, Verdict, verdict


@dataclass(frozen=True)
class Report:
    """The findings on one output.

    ``official`` are the metrics of the trusted evaluation, ``metrics`` the job's own as they may
    leave (rounded, suppressed), ``digests`` the SHA-256 of each file that was inspected,
    ``sanitised`` the directory of rewritten weights, if they were; ``official`` then is of these,
    and ``sanitising`` says what was done, what they still can carry (``capacity_bits``), and the
    official metrics before (``before``).
    """

    findings: tuple[Finding, ...]
    official: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    sanitised: Path | None = None
    sanitising: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Pass, review or block."""
        return verdict(self.findings)

    def public(self) -> dict[str, Any]:
        """Return what the applicant and the bundle may see."""
        return {
            "verdict": self.verdict,
            "findings": [found.public() for found in self.findings],
            "official": dict(self.official),
            "metrics": dict(self.metrics),
            "digests": dict(self.digests),
            "sanitising": dict(self.sanitising),
        }

    def as_mapping(self) -> dict[str, Any]:
        """Return everything, for reviewers and for ``glovebox inspect --json``."""
        return {
            **self.public(),
            "findings": [found.as_mapping() for found in self.findings],
            "sanitised": str(self.sanitised) if self.sanitised else None,
        }
