"""Hostile bodies, numbers and queries are answered with 400, never with an internal error."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import Invalid
from portal.accounts.models import Person
from portal.plain_input import MOST_LEVELS, check_plain, whole_number

Api = Callable[..., Any]
MakePerson = Callable[..., Person]

DEEP = [
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b'{"answers":' + b"[" * 200 + b"]" * 200 + b"}",
    b"[" * 100_000,
]
TEXT = [
    r'{"name": "a\ud800"}',
    r'{"name": ["\u0000"]}',
    r'{"\udfff": 1}',
    '{"a": {"b": ["\\u0000"]}}',
]
WRONG = [b"NaN", b"{", b"\xff\xfe", b'{"a": 1e', b'{"days": ' + b"9" * 6000 + b"}"]


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["me", "requests", "datasets", "organisations", "roles"])
@pytest.mark.parametrize("body", [*DEEP, *(text.encode() for text in TEXT), *WRONG])
def test_a_hostile_body_is_answered(
    path: str, body: bytes, make_person: MakePerson, api: Api
) -> None:
    client = api(make_person("a@example.org", "administrator"))
    send = client.patch if path == "me" else client.post
    answer = send(f"/api/v1/{path}", body, content_type="application/json")
    assert answer.status_code == 400, answer.content
    assert answer.json()["error"]["message"]
    assert b"\\ud800" not in answer.content


@pytest.mark.django_db
@pytest.mark.parametrize("number", ["²", "١", "9" * 5000, "-1", "1.0", "", "x"])
def test_a_hostile_number_narrows_nothing(number: str, make_person: MakePerson, api: Api) -> None:
    client = api(make_person("a@example.org", "auditor"))
    assert client.get("/api/v1/jobs", {"grant": number}).status_code == 200
    assert client.get("/api/v1/releases", {"job": number}).status_code == 200


@pytest.mark.django_db
def test_a_query_with_nul_is_refused(api: Api) -> None:
    for path in ("/api/v1/datasets", "/", "/datasets/"):
        assert api(None).get(f"{path}?kind=%00").status_code == 400


@given(st.text(max_size=30))
def test_whole_numbers_are_what_they_say(text: str) -> None:
    number = whole_number(text)
    assert number is None or (str(number) == text.lstrip("0") or number == 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(JSON)
def test_what_is_let_through_can_be_kept(value: Any) -> None:
    try:
        check_plain(value)
    except Invalid:
        return
    text = json.dumps(value, ensure_ascii=False)
    assert "\\u0000" not in text
    text.encode()


def test_the_deepest_that_is_taken() -> None:
    value: Any = 1
    for _level in range(MOST_LEVELS - 1):
        value = [value]
    check_plain(value)
    with pytest.raises(Invalid):
        check_plain([value])
