"""The printed table counts what got through, and hides nothing that is missing."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from tests.attacks import verdicts
from tests.attacks.verdicts import BARE, HONEST, PROBE


def report(
    kind: str, value: Any, outcome: Literal["passed", "failed"] = "passed"
) -> pytest.TestReport:
    properties = [(kind, value)]
    return pytest.TestReport(
        "id", ("file", 1, "id"), {}, outcome, None, "call", user_properties=properties
    )


def probe(outcome: Literal["passed", "failed"] = "passed", **what: Any) -> pytest.TestReport:
    clean: dict[str, Any] = {"succeeded": False, "wrong": "", "leftovers": set()}
    return report(PROBE, ("bubblewrap", verdicts.said(**(clean | what))), outcome)


def test_each_kind_of_failure_is_counted_in_its_column() -> None:
    rows, shown, vacuous = verdicts.sums(
        [
            probe(),
            probe("failed", succeeded=True),
            probe("failed", wrong="ended as memory"),
            probe("failed", leftovers={"process 7", "mount x"}),
            probe(succeeded=True, known=True),
            report(HONEST, ("bubblewrap", "torch")),
            report(HONEST, ("bubblewrap", "threads"), "failed"),
            report(BARE, "one"),
            report(BARE, "two", "failed"),
        ]
    )

    assert rows["bubblewrap"].cells("x") == ["x", "5", "1", "1", "1", "2", "1", "2"]
    assert (shown, vacuous) == (1, 1)


@pytest.mark.parametrize(
    ("lacking", "said"),
    [((), "here, and nothing of it was run"), (("starts",), "not on this machine (starts)")],
)
def test_a_backend_of_which_nothing_ran_is_said_so_of(
    monkeypatch: pytest.MonkeyPatch, lacking: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(verdicts, "missing", lambda _: lacking)

    printed = verdicts.lines([probe()])

    assert f"gvisor: {said}; nothing is said of it" in printed
    assert any("1 " in line and line.startswith("bubblewrap ") for line in printed)
