"""Who may use a grant and when; what a request has to say; what a purpose gets."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.access import (
    PURPOSES,
    REQUEST_FIELDS,
    GrantFacts,
    can_get,
    can_use_grant,
    check_can_get,
    check_grant_covers,
    check_grant_usable,
    check_period,
    check_request,
    period_end,
    request_faults,
)
from policies.document import Policy, default_policy, tighten
from policies.errors import Denied, Invalid
from policies.workflow import GRANT

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=30)
MIDDLE = START + timedelta(days=10)
GRANTED = GrantFacts("active", START, END, frozenset({"min", "lee"}), "mammography", "1")


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("what", ["train", "weights", "metrics", "download_data"])
def test_what_each_purpose_gets(purpose: str, what: str, policy: Policy) -> None:
    table = {
        "research": {"train", "weights", "metrics"},
        "education": {"train", "metrics"},
        "commercial": {"train", "weights", "metrics"},
        "download": set(),
    }
    assert can_get(purpose, what, policy) == (what in table[purpose])
    if what not in table[purpose]:
        with pytest.raises(Denied):
            check_can_get(purpose, what, policy)


@pytest.mark.parametrize(
    ("purpose", "what"), [("resale", "train"), ("", "train"), ("research", "everything")]
)
def test_an_unknown_purpose_or_thing_gets_nothing(purpose: str, what: str, policy: Policy) -> None:
    assert not can_get(purpose, what, policy)


def test_the_shipped_purposes_are_the_known_ones(policy: Policy) -> None:
    assert set(policy.access.purposes) == set(PURPOSES)


@pytest.mark.parametrize(
    ("grant", "person", "now", "code"),
    [
        (GRANTED, "min", MIDDLE, ""),
        (GRANTED, "min", START, ""),
        (GRANTED, "lee", END - timedelta(microseconds=1), ""),
        (GRANTED, "min", END, "access.grant-ended"),
        (GRANTED, "min", END + timedelta(days=999), "access.grant-ended"),
        (GRANTED, "min", START - timedelta(microseconds=1), "access.grant-early"),
        (GRANTED, "kim", MIDDLE, "access.analyst"),
        (GRANTED, "", MIDDLE, "access.analyst"),
        (replace(GRANTED, analysts=frozenset()), "min", MIDDLE, "access.analyst"),
        (replace(GRANTED, analysts=frozenset({""})), "", MIDDLE, "access.analyst"),
        # To a stranger an ended grant looks like any other.
        (GRANTED, "kim", END, "access.analyst"),
        (replace(GRANTED, state="revoked"), "kim", MIDDLE, "access.analyst"),
        *(
            (replace(GRANTED, state=state), "min", MIDDLE, "access.grant-state")
            for state in (*GRANT.states, "Active", "", "unheard-of")
            if state != "active"
        ),
    ],
)
def test_who_may_use_a_grant_when(grant: GrantFacts, person: str, now: datetime, code: str) -> None:
    assert can_use_grant(grant, person, now) == (not code)
    if code:
        with pytest.raises(Denied) as caught:
            check_grant_usable(grant, person, now)
        assert caught.value.code == code


def test_the_end_is_one_instant_in_every_time_zone() -> None:
    from zoneinfo import ZoneInfo

    assert not can_use_grant(GRANTED, "min", END.astimezone(ZoneInfo("Asia/Seoul")))


def test_a_time_without_a_zone_is_never_compared() -> None:
    with pytest.raises(ValueError, match="aware"):
        check_grant_usable(GRANTED, "min", MIDDLE.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("datasets", "held"),
    [
        ({"mammography": "1"}, True),
        ({}, True),
        ({"mammography": "2"}, False),
        ({"photos": "1"}, False),
        ({"mammography": "1", "photos": "1"}, False),
    ],
)
def test_a_grant_covers_one_version(datasets: dict[str, str], held: bool) -> None:
    if held:
        check_grant_covers(GRANTED, datasets)
        return
    with pytest.raises(Denied) as caught:
        check_grant_covers(GRANTED, datasets)
    assert caught.value.field.startswith("datasets.")


@pytest.mark.parametrize("days", [1, 25, 365])
def test_a_period_within_the_policy(days: int, policy: Policy) -> None:
    assert check_period(days, policy) == days
    assert period_end(START, days, policy) == START + timedelta(days=days)


@pytest.mark.parametrize("days", [0, -1, 366, 10**30, True, 1.0, "25", None, float("nan")])
def test_a_period_outside_the_policy(days: object, policy: Policy) -> None:
    with pytest.raises(Invalid) as caught:
        check_period(days, policy)
    assert caught.value.field == "days"


def request(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        spec.name: "A sentence that is long enough for any field."
        for spec in REQUEST_FIELDS
        if spec.kind in ("line", "text")
    }
    fields |= {
        "purpose": "commercial",
        "days": 25,
        "analysts": ["Min@Example.org", "min@example.org", "lee@example.org"],
        "ethics_document": "approval.pdf",
        "pledge": True,
    }
    return fields | changes


def test_a_complete_request(policy: Policy) -> None:
    cleaned = check_request(request(), policy)
    assert cleaned["analysts"] == ["min@example.org", "lee@example.org"]
    assert set(cleaned) == {spec.name for spec in REQUEST_FIELDS}


def test_the_adequacy_criteria_are_asked() -> None:
    asked = {spec.name for spec in REQUEST_FIELDS if spec.required}
    assert asked >= {"purpose", "method", "days", "analysts", "expertise", "means", "gain"}
    assert asked >= {"protection", "linkage", "relation", "access_control", "ethics_document"}


@pytest.mark.parametrize("name", [s.name for s in REQUEST_FIELDS if s.required])
@pytest.mark.parametrize("empty", [None, "", "   "])
def test_each_required_field_is_missed_by_name(name: str, empty: Any, policy: Policy) -> None:
    with pytest.raises(Invalid) as caught:
        check_request(request(**{name: empty}), policy)
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("purpose", "resale"),
        ("purpose", "download"),  # exists, and is denied
        ("purpose", 3),
        ("days", "25"),
        ("days", 400),
        ("days", True),
        ("analysts", "min@example.org"),
        ("analysts", ["not an address"]),
        ("analysts", ["a@b@c.org"]),
        ("analysts", ["min@example.org\nBcc: x@example.org"]),
        ("analysts", ["<min@example.org>"]),
        ("analysts", [3]),
        ("analysts", [f"p{n}@example.org" for n in range(21)]),
        ("title", "two\nlines"),
        ("title", "x" * 151),
        ("title", "\x1b[31mred"),
        ("aim", "too short"),
        ("aim", "x" * 4001),
        ("aim", "hidden \u202e direction, long enough to be read"),
        ("aim", 3),
        ("aim", ["text"]),
        ("pledge", "yes"),
        ("pledge", 1),
        ("ethics_document", 3),
        ("ethics_document", "a\x00.pdf"),
        ("state", "approved"),
        ("conflict", True),
    ],
)
def test_a_wrong_field_is_refused_by_name(name: str, value: Any, policy: Policy) -> None:
    with pytest.raises(Invalid) as caught:
        check_request(request(**{name: value}), policy)
    assert caught.value.field == name
    assert str(caught.value).isprintable()


def test_markup_is_text_and_lines_are_kept(policy: Policy) -> None:
    aim = "First <b>line</b> of the aim.\r\nSecond line of it."
    cleaned = check_request(request(aim=aim), policy)
    assert cleaned["aim"] == aim.replace("\r\n", "\n")


def test_every_fault_at_once_for_a_page(policy: Policy) -> None:
    faults = request_faults(request(days=0, aim="", purpose="resale"), policy)
    assert set(faults) == {"days", "aim", "purpose"}


def test_a_draft_may_be_incomplete_and_not_wrong(policy: Policy) -> None:
    assert check_request({"title": "ab"}, policy, complete=False) == {"title": "ab"}
    with pytest.raises(Invalid):
        check_request({"days": 999}, policy, complete=False)


def test_a_dataset_shortens_the_period_and_closes_a_purpose() -> None:
    strict = tighten(
        default_policy(),
        {"access": {"maximum_days": 25, "purposes": {"commercial": {"train": False}}}},
    )
    assert set(request_faults(request(days=26), strict)) == {"days", "purpose"}


@given(
    st.dictionaries(
        st.sampled_from([s.name for s in REQUEST_FIELDS]) | st.text(max_size=9),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()),
    )
)
def test_any_fields_are_answered(fields: dict[str, Any]) -> None:
    for fault in request_faults(fields, default_policy()).values():
        assert fault.field
        assert str(fault).isprintable()


def test_the_limits_themselves_are_allowed(policy: Policy) -> None:
    analysts = [f"p{n}@example.org" for n in range(policy.access.maximum_analysts)]
    fields = request(title="xyz", aim="x" * 4000, analysts=analysts, ethics_document="n" * 200)
    assert check_request(fields, policy)["analysts"] == analysts
    longest = "a" * 60 + "@" + ".".join(["b" * 63] * 3) + ".z"
    assert len(longest) == 254
    assert check_request(request(analysts=[longest]), policy)
    with pytest.raises(Invalid):
        check_request(request(analysts=[longest + "z"]), policy)


def test_what_is_optional_may_be_left_out(policy: Policy) -> None:
    assert "material" not in check_request(request(material=""), policy)
    lenient = replace(policy, access=replace(policy.access, ethics_document=False))
    assert "ethics_document" not in check_request(request(ethics_document=None), lenient)
    with pytest.raises(Invalid):
        check_request(request(aim=None), lenient)
