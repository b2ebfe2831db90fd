"""The released metrics: held to what was declared, rounded, small counts suppressed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from typing import Any

from policies.document import Policy
from policies.errors import _
from policies.findings import Finding
from policies.ledger import bits_of_metrics
from policies.metrics import MetricSpec, is_number, round_number

# Names of a table's columns are chosen by the job at run time, so they could spell anything.
# These, and declared metrics, keep theirs; any other column is given a number.
_COMMON = (
    "step epoch iteration x y value count threshold lr learning_rate fpr tpr fnr tnr "
    "precision recall sensitivity specificity accuracy auc f1 loss iou dice map fid psnr ssim "
    "mean std lower upper train validation val train_loss validation_loss val_loss "
    "train_accuracy validation_accuracy val_accuracy train_auc validation_auc val_auc seconds "
)
COLUMN_NAMES = frozenset(_COMMON.split())
# A declared range is that of the measured values, not of the axis they stand over.
AXES = frozenset({"step", "epoch", "iteration", "x"})
MAXIMUM_COLUMNS = 16
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)


class _Refused(Exception):
    """A value that is not what was declared; holds rule and sentence, never the value."""


class _Reading:
    """One metric being read; gathers what was withheld on the way."""

    def __init__(self, name: str, spec: MetricSpec, declared: frozenset[str], policy: Policy):
        self.name, self.spec, self.declared, self.policy = name, spec, declared, policy
        self.withheld = self.suppressed = self.renamed = 0

    def number(
        self, value: object, spec: MetricSpec | None = None, *, empty: bool = False
    ) -> float | int | None:
        if value is None and empty:
            return None
        if not is_number(value) or not isinstance(value, int | float):
            raise _Refused("metrics.type", _("A value is not a number."))
        spec = spec or self.spec
        if spec.count:
            return self.count(value)
        digits = min(spec.digits, self.policy.release.digits)
        rounded = round_number(spec, value, digits)
        self.withheld += rounded is None
        return rounded

    def count(self, value: float) -> int | None:
        if value != value or value < 0 or value >= 2**53 or value != int(value):
            self.withheld += 1
            return None
        if value < self.policy.release.cell_threshold:
            self.suppressed += 1
            return None
        rounded = round_number(self.spec, value, min(self.spec.digits, self.policy.release.digits))
        self.withheld += rounded is None
        return None if rounded is None else int(rounded)

    def read(self, value: object) -> Any:
        if self.spec.kind == "choice":
            if not isinstance(value, str) or value not in self.spec.values:
                raise _Refused("metrics.choice", _("The value is none of the declared words."))
            return value
        if self.spec.kind == "number":
            return self.number(value)
        if self.spec.kind == "curve":
            return self.table(value) if _is_table(value) else self.points(value)
        return self.matrix(value)

    def points(self, value: object, spec: MetricSpec | None = None) -> list[float | int | None]:
        if not isinstance(value, list | tuple):
            raise _Refused("metrics.type", _("A curve is a list of numbers or a table of them."))
        if len(value) > self.policy.release.curve_points:
            raise _Refused("metrics.length", _("The curve has more points than may leave."))
        return [self.number(item, spec, empty=True) for item in value]

    def table(self, value: Any) -> dict[str, list[float | int | None]]:
        columns = _columns(value, self.policy.release.curve_points)
        if len(columns) > MAXIMUM_COLUMNS:
            raise _Refused("metrics.length", _("The table has more columns than may leave."))
        if (
            len({len(column) for column in columns.values() if isinstance(column, list | tuple)})
            > 1
        ):
            raise _Refused("metrics.length", _("The columns of the table are not equally long."))
        result: dict[str, list[float | int | None]] = {}
        numbers = (n for n in count(1) if f"column_{n}" not in self.declared)
        # Sorted, so that the order of the columns says nothing.
        for name in sorted(columns):
            kept = name in COLUMN_NAMES or name in self.declared
            self.renamed += not kept
            axis = MetricSpec("curve") if name in AXES else None
            shown = name if kept else f"column_{next(numbers)}"
            result[shown] = self.points(columns[name], axis)
        return result

    def matrix(self, value: object) -> list[list[float | int | None]]:
        side = self.policy.release.matrix_side
        if (
            not isinstance(value, list | tuple)
            or not 0 < len(value) <= side
            or not all(isinstance(row, list | tuple) and 0 < len(row) <= side for row in value)
            or len({len(row) for row in value}) != 1
        ):
            raise _Refused("metrics.shape", _("A matrix is equally long rows, within the limit."))
        cells = [cell for row in value for cell in row if cell is not None]
        if any(not is_number(cell) for cell in cells):
            raise _Refused("metrics.type", _("A cell is not a number."))
        # Undeclared counts look like counts: whole numbers, none negative.
        whole = [_is_whole(cell) for cell in cells]
        rows: list[list[float | int | None]]
        counts = self.spec.count
        if counts or (counts is None and all(whole)):
            rows = [[None if c is None else self.count(c) for c in row] for row in value]
            return self._complement(rows)
        rows = [[self.number(cell, empty=True) for cell in row] for row in value]
        # Beside fractions, too: a share or a mean among counts must not uncover them.
        if counts is None and any(w and cell > 1 for w, cell in zip(whole, cells, strict=True)):
            rows = [[self._unless_few(cell) for cell in row] for row in rows]
        return self._complement(rows) if self.suppressed else rows

    def _unless_few(self, rounded: float | None) -> float | None:
        few = self.policy.release.cell_threshold
        if rounded is None or not _is_whole(rounded) or rounded >= few:
            return rounded
        self.suppressed += 1
        return None

    def _complement(self, rows: list[list[float | int | None]]) -> list[list[float | int | None]]:
        """Suppress the smallest other count when one alone was: totals would give it back."""
        shown = [
            (cell, y, x)
            for y, row in enumerate(rows)
            for x, cell in enumerate(row)
            if cell is not None and _is_whole(cell)
        ]
        if shown and sum(cell is None for row in rows for cell in row) == 1:
            _cell, y, x = min(shown)
            rows[y][x] = None
            self.suppressed += 1
        return rows


def check_metrics(
    declared: Mapping[str, MetricSpec], values: object, policy: Policy
) -> tuple[dict[str, Any], list[Finding]]:
    """Return what of ``values`` may leave, and what was found.

    ``values`` is the parsed JSON of the job. A number becomes a rounded number or None; a curve a
    list or a table of columns by name (rows are turned into columns); a matrix rows, in which
    counts below the policy's threshold are None. Everything undeclared, textual or of another
    shape is left out and blocks; names that the job made up are for reviewers only.
    """
    findings: list[Finding] = []
    if not isinstance(values, Mapping):
        return {}, [_block("metrics.type", "", _("The metrics are not a table of named values."))]
    strangers = [name for name in values if name not in declared]
    if strangers:
        findings.append(
            Finding(
                "metrics.undeclared",
                "block",
                "",
                _("The job wrote metrics that its manifest does not declare; they were left out."),
                {"count": len(strangers)},
                {"names": [repr(name)[:80] for name in strangers[:20]]},
            )
        )
    rounded: dict[str, Any] = {}
    for name, spec in declared.items():
        if name not in values:
            findings.append(
                Finding("metrics.missing", "info", name, _("The job did not write this metric."))
            )
            continue
        reading = _Reading(name, spec, frozenset(declared), policy)
        try:
            rounded[name] = reading.read(values[name])
        except _Refused as refused:
            findings.append(_block(refused.args[0], name, refused.args[1]))
            continue
        findings += _notes(reading)
    findings += _budget(declared, rounded, policy)
    return rounded, findings


def _is_whole(cell: float) -> bool:
    """Whether a number may be a count."""
    return 0 <= cell < 2**53 and cell == int(cell)


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)
    )


def _columns(value: Any, most: int) -> dict[str, Any]:
    if isinstance(value, Mapping):
        columns = dict(value)
    else:
        if len(value) > most:
            raise _Refused("metrics.length", _("The table has more rows than may leave."))
        names = list(value[0])
        if any(not isinstance(row, Mapping) or set(row) != set(names) for row in value):
            raise _Refused("metrics.shape", _("The rows of the table have different names."))
        columns = {name: [row[name] for row in value] for name in names}
    if any(not isinstance(name, str) or not _NAME.fullmatch(name) for name in columns):
        raise _Refused("metrics.column-name", _("A column's name is letters, digits, underscores."))
    return columns


def _block(rule: str, artefact: str, message: str) -> Finding:
    return Finding(rule, "block", artefact, message)


def _notes(reading: _Reading) -> list[Finding]:
    notes: list[Finding] = []
    if reading.withheld:
        notes.append(
            Finding(
                "metrics.range",
                "review",
                reading.name,
                _("Numbers that were not finite or outside the declared range were left out."),
                {"count": reading.withheld},
            )
        )
    if reading.suppressed:
        notes.append(
            Finding(
                "metrics.small-cells",
                "info",
                reading.name,
                _("Small counts were suppressed."),
                # Not how many: beside a total that would narrow them down.
                {"threshold": reading.policy.release.cell_threshold},
                {"suppressed": reading.suppressed},
            )
        )
    if reading.renamed:
        notes.append(
            Finding(
                "metrics.column-name",
                "info",
                reading.name,
                _("Columns that are no declared metric and no usual word were numbered instead."),
                {"count": reading.renamed},
            )
        )
    return notes


def _budget(
    declared: Mapping[str, MetricSpec], rounded: Mapping[str, Any], policy: Policy
) -> list[Finding]:
    bits = bits_of_metrics(declared, rounded)
    if bits <= policy.release.metrics_bits:
        return [
            Finding("metrics.budget", "info", "", _("What the metrics can say."), {"bits": bits})
        ]
    return [
        Finding(
            "metrics.budget",
            "review",
            "",
            _("The metrics can say more than the policy's ordinary amount."),
            {"bits": bits, "most": policy.release.metrics_bits},
        )
    ]
