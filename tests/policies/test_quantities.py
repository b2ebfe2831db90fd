"""Sizes and times are read exactly, written exactly, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import Invalid
from policies.quantities import (
    LARGEST_BYTES,
    LARGEST_SECONDS,
    format_bytes,
    format_seconds,
    parse_bytes,
    parse_seconds,
)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("4Gi", 4 * 2**30),
        ("4GiB", 4 * 2**30),
        ("512 Mi", 512 * 2**20),
        ("1.5G", 1_500_000_000),
        ("1k", 1000),
        ("1K", 1000),
        ("64Ki", 65536),
        (" 2Gi ", 2 * 2**30),
        (12345, 12345),
        (0, 0),
    ],
)
def test_reads_a_size(text: object, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Gi",
        "4 gigs",
        "-1Gi",
        "4gi",
        "4.Gi",
        "0x10",
        "1e9",
        "٤Gi",
        "4Gi4Gi",
        "2000Ti",
        "9" * 40,
        True,
        False,
        -1,
        1.5,
        None,
        [],
        {},
        float("nan"),
        b"4Gi",
        LARGEST_BYTES + 1,
    ],
)
def test_refuses_what_is_no_size(text: object) -> None:
    with pytest.raises(Invalid) as caught:
        parse_bytes(text, "resources.memory")
    assert caught.value.field == "resources.memory"


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1d", 86400),
        ("45", 45),
        (60, 60),
    ],
)
def test_reads_a_time(text: object, amount: int) -> None:
    assert parse_seconds(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "30 m",
        "30min",
        "m30",
        "30m1h",
        "-5m",
        "1.5h",
        "٣m",
        "400d",
        "1" * 60,
        True,
        -1,
        1.5,
        None,
        [],
        float("inf"),
        LARGEST_SECONDS + 1,
    ],
)
def test_refuses_what_is_no_time(text: object) -> None:
    with pytest.raises(Invalid) as caught:
        parse_seconds(text, "resources.time")
    assert caught.value.field == "resources.time"


@given(st.integers(0, LARGEST_BYTES))
def test_a_size_survives_writing_and_reading(amount: int) -> None:
    text = format_bytes(amount)
    assert parse_bytes(int(text) if text.isdecimal() else text) == amount


@given(st.integers(0, LARGEST_SECONDS))
def test_a_time_survives_writing_and_reading(amount: int) -> None:
    assert parse_seconds(format_seconds(amount)) == amount


@given(st.text(max_size=40) | st.integers() | st.floats() | st.booleans() | st.none())
def test_any_value_is_read_or_refused_and_never_breaks(value: object) -> None:
    for parse, most in ((parse_bytes, LARGEST_BYTES), (parse_seconds, LARGEST_SECONDS)):
        try:
            assert 0 <= parse(value) <= most
        except Invalid as error:
            assert str(error)
