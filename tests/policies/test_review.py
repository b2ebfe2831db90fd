"""Quorum, independence, blindness and conflict of interest, one table a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.document import Policy, default_policy, tighten
from policies.errors import Conflict, Denied, Invalid, UserError
from policies.review import (
    Case,
    Kind,
    Party,
    Vote,
    can_vote,
    check_can_recuse,
    check_can_vote,
    check_choice,
    decide,
    has_conflict,
    visible_votes,
)

POLICY = default_policy()


def person(name: str, unit: str, organisation: str, *roles: str, external: bool = False) -> Party:
    return Party(name, unit, organisation, frozenset(roles), external)


STEWARD = person("steward", "radiology", "hospital", "steward")
COMPANY = person("applicant", "vision", "company", external=True)
COLLEAGUE = person("applicant", "surgery", "hospital")

IN1 = person("in1", "ethics", "hospital", "committee")
IN2 = person("in2", "law", "hospital", "committee")
IN3 = person("in3", "it", "hospital", "committee")
OUT1 = person("out1", "statistics", "university", "committee", external=True)
OUT2 = person("out2", "privacy", "institute", "committee", external=True)
OUT3 = person("out3", "patients", "association", "committee", external=True)
REV1 = person("rev1", "ethics", "hospital", "reviewer")
REV2 = person("rev2", "law", "hospital", "reviewer")
REV3 = person("rev3", "it", "hospital", "reviewer")

NOW, BEFORE = "b" * 64, "a" * 64
CASE = Case(COMPANY, STEWARD, frozenset({"applicant", "analyst"}), False, NOW)
SHARED = replace(CASE, applicant=COLLEAGUE, conflict_declared=True)


def votes(*pairs: tuple[Party, str], bound_to: str = NOW) -> list[Vote]:
    return [Vote(voter, choice, bound_to) for voter, choice in pairs]


Y, N, R = "approve", "reject", "return"


@pytest.mark.parametrize(
    ("cast", "state"),
    [
        ([], "open"),
        ([(IN1, Y), (OUT1, Y)], "open"),
        ([(IN1, N), (OUT1, N)], "open"),
        ([(IN1, Y), (IN2, Y), (IN3, Y)], "open"),  # nobody external
        ([(OUT1, Y), (OUT2, Y), (OUT3, Y)], "open"),  # nobody internal
        ([(IN1, Y), (IN2, Y), (OUT1, Y)], "approved"),
        ([(IN1, Y), (IN2, Y), (OUT1, N)], "approved"),
        ([(IN1, Y), (OUT1, N), (OUT2, Y)], "approved"),
        ([(IN1, N), (IN2, N), (OUT1, Y)], "rejected"),
        ([(IN1, R), (IN2, R), (OUT1, Y)], "returned"),
        ([(IN1, Y), (IN2, N), (OUT1, R)], "conflicted"),
        ([(IN1, Y), (IN2, N), (OUT1, R), (OUT2, Y)], "conflicted"),
        ([(IN1, Y), (IN2, N), (OUT1, R), (OUT2, Y), (OUT3, Y)], "approved"),
        ([(IN1, Y), (IN2, Y), (OUT1, N), (OUT2, N)], "conflicted"),
        ([(IN1, N), (IN2, N), (IN3, N), (OUT1, R)], "rejected"),
        ([(IN1, N), (IN2, R), (IN3, N), (OUT1, R)], "returned"),  # nobody approved
    ],
)
def test_the_committee_decides(cast: list[tuple[Party, str]], state: str) -> None:
    decision = decide(CASE, votes(*cast), POLICY, "access")
    assert decision.state == state
    assert decision.revealed == (state != "open")
    assert bool(decision.needed) == (state == "open")


@pytest.mark.parametrize(
    ("cast", "state"),
    [
        ([(REV1, Y)], "open"),
        ([(REV1, N)], "open"),
        ([(REV1, Y), (REV2, Y)], "approved"),
        ([(REV1, N), (REV2, N)], "rejected"),
        ([(REV1, R), (REV2, R)], "returned"),
        ([(REV1, Y), (REV2, N)], "conflicted"),
        ([(REV1, Y), (REV2, R)], "conflicted"),
        ([(REV1, N), (REV2, R)], "returned"),
        ([(REV1, Y), (REV2, N), (REV3, Y)], "approved"),
        ([(REV1, Y), (REV2, N), (REV3, N)], "rejected"),
    ],
)
def test_the_reviewers_decide(cast: list[tuple[Party, str]], state: str) -> None:
    assert decide(CASE, votes(*cast), POLICY, "release").state == state


@pytest.mark.parametrize(
    ("case", "cast", "state"),
    [
        # One organisation, not declared: nothing is decided, whoever votes.
        (replace(SHARED, conflict_declared=False), [(IN1, Y), (OUT1, Y), (OUT2, Y)], "open"),
        (SHARED, [(IN1, Y), (IN2, Y), (OUT1, Y)], "open"),
        (SHARED, [(IN1, Y), (OUT1, Y), (OUT2, Y)], "approved"),
        (SHARED, [(IN1, Y), (OUT1, Y), (OUT2, N)], "conflicted"),  # externals are split
        (SHARED, [(IN1, Y), (IN2, Y), (OUT1, Y), (OUT2, Y)], "open"),
        (SHARED, [(IN1, Y), (IN2, Y), (OUT1, N), (OUT2, N), (OUT3, Y)], "conflicted"),
        (SHARED, [(IN1, N), (OUT1, Y), (OUT2, Y)], "approved"),
        # A conflict that somebody declared counts as one too.
        (replace(CASE, conflict_declared=True), [(IN1, Y), (IN2, Y), (OUT1, Y)], "open"),
    ],
)
def test_a_conflict_of_interest_needs_an_external_majority(
    case: Case, cast: list[tuple[Party, str]], state: str
) -> None:
    assert decide(case, votes(*cast), POLICY, "access").state == state


@pytest.mark.parametrize(
    ("applicant", "owner", "conflict"),
    [
        ("company", "hospital", False),
        ("hospital", "hospital", True),
        ("Hospital ", "hospital", True),
        ("ＨＯＳＰＩＴＡＬ", "hospital", True),
        ("", "hospital", True),  # unknown may be the same
        ("company", "", True),
    ],
)
def test_organisations_are_compared_as_people_read_them(
    applicant: str, owner: str, conflict: bool
) -> None:
    case = replace(
        CASE,
        applicant=replace(COMPANY, organisation=applicant),
        owner=replace(STEWARD, organisation=owner),
    )
    assert has_conflict(case) == conflict


@pytest.mark.parametrize(
    ("voter", "kind", "code"),
    [
        (IN1, "access", ""),
        (OUT1, "access", ""),
        (REV1, "release", ""),
        (REV1, "access", "review.role"),
        (IN1, "release", "review.role"),
        (STEWARD, "access", "review.role"),
        (STEWARD, "release", "review.role"),
        (person("x", "a", "b"), "access", "review.role"),
        (person("x", "ethics", "hospital", "officer"), "access", "review.role"),
        # Whoever runs or audits the portal does not decide, whatever else they are.
        (replace(IN1, roles=IN1.roles | {"administrator"}), "access", "review.administrator"),
        (replace(IN1, roles=IN1.roles | {"auditor"}), "access", "review.administrator"),
        (replace(REV1, roles=REV1.roles | {"administrator"}), "release", "review.administrator"),
        # Their own work
        (replace(COMPANY, roles=frozenset({"committee"})), "access", "review.own"),
        (replace(COMPANY, roles=frozenset({"reviewer"})), "release", "review.own"),
        (person("analyst", "x", "y", "reviewer"), "release", "review.own"),
        (person("analyst", "x", "y", "committee"), "access", "review.own"),
        # Nobody of the applicant's unit, nor of a company that applies
        (person("x", "vision", "company", "committee"), "access", "review.same-unit"),
        (person("x", " Vision", "COMPANY", "reviewer"), "release", "review.same-unit"),
        (person("x", "", "company", "reviewer"), "release", "review.same-unit"),
        (person("x", "sales", "company", "reviewer"), "release", "review.same-organisation"),
        (
            person("x", "sales", "company", "committee", external=True),
            "access",
            "review.same-organisation",
        ),
        (person("x", "unit", "", "reviewer"), "release", "review.organisation"),
        (person("x", "unit", "  ", "committee"), "access", "review.organisation"),
        # One word for the unit elsewhere is another unit
        (person("x", "vision", "university", "reviewer"), "release", ""),
    ],
)
def test_who_may_vote(voter: Party, kind: Kind, code: str) -> None:
    assert can_vote(CASE, voter, [], POLICY, kind) == (not code)
    if not code:
        check_can_vote(CASE, voter, [], POLICY, kind)
        return
    with pytest.raises(Denied) as caught:
        check_can_vote(CASE, voter, [], POLICY, kind)
    assert caught.value.code == code


def test_within_one_organisation_only_the_unit_is_barred() -> None:
    assert can_vote(SHARED, IN1, [], POLICY, "access")
    of_unit = person("x", "surgery", "hospital", "committee")
    with pytest.raises(Denied) as caught:
        check_can_vote(SHARED, of_unit, [], POLICY, "access")
    assert caught.value.code == "review.same-unit"


def test_who_recused_does_not_vote_and_does_not_count() -> None:
    case = replace(CASE, recused=frozenset({"in1"}))
    with pytest.raises(Denied):
        check_can_vote(case, IN1, [], POLICY, "access")
    assert decide(case, votes((IN1, Y), (IN2, Y), (OUT1, Y)), POLICY, "access").state == "open"


@pytest.mark.parametrize(
    ("voter", "earlier", "error", "code"),
    [
        (REV1, [(REV1, Y)], Conflict, "review.twice"),
        (REV1, [(REV1, R)], Conflict, "review.twice"),
        (REV3, [(REV1, Y), (REV2, Y)], Conflict, "review.decided"),
        (REV3, [(REV1, N), (REV2, N)], Conflict, "review.decided"),
        (person("x", "ethics", "hospital", "reviewer"), [(REV1, Y)], Denied, "review.voters-unit"),
        (person("x", "", "hospital", "reviewer"), [(REV1, Y)], Denied, "review.voters-unit"),
    ],
)
def test_a_vote_twice_late_or_of_one_unit(
    voter: Party, earlier: list[tuple[Party, str]], error: type[UserError], code: str
) -> None:
    with pytest.raises(error) as caught:
        check_can_vote(CASE, voter, votes(*earlier), POLICY, "release")
    assert caught.value.code == code


def test_a_third_vote_settles_a_disagreement() -> None:
    check_can_vote(CASE, REV3, votes((REV1, Y), (REV2, N)), POLICY, "release")


def test_two_members_of_one_unit_may_be_on_the_committee() -> None:
    twin = replace(IN1, person="in9")
    check_can_vote(CASE, twin, votes((IN1, Y)), POLICY, "access")
    assert decide(CASE, votes((IN1, Y), (twin, Y), (OUT1, Y)), POLICY, "access").state == "approved"


def test_votes_fall_when_anything_changes() -> None:
    old = votes((REV1, Y), (REV2, Y), bound_to=BEFORE)
    assert decide(CASE, old, POLICY, "release").state == "open"
    check_can_vote(CASE, REV1, old, POLICY, "release")
    mixed = [*votes((REV1, Y), bound_to=BEFORE), *votes((REV2, Y))]
    assert decide(CASE, mixed, POLICY, "release").counted == 1


def test_a_vote_on_what_is_not_there_any_more() -> None:
    with pytest.raises(Conflict) as caught:
        check_can_vote(CASE, REV1, [], POLICY, "release", bound_to=BEFORE)
    assert caught.value.code == "review.changed"
    check_can_vote(CASE, REV1, [], POLICY, "release", bound_to=NOW)


def test_nothing_is_voted_on_before_it_is_bound() -> None:
    unbound = replace(CASE, bound_to="")
    assert not can_vote(unbound, REV1, [], POLICY, "release")
    blank = votes((REV1, Y), (REV2, Y), bound_to="")
    assert decide(unbound, blank, POLICY, "release").state == "open"


@pytest.mark.parametrize(
    "intruder",
    [
        (replace(COMPANY, roles=frozenset({"reviewer"})), Y),
        (person("analyst", "x", "y", "reviewer"), Y),
        (person("x", "vision", "company", "reviewer"), Y),
        (replace(REV2, roles=frozenset({"administrator", "reviewer"})), Y),
        (person("x", "ethics", "hospital", "reviewer"), Y),  # of REV1's unit
        (REV1, Y),  # twice
        (replace(REV2, roles=frozenset()), Y),
        (REV2, "yes"),
        (REV2, "APPROVE"),
    ],
)
def test_a_row_that_slipped_in_decides_nothing(intruder: tuple[Party, str]) -> None:
    assert decide(CASE, votes((REV1, Y), intruder), POLICY, "release").state == "open"


STEWARDED = tighten(POLICY, {"review": {"release": {"steward": True}}})


@pytest.mark.parametrize(
    ("cast", "state"),
    [
        ([(REV1, Y), (REV2, Y)], "open"),
        ([(STEWARD, Y), (REV1, Y)], "open"),  # the steward is no third of the quorum
        ([(REV1, Y), (REV2, Y), (STEWARD, Y)], "approved"),
        ([(REV1, Y), (REV2, Y), (STEWARD, N)], "rejected"),
        ([(REV1, Y), (REV2, Y), (STEWARD, R)], "returned"),
        ([(REV1, N), (REV2, N), (STEWARD, Y)], "rejected"),
        ([(STEWARD, N)], "open"),
        # another dataset's steward is nobody here
        ([(REV1, Y), (REV2, Y), (replace(STEWARD, person="other"), Y)], "open"),
    ],
)
def test_the_steward_too_where_the_policy_says_so(
    cast: list[tuple[Party, str]], state: str
) -> None:
    assert decide(CASE, votes(*cast), STEWARDED, "release").state == state


def test_a_steward_who_is_a_reviewer_has_one_vote() -> None:
    both = replace(STEWARD, roles=frozenset({"steward", "reviewer"}))
    assert decide(CASE, votes((both, Y), (REV1, Y)), STEWARDED, "release").state == "open"
    assert decide(CASE, votes((both, Y), (REV1, Y)), POLICY, "release").state == "approved"


def test_an_expert_of_the_owner_is_not_external_whatever_the_flag_says() -> None:
    flagged = replace(IN2, external=True)
    cast = votes((IN1, Y), (flagged, Y), (IN3, Y))
    assert decide(CASE, cast, POLICY, "access").state == "open"


CAST = votes((REV1, Y), (REV2, N))
AUDITOR = person("auditor", "audit", "hospital", "auditor")


@pytest.mark.parametrize(
    ("viewer", "before", "after"),
    [
        (REV1, 1, 2),
        (REV3, 0, 2),
        (STEWARD, 0, 2),
        (IN1, 0, 2),
        (AUDITOR, 1, 2),
        (COMPANY, 0, 0),
        (replace(COMPANY, roles=frozenset({"reviewer"})), 0, 0),
        (replace(COMPANY, roles=frozenset({"auditor"})), 0, 0),
        (person("analyst", "x", "y", "reviewer"), 0, 0),
        (person("admin", "it", "hospital", "administrator"), 0, 0),
        (person("officer", "it", "hospital", "officer"), 0, 0),
    ],
)
def test_votes_are_blind_until_the_quorum_has_voted(viewer: Party, before: int, after: int) -> None:
    one = CAST[:1]
    assert len(visible_votes(viewer, one, decide(CASE, one, POLICY, "release"))) == before
    assert len(visible_votes(viewer, CAST, decide(CASE, CAST, POLICY, "release"))) == after


def test_what_is_needed_does_not_tell_how_anybody_voted() -> None:
    said = {
        choice: decide(CASE, votes((IN1, choice), (OUT1, choice)), POLICY, "access")
        for choice in (Y, N, R)
    }
    assert said[Y] == said[N] == said[R]


@pytest.mark.parametrize(
    ("voter", "kind", "cast", "is_open", "code"),
    [
        (IN1, "access", [], True, ""),
        (REV1, "access", [], True, "review.role"),
        (IN1, "release", [], True, "review.role"),
        (REV1, "release", [], True, ""),
        # Who is asked beside the reviewers only where the policy says so, recuses only there.
        (STEWARD, "release", [], True, "review.role"),
        (IN1, "access", [], False, "review.closed"),
        (REV1, "access", [], False, "review.role"),
        (IN1, "access", votes((IN1, Y)), True, "review.twice"),
        (IN1, "access", votes((IN2, Y)), True, ""),
        # What was voted on before it changed is no vote on it.
        (IN1, "access", votes((IN1, Y), bound_to=BEFORE), True, ""),
    ],
)
def test_who_may_leave_the_judgement_to_others(
    voter: Party, kind: Kind, cast: list[Vote], is_open: bool, code: str
) -> None:
    if not code:
        check_can_recuse(CASE, voter, cast, POLICY, kind, is_open=is_open)
        return
    with pytest.raises(UserError) as refused:
        check_can_recuse(CASE, voter, cast, POLICY, kind, is_open=is_open)
    assert refused.value.code == code


def test_a_steward_who_is_asked_may_recuse() -> None:
    check_can_recuse(CASE, STEWARD, [], STEWARDED, "release", is_open=True)


@pytest.mark.parametrize("choice", ["yes", "", None, 1, "Approve", ["approve"]])
def test_a_choice_is_one_of_three(choice: object) -> None:
    with pytest.raises(Invalid) as caught:
        check_choice(choice)
    assert caught.value.field == "choice"


PEOPLE = [IN1, IN2, IN3, OUT1, OUT2, OUT3, STEWARD, COMPANY, REV1]
BALLOTS = st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from([Y, N, R])), max_size=8)


@settings(max_examples=300, deadline=None)
@given(BALLOTS, st.sampled_from([CASE, SHARED, replace(SHARED, conflict_declared=False)]))
def test_no_approval_without_quorum_mix_and_majority(
    cast: Sequence[tuple[Party, str]], case: Case
) -> None:
    decision = decide(case, votes(*cast), POLICY, "access")
    first: dict[str, tuple[Party, str]] = {}
    for voter, choice in cast:
        if "committee" in voter.roles:
            first.setdefault(voter.person, (voter, choice))
    inside = [c for v, c in first.values() if v.organisation == "hospital"]
    outside = [c for v, c in first.values() if v.organisation != "hospital"]
    if decision.state == "approved":
        assert len(first) >= 3
        assert inside
        assert outside
        assert (inside + outside).count(Y) * 2 > len(first)
        if case is not CASE:
            assert case.conflict_declared
            assert len(outside) > len(inside)
            assert outside.count(Y) * 2 > len(outside)
    assert decision.counted == len(first)


def test_the_order_of_votes_does_not_matter() -> None:
    cast = votes((IN1, Y), (IN2, N), (OUT1, Y))
    states = {decide(CASE, list(order), POLICY, "access").state for order in permutations(cast)}
    assert states == {"approved"}


def test_a_larger_quorum_by_policy(policy: Policy) -> None:
    strict = tighten(policy, {"review": {"release": {"quorum": 3, "approvals": 3}}})
    assert decide(CASE, votes((REV1, Y), (REV2, Y)), strict, "release").state == "open"
    cast = votes((REV1, Y), (REV2, Y), (REV3, N))
    assert decide(CASE, cast, strict, "release").state == "conflicted"
