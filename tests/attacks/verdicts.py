"""What came of each probe and each honest program, and the table that `make verify-attacks` prints.

Verdicts travel as properties of pytest's reports, so the table holds however the tests were split
among processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

import pytest

from sandbox_runner.backends import BACKENDS
from sandbox_runner.backends.choice import backend as backend_of
from sandbox_runner.backends.choice import missing

PROBE, HONEST, BARE = "probe", "honest", "bare"
HEAD = (
    "backend",
    "probes",
    "succeeded",
    "wrong reason",
    "documented",
    "benign",
    "benign failed",
    "leftovers",
)


@dataclass
class Row:
    """The sums of one backend."""

    probes: int = 0
    succeeded: int = 0
    wrong: int = 0
    known: int = 0
    honest: int = 0
    honest_failed: int = 0
    leftovers: int = 0

    def cells(self, name: str) -> list[str]:
        """Return the row of the printed table."""
        return [name, *(str(value) for value in vars(self).values())]


def said(
    *, succeeded: bool, wrong: str, leftovers: Set[str], known: bool = False
) -> dict[str, object]:
    """Return a probe's verdict as a property of its report."""
    return {
        "succeeded": succeeded and not known,
        "wrong": bool(wrong),
        "known": succeeded and known,
        "leftovers": len(leftovers),
    }


def sums(reports: Iterable[pytest.TestReport]) -> tuple[dict[str, Row], int, int]:
    """Return the row of each backend, and how many were shown bare and how many were not."""
    rows: dict[str, Row] = {}
    shown = vacuous = 0
    for report in reports:
        for kind, value in report.user_properties:
            if kind == BARE:
                shown += report.passed
                vacuous += report.failed
            if kind not in (PROBE, HONEST):
                continue
            name, verdict = value  # type: ignore[misc]
            row = rows.setdefault(str(name), Row())
            if kind == HONEST:
                row.honest += 1
                row.honest_failed += report.failed
            elif isinstance(verdict, dict):
                row.probes += 1
                row.succeeded += bool(verdict["succeeded"])
                row.wrong += bool(verdict["wrong"])
                row.known += bool(verdict["known"])
                row.leftovers += int(verdict["leftovers"])
    return rows, shown, vacuous


def lines(reports: Sequence[pytest.TestReport]) -> list[str]:
    """Return the table, a line each, the backends that are not here included."""
    rows, shown, vacuous = sums(reports)
    table = [list(HEAD)]
    absent = []
    for name in BACKENDS:
        if name in rows:
            version = backend_of(name).version()
            table.append(rows[name].cells(f"{name} {version}"))
        else:
            lacking = ", ".join(missing(name))
            why = (
                f"not on this machine ({lacking})" if lacking else "here, and nothing of it was run"
            )
            absent.append(f"{name}: {why}; nothing is said of it")
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    printed = [
        "  ".join(cell.rjust(width) if at else cell.ljust(width)
                  for at, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in table
    ]  # fmt: skip
    bare = f"without a sandbox: {shown} of them were shown to succeed, {vacuous} did not"
    known = "documented: got through as docs/threat-model.md says; it must say so or close it"
    return [*printed, *absent, bare, *([known] if any(r.known for r in rows.values()) else [])]
