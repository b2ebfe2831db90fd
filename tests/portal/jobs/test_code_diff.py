"""What changed since the last released submission: every change, and no more than a page holds."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.jobs.code_diff import MOST_EDITS, differences, steps
from portal.jobs.code_listing import CodeFile, Line

LINES = st.lists(st.sampled_from("abcd"), max_size=30)


def file(name: str, *lines: str, shown: str = "text") -> CodeFile:
    rows = tuple(Line(n, text, ()) for n, text in enumerate(lines, start=1))
    return CodeFile(name, sum(map(len, lines)), shown, rows, ())


@given(LINES, LINES)
def test_the_steps_lead_from_one_to_the_other(a: list[str], b: list[str]) -> None:
    old, new = [], []
    for kind, x, y in steps(a, b):
        if kind in ("same", "removed"):
            old.append(a[x])
        if kind in ("same", "added"):
            new.append(b[y])
        if kind == "same":
            assert a[x] == b[y]
    assert (old, new) == (a, b)


def test_few_changes_are_few_steps() -> None:
    a = [str(n) for n in range(100)]
    b = [*a[:40], "new", *a[41:]]
    changed = [(kind, x, y) for kind, x, y in steps(a, b) if kind != "same"]
    assert changed == [("removed", 40, 40), ("added", 41, 40)]


def test_each_file_says_what_became_of_it() -> None:
    long = [f"line {n}" for n in range(50)]
    old = [
        file("train.py", *long),
        file("same.py", "x"),
        file("gone.py", "y"),
        file("data.bin", shown="binary"),
    ]
    new = [
        file("train.py", *long[:25], "import os", *long[25:]),
        file("same.py", "x"),
        file("new.py", "z"),
        file("data.bin", shown="binary"),
    ]
    found = {one.name: one for one in differences(old, new)}
    assert {name: one.kind for name, one in found.items()} == {
        "train.py": "changed",
        "same.py": "same",
        "new.py": "added",
        "gone.py": "removed",
        "data.bin": "unread",
    }
    shown = [(line.kind, line.sign, line.text) for line in found["train.py"].lines]
    assert ("added", "+", "import os") in shown
    assert [kind for kind, _sign, _text in shown].count("gap") == 2
    assert len(shown) == 2 + 1 + 2 * 3
    assert (found["train.py"].added, found["train.py"].removed) == (1, 0)
    assert (found["gone.py"].removed, found["new.py"].added) == (1, 1)


@pytest.mark.parametrize("kind", ["nothing alike", "everything alike", "two letters"])
def test_files_made_to_be_slow_to_compare_are_not(kind: str) -> None:
    draw = random.Random(1)
    if kind == "nothing alike":
        a, b = [f"a{n}" for n in range(20_000)], [f"b{n}" for n in range(20_000)]
    elif kind == "everything alike":
        a, b = ["x"] * 20_000, ["x"] * 10_000
    else:
        a, b = ([draw.choice("xy") for _ in range(20_000)] for _ in range(2))
    began = time.process_time()
    found = list(steps(a, b))
    assert time.process_time() - began < 10
    assert sum(kind != "added" for kind, _x, _y in found) == len(a)
    assert sum(kind != "removed" for kind, _x, _y in found) == len(b)
    assert MOST_EDITS < 1000  # the trace that is kept grows with its square
