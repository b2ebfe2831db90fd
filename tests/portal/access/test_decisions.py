"""The committee votes blind; the rules of policies.review hold on real rows."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, connections

from policies.errors import Conflict, Denied, Invalid, UserError
from portal.access import actions, decisions, queries
from portal.access.models import AccessRequest, RequestVote
from portal.accounts.models import Person
from portal.audit.models import Event
from portal.voting import casting
from tests.portal.cast import Cast

pytestmark = pytest.mark.django_db


def test_three_votes_with_an_external_one_approve(cast: Cast) -> None:
    request = cast.submitted()
    for member in cast.committee[:2]:
        cast.vote(request, member)
        request.refresh_from_db()
        assert request.state == "in_review"
    cast.vote(request, cast.committee[2])
    request.refresh_from_db()
    assert request.state == "approved"
    assert request.decided_at is not None


def test_votes_are_blind_until_the_quorum(cast: Cast) -> None:
    request = cast.submitted()
    cast.vote(request, cast.committee[0])
    cast.vote(request, cast.committee[1], "reject")
    for member, own in ((cast.committee[0], 1), (cast.committee[2], 0), (cast.steward, 0)):
        request.refresh_from_db()
        view = queries.voting_for(request, member)
        assert len(view.votes) == own
        assert all(vote.voter == member for vote in view.votes)
    cast.vote(request, cast.committee[2])
    request.refresh_from_db()
    assert len(queries.voting_for(request, cast.committee[0]).votes) == 3
    # Who asked sees the decision and never who voted what.
    assert queries.voting_for(request, cast.applicant).votes == ()


def refusals(cast: Cast) -> dict[str, Person]:
    colleague = cast.committee[0]
    return {
        "review.own": cast.applicant,
        "review.role": cast.stranger,
        "review.administrator": cast.administrator,
        "review.same-unit": colleague,
    }


@pytest.mark.parametrize(
    "rule", ["review.own", "review.role", "review.administrator", "review.same-unit"]
)
def test_who_may_not_vote_hears_the_rule_and_it_is_recorded(cast: Cast, rule: str) -> None:
    request = cast.submitted()
    if rule == "review.same-unit":
        cast.committee[0].unit = cast.applicant.unit
        cast.committee[0].save()
    voter = refusals(cast)[rule]
    with pytest.raises(Denied) as refused:
        cast.vote(request, voter)
    assert refused.value.code == rule
    event = Event.objects.get(action="request.vote.refused")
    assert (event.actor, event.details) == (voter.email, {"rule": rule})
    assert not RequestVote.objects.exists()


def test_a_second_vote_and_a_vote_on_something_older_are_refused(cast: Cast) -> None:
    request = cast.submitted()
    cast.vote(request, cast.committee[0])
    with pytest.raises(Conflict):
        cast.vote(request, cast.committee[0], "reject")
    with pytest.raises(Conflict):
        decisions.cast_vote(
            by=cast.committee[1], request=request, choice="approve", bound_to="0" * 64
        )


def test_who_does_not_approve_says_why(cast: Cast) -> None:
    request = cast.submitted()
    with pytest.raises(Invalid) as refused:
        decisions.cast_vote(
            by=cast.committee[0], request=request, choice="reject", bound_to=request.bound_to
        )
    assert refused.value.field == "comment"


def test_who_recused_themselves_does_not_vote(cast: Cast) -> None:
    request = cast.submitted()
    decisions.recuse(by=cast.committee[0], request=request, reason="We publish together.")
    with pytest.raises(Denied) as refused:
        cast.vote(request, cast.committee[0])
    assert refused.value.code == "review.recused"
    with pytest.raises(Denied):
        decisions.recuse(by=cast.stranger, request=request)


def test_a_role_that_ended_takes_its_vote_along(cast: Cast) -> None:
    request = cast.submitted()
    cast.vote(request, cast.committee[0])
    cast.committee[0].role_assignments.update(ended_at="2020-01-01T00:00Z")
    cast.vote(request, cast.committee[1])
    cast.vote(request, cast.committee[2])
    request.refresh_from_db()
    assert (request.state, queries.decision_on(request).counted) == ("in_review", 2)


def test_without_its_audit_event_no_vote_counts(cast: Cast, monkeypatch) -> None:
    request = cast.submitted()
    for member in cast.committee[:2]:
        cast.vote(request, member)

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError

    # The vote is recorded, the decision that follows is not: both must go.
    monkeypatch.setattr(casting, "record", broken)
    with pytest.raises(RuntimeError):
        cast.vote(request, cast.committee[2])
    request.refresh_from_db()
    assert (request.state, RequestVote.objects.count()) == ("in_review", 2)


def at_once(*calls) -> list[UserError | None]:
    """Run calls in threads that start together; return each one's error, if any."""
    barrier = threading.Barrier(len(calls))
    errors: list[UserError | None] = [None] * len(calls)

    def run(number: int) -> None:
        try:
            barrier.wait()
            calls[number]()
        except UserError as error:
            errors[number] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.django_db(transaction=True)
def test_the_last_two_votes_at_one_instant_decide_once(cast: Cast) -> None:
    assert connection.vendor != "sqlite" or not connection.is_in_memory_db()
    request = cast.submitted()
    cast.vote(request, cast.committee[0])
    bound_to = request.bound_to

    def vote(member: Person):
        return lambda: decisions.cast_vote(
            by=member, request=request, choice="approve", bound_to=bound_to
        )

    errors = at_once(vote(cast.committee[1]), vote(cast.committee[2]))
    assert errors == [None, None]
    request.refresh_from_db()
    assert request.state == "approved"
    assert Event.objects.filter(action="request.approve").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_double_click_votes_once(cast: Cast) -> None:
    request = cast.submitted()
    member, bound_to = cast.committee[0], request.bound_to

    def click() -> None:
        decisions.cast_vote(by=member, request=request, choice="approve", bound_to=bound_to)

    errors = at_once(click, click)
    assert sorted(type(error).__name__ for error in errors) == ["Conflict", "NoneType"]
    assert RequestVote.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_submitting_and_withdrawing_at_once_has_one_outcome(cast: Cast) -> None:
    request = cast.draft()
    at_once(
        lambda: actions.submit_request(by=cast.applicant, request=request),
        lambda: actions.withdraw_request(by=cast.applicant, request=request),
    )
    row = AccessRequest.objects.get()
    # Withdrawn either before or after it was handed in; never handed in after being withdrawn.
    assert row.state == "withdrawn"
    assert row.steps.filter(left_at=None).get().state == "withdrawn"
