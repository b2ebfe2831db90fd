"""The search that all leak tests rest on finds what is there, in every encoding."""

from __future__ import annotations

import pytest

from synthetic.planted import Planted
from synthetic.search import ENCODINGS, Search


def planted(*values: str) -> list[Planted]:
    return [Planted(value, "test", "file") for value in values]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("value", ["김민준", "Kim^Minjun", "20481123", "010-2231-8841"])
@pytest.mark.parametrize("place", [0, 1, 100, (1 << 22) - 2])
def test_a_value_is_found_in_every_encoding_and_at_every_place(
    value: str, encoding: str, place: int
):
    data = b"\0" * place + value.encode(encoding) + b"\0\0"
    assert Search(planted(value, "other value")).found(data) == {value}


def test_a_value_that_is_not_there_is_not_found():
    assert Search(planted("Kim^Minjun")).found(b"Kim^Minju" * 10) == set()


def test_digits_inside_a_longer_number_are_chance():
    search = Search(planted("20481123"))
    assert search.found(b"2.25.1204811239") == set()
    assert search.found(b"2.25.20481123.1") == {"20481123"}


def test_a_value_too_short_to_be_found_is_refused():
    with pytest.raises(ValueError, match="too short"):
        Search(planted("Kim"))
