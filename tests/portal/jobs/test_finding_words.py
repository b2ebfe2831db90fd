"""The marked sentences are those that findings and the scan really use."""

from __future__ import annotations

import ast
from pathlib import Path

import policies
import sandbox_runner
from portal.jobs.finding_words import SENTENCES
from sandbox_runner.static_scan import CALLS, MODULES

NO_METRICS = "There are no official metrics. "


def constants() -> set[str]:
    """Return every string in the source of the rooms that write findings."""
    found: set[str] = set()
    for room in (policies, sandbox_runner):
        for path in Path(next(iter(room.__path__))).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return found


def test_every_marked_sentence_exists() -> None:
    written = constants()
    missing = {text for text in SENTENCES if text.removeprefix(NO_METRICS) not in written}
    assert not missing


def test_every_sentence_of_the_scan_is_marked() -> None:
    assert {why for _rule, why in (*MODULES.values(), *CALLS.values())} <= set(SENTENCES)
