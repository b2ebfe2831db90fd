"""The start page's count of votes is what the whole rule says, row by row."""

from __future__ import annotations

import pytest

from portal.access import actions, decisions, queries, waiting
from portal.access.models import AccessRequest
from portal.accounts.models import Person
from tests.portal.cast import Cast

pytestmark = pytest.mark.django_db


def counted(person: Person) -> int:
    """Return what the start page counts as requests that wait for a person's vote."""
    lines = waiting.waiting_for(person)
    return sum(line.count for line in lines if line.url.endswith("state=in_review"))


def by_the_rule(person: Person) -> int:
    """Return the same by asking for the voting on every single request."""
    rows = queries.requests_visible_to(person).values_list("pk", flat=True)
    return sum(
        queries.voting_for(AccessRequest.objects.get(pk=pk), person).may_vote for pk in list(rows)
    )


@pytest.fixture
def requests(cast: Cast) -> list[AccessRequest]:
    """Requests in every situation that the rule tells apart."""
    made = [cast.submitted() for _number in range(7)]
    one, two, three = cast.committee
    # 0: nobody has voted. 1: one has. 2: all have and disagree. 3: approved. 4: one recused.
    cast.vote(made[1], one)
    for member, choice in ((one, "approve"), (two, "reject"), (three, "return")):
        cast.vote(made[2], member, choice)
    for member in cast.committee:
        cast.vote(made[3], member)
    decisions.recuse(by=one, request=made[4])
    # 5: returned, handed in anew, and voted on by another first.
    for member in cast.committee:
        cast.vote(made[5], member, "return")
    actions.submit_request(by=cast.applicant, request=made[5])
    cast.vote(made[5], two)
    # 6: withdrawn. And a draft.
    actions.withdraw_request(by=cast.applicant, request=made[6])
    return [*made, cast.draft()]


def test_the_count_is_that_of_the_whole_rule(cast: Cast, requests: list[AccessRequest]) -> None:
    others = [*cast.reviewers, cast.steward, cast.auditor, cast.administrator, cast.applicant]
    one, two, three = cast.committee
    for near in (None, one.unit, cast.applicant.unit):
        # Of another's unit, or of the applicant's, one may vote on less.
        if near is not None:
            three.unit = near
            three.save()
        counts = {person.email: counted(person) for person in (*cast.committee, *others)}
        assert counts == {
            person.email: by_the_rule(person) for person in (*cast.committee, *others)
        }
        # 0 and 5: its vote there was on what has been handed in anew since.
        assert counts[one.email] == 2
        assert counts[two.email] == 3  # 0, 1, 4
    assert counts[three.email] == 0


def test_what_one_has_voted_on_hides_nothing_older(
    cast: Cast, requests: list[AccessRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = cast.submitted()
    cast.vote(newest, cast.committee[1])
    monkeypatch.setattr(waiting, "MOST", 1)
    assert counted(cast.committee[1]) == 1
