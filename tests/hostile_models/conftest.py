"""The honest job, made once, and the printed table (``--hostile-table``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile_models import job, table


@pytest.fixture(scope="session")
def honest_job(tmp_path_factory: pytest.TempPathFactory) -> job.Case:
    """The honest job: trained, and such that the gate lets it pass."""
    return job.honest(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def fresh(honest_job: job.Case, tmp_path: Path) -> Callable[[], job.Case]:
    """Return a function that gives a copy of the honest job to be spoilt."""
    made = 0

    def make() -> job.Case:
        nonlocal made
        made += 1
        return honest_job.copy(tmp_path / str(made))

    return make


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hostile-table", action="store_true", help="print what came of each row")


def _reports(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return []
    return [
        report
        for outcome in ("passed", "failed")
        for report in reporter.getreports(outcome)
        if isinstance(report, pytest.TestReport) and report.when == "call"
    ]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table of `make verify-hostile`."""
    if config.getoption("--hostile-table", default=False):
        terminalreporter.section("hostile outputs")
        for line in table.lines(table.rows_of(_reports(config)), each=True):
            terminalreporter.write_line(line)
