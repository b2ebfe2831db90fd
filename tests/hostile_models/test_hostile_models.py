"""No hostile output passes; what a scan can prove is blocked.

The files of every row are judged here, by the gate's own steps; `make verify-hostile` sends every
row through the whole gate, sealed, and prints the table (docs/release-gate.md).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from policies.findings import Finding, verdict
from sandbox_runner.backends.interface import Backend
from sandbox_runner.inspection import gate
from sandbox_runner.inspection.safetensors_file import read_header
from sandbox_runner.oracle import Oracle, OracleFault
from sandbox_runner.spec import SandboxSpec
from tests.hostile_models import inspecting, table
from tests.hostile_models.every import ATTACKS, ROWS, STATIC, came_of
from tests.hostile_models.job import Case
from tests.hostile_models.row import Row

pytestmark = pytest.mark.sandbox

#: Of the attacks on the inspection, those that harm the machine where nothing is sealed.
NOT_BARE = ("takes all memory there is", "forks without end")
QUICK_ATTACKS = (
    "writes a report that says pass wherever it may write",
    "an exception at the fortieth question",
)
#: Groups of many rows whose search takes a second each; the quick ones of them stand for the rest.
SLOW = ("stored samples", "hidden payloads", "memorisation")
Fresh = Callable[[], Case]


def ids(row: Row) -> str:
    return f"{row.group}: {row.name}"


def test_there_are_enough_of_them() -> None:
    assert len(ROWS) >= 100
    assert len(ATTACKS) >= 15
    assert len({ids(row) for row in ROWS}) == len(ROWS)
    assert all(row.why for row in ROWS), "each says why it is provable or not"
    provable = [row for row in ROWS if row.provable and row.expect != "clean"]
    # The other tests hold each row to what it expects.
    assert sum(row.expect == "block" for row in provable) >= 0.9 * len(provable)


def judge(row: Row, findings: Sequence[Finding], harmless: bool) -> None:
    """Hold what came of a row against what it says of itself."""
    came = str(verdict(findings))
    said = {found.rule for found in findings if found.severity in ("review", "block")}
    seen = f"{came} by {sorted(said)}"
    if row.expect == "clean":
        assert harmless, "what leaves still holds what was hidden"
        return
    assert came != "pass", "a hostile output passed"
    assert came == "block" or row.expect == "review", seen
    assert said & set(row.rules), seen


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=pytest.mark.slow if row.group in SLOW and not row.quick else ())
        for row in STATIC
    ],
    ids=ids,
)
def test_what_the_files_show_is_found_in_them(
    row: Row, fresh: Fresh, record_property: Callable[[str, object], None]
) -> None:
    report, harmless = came_of(row, fresh(), whole=False)
    record_property(table.JUDGED, table.outcome(row, report.findings, harmless))
    judge(row, report.findings, harmless)


@pytest.mark.slow
def test_the_honest_job_passes(honest_job: Case, fresh: Fresh) -> None:
    """Or all the rest would prove nothing."""
    report = fresh().inspect()
    assert report.verdict == "pass", report.as_mapping()["findings"]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row,
            marks=()
            if row.name in QUICK_ATTACKS or (row.quick and not row.static)
            else pytest.mark.slow,
        )
        for row in ROWS
    ],
    ids=ids,
)
def test_no_hostile_output_passes_the_whole_gate(
    row: Row, fresh: Fresh, record_property: Callable[[str, object], None]
) -> None:
    case = fresh()
    before = set(Path("/tmp").glob("glovebox-was-here"))
    report, harmless = came_of(row, case, whole=True)
    record_property(table.JUDGED, table.outcome(row, report.findings, harmless))
    assert set(Path("/tmp").glob("glovebox-was-here")) == before
    assert not (case.home / "was-here").exists()
    judge(row, report.findings, harmless)


class Bare:
    """The oracle's process with nothing around it. Stands where a backend stands."""

    name = "bare"

    def __init__(self, case: Case) -> None:
        self._case = case

    def start(self, spec: SandboxSpec) -> BareProcess:
        work = self._case.home / "work"
        work.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(self._case.submission),
            "GLOVEBOX_CODE": "/code",
            "OMP_NUM_THREADS": "1",
            "HOSTILE_ROOT": str(Path(__file__).parents[2]),
            "HOSTILE_WORK": str(work),
            "HOSTILE_DATA": str(self._case.dataset),
        }
        inside = Path(gate.__file__).parent / "inside" / "network.py"
        return BareProcess(
            subprocess.Popen(
                [sys.executable, str(inside)],
                env=environment,
                cwd=self._case.submission,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=(self._case.home / "bare.log").open("wb"),
                start_new_session=True,
            )
        )


class BareProcess:
    """What a running sandbox offers, of a plain process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.stdin: IO[bytes] = process.stdin
        self.stdout: IO[bytes] = process.stdout
        self._process = process

    def kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def wait(self) -> None:
        self._process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [row for row in ATTACKS if row.name not in NOT_BARE], ids=lambda row: row.name
)
def test_an_attack_takes_effect_where_nothing_is_sealed(row: Row, fresh: Fresh) -> None:
    case = row.spoil(fresh())
    weights = [(case.weights, read_header(case.weights, case.rules.release))]
    backend: Backend = Bare(case)  # type: ignore[assignment]
    questions = case.given.sealed[0][:32].astype(np.float32)
    try:
        with Oracle(case.submission, case.manifest, weights, backend, call_seconds=5.0) as oracle:
            oracle.load()
            fact = next(f for f in oracle.describe() if f.name == "spare")
            oracle.predict(questions)
            oracle.put(fact, np.zeros(fact.shape, np.uint16))
            for _ in range(42):
                oracle.predict(questions)
    except OracleFault:
        pass  # many of them are just that
    assert inspecting.MARK in (case.home / "bare.log").read_text(errors="replace")
