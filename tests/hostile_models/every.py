"""Every row, and how one is sent through the whole gate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from sandbox_runner.inspection import Report, gate
from sandbox_runner.inspection.attacks import attacking
from sandbox_runner.oracle import Oracle
from tests.hostile_models import (
    architecture,
    formats,
    hidden,
    inspecting,
    numbers,
    remembering,
    stored,
)
from tests.hostile_models.job import Case
from tests.hostile_models.judging import static_report
from tests.hostile_models.row import Row

ATTACKS = inspecting.ROWS
ROWS = [
    *formats.ROWS,
    *formats.OTHER,
    *architecture.ROWS,
    *numbers.ROWS,
    *stored.ROWS,
    *hidden.ROWS,
    *remembering.ROWS,
    *ATTACKS,
]
#: Rows of which the files say enough: the network need not be asked.
STATIC = [row for row in ROWS if row.static]


@contextmanager
def without_attacks() -> Iterator[None]:
    """Let the gate end before it attacks the network; what it has found by then stays."""
    whole = gate.Gate._attack
    gate.Gate._attack = lambda *_given: None  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        gate.Gate._attack = whole  # type: ignore[method-assign]


@contextmanager
def impatient(seconds: float) -> Iterator[None]:
    """Wait so long for an answer, as the machine's owner may."""
    whole = gate.Oracle

    def short(*args: Any, **options: Any) -> Oracle:
        return Oracle(*args, **options, call_seconds=seconds)

    for module in (gate, attacking):
        module.Oracle = short  # type: ignore[attr-defined, misc, assignment]
    try:
        yield
    finally:
        for module in (gate, attacking):
            module.Oracle = whole  # type: ignore[attr-defined, misc]


def came_of(row: Row, case: Case, whole: bool) -> tuple[Report, bool]:
    """Make a row and return the report, and whether what leaves is harmless.

    ``whole`` is the gate as it is, sealed; otherwise its steps on the files, in this process.
    """
    case = row.spoil(case)
    with impatient(row.patience), without_attacks() if row.light else nullcontext():
        report = case.inspect() if whole else static_report(case)
    return report, row.gone is not None and row.gone(case, report)
