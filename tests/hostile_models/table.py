"""What came of each row, and the table that is printed and stands in docs/release-gate.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from policies.findings import Finding, verdict
from tests.hostile_models.row import Row

JUDGED = "hostile"
HEAD = ("group", "rows", "provable", "of these blocked", "other: blocked", "review",
        "made harmless", "passed")  # fmt: skip


def outcome(row: Row, findings: Sequence[Finding], harmless: bool = False) -> dict[str, object]:
    """Return a row's judgement as a property of its report.

    "passed" is a verdict of pass with the payload still in what leaves.
    """
    came = str(verdict(findings))
    if row.expect == "clean" and harmless and came != "block":
        came = "harmless"
    rules = sorted({found.rule for found in findings if found.severity in ("review", "block")})
    return {
        "group": row.group,
        "row": row.name,
        "provable": row.provable,
        "why": row.why,
        "expect": row.expect,
        "came": came,
        "rules": rules,
    }


def rows_of(reports: Iterable[pytest.TestReport]) -> list[dict[str, object]]:
    """Return the judgements that tests have left."""
    return [
        value
        for report in reports
        for kind, value in report.user_properties
        if kind == JUDGED and isinstance(value, dict)
    ]


def _cells(name: str, rows: Sequence[dict[str, object]]) -> list[str]:
    provable = [row for row in rows if row["provable"] and row["expect"] != "clean"]
    others = [row for row in rows if row not in provable]

    def count(some: Sequence[dict[str, object]], came: str) -> str:
        return str(sum(row["came"] == came for row in some))

    return [
        name, str(len(rows)), str(len(provable)), count(provable, "block"),
        count(others, "block"), count(rows, "review"), count(rows, "harmless"), count(rows, "pass"),
    ]  # fmt: skip


def lines(rows: Sequence[dict[str, object]], each: bool = False) -> list[str]:
    """Return the table in Markdown: by group, and row by row where ``each``."""
    groups = list(dict.fromkeys(str(row["group"]) for row in rows))
    table = [list(HEAD), ["---"] * len(HEAD)]
    table += [_cells(group, [row for row in rows if row["group"] == group]) for group in groups]
    table.append(_cells("all", rows))
    printed = ["| " + " | ".join(cells) + " |" for cells in table]
    if each:
        printed += ["", "| group | output | provable | came of it | by |", "|---|---|---|---|---|"]
        printed += [
            f"| {row['group']} | {row['row']} | {'yes' if row['provable'] else 'no'} | "
            f"{row['came']} | {', '.join(map(str, row['rules']))} |"  # type: ignore[call-overload]
            for row in rows
        ]
    return printed
