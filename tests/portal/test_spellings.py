"""The spellings of the acceptance test's search stand where writers would have put them."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote

import pytest

from deid.spellings import is_telling, spellings
from synthetic.planted import Planted
from synthetic.search import Search
from tests.portal.layers import layers
from tests.portal.spellings import respelt

NAME, HANGUL, DAY, PHONE = "Hwangbo^Myunghee", "황보명희", "19770315", "010-2231-8841"


def found(value: str, written: bytes) -> bool:
    search = Search(respelt([Planted(value, "", "")]))
    return any(search.found(layer) for layer in layers(written))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (DAY, b"born 1977-03-15"), (DAY, b"15.03.1977"), (DAY, b"03/15/1977"), (DAY, b"1977.3.15"),
        (DAY, "1977년 3월 15일".encode()), (DAY, "1977년 3월 15일".encode("cp949")),
        (DAY, b"Mar 15, 1977"), (DAY, b"15-MAR-1977"),
        (NAME, b"HWANGBO MYUNGHEE"), (NAME, b"Myunghee Hwangbo"), (NAME, b"hwangbo_myunghee.png"),
        (NAME, b"Dr Myunghee"), (NAME, "myunghee".encode("utf-16-le")),
        (HANGUL, HANGUL.encode()), (HANGUL, HANGUL.encode("cp949")),
        (HANGUL, HANGUL.encode("iso2022_kr")), (HANGUL, HANGUL.encode("utf-16-be")),
        (HANGUL, quote(HANGUL).encode()), (HANGUL, json.dumps(HANGUL).encode()),
        (HANGUL, "".join(f"&#{ord(each)};" for each in HANGUL).encode()),
        ("김민준", "김민준".encode()), ("김민준", "김민준".encode("cp949")),
        (PHONE, b"01022318841"), (PHONE, b"+82 10 2231 8841"),
    ],
)  # fmt: skip
def test_a_spelling_is_found(value: str, written: bytes) -> None:
    assert found(value, b"words before " + written + b" and after")


@pytest.mark.parametrize("value", [NAME, HANGUL, DAY, PHONE])
@pytest.mark.parametrize("lead", range(3))
def test_a_value_inside_base64_and_hex_is_found(value: str, lead: int) -> None:
    inside = b"x" * lead + value.encode() + b"some words behind it"
    assert found(value, base64.b64encode(inside))
    assert found(value, inside.hex().encode())
    assert found(value, html.escape(value).encode())


def test_what_is_not_there_is_not_found() -> None:
    assert not found(NAME, b"Hwang Myung 1977 0315 " * 50)
    assert not is_telling("Kim")
    assert not is_telling("김")
    assert all(is_telling(each) for each in spellings("김민준"))
