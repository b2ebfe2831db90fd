"""Paths: the short way that most of them take says the same as the long one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import names

NEVER = re.compile(r"(?!)")
#: Everything that a part of a path may trip over, and what is plain.
SIGNS = st.text("aZ09_-.~ /\\:=+@()é\u0301\n\0", max_size=40)


@given(SIGNS, st.integers(1, 4), st.integers(1, 40))
def test_a_plain_path_is_one_that_a_close_look_accepts(text: str, depth: int, length: int) -> None:
    short = names.path_fault(text, depth=depth, length=length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "_PLAIN_PATH", NEVER)
        assert names.path_fault(text, depth=depth, length=length) == short


@pytest.mark.parametrize("text", ["a\n", "a/", "/a", "a//b", "a/.b", "a/..", "a.", "-a", "a" * 256])
def test_what_looks_plain_and_is_not(text: str) -> None:
    assert names.path_fault(text, length=1000) is not None
