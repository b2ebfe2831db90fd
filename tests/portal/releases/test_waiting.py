"""The start page's count of votes is what the whole rule says, row by row."""

from __future__ import annotations

import pytest

from portal.accounts.models import Person
from portal.jobs.models import Artefact
from portal.releases import actions, queries, waiting
from portal.releases.models import Release
from tests.portal.cast import Cast
from tests.portal.jobs.material import training
from tests.portal.releases.finished import finish, finished_job
from tests.portal.releases.test_review import vote

pytestmark = pytest.mark.django_db


def counted(person: Person) -> int:
    """Return what the start page counts as releases that wait for a person's vote."""
    lines = waiting.waiting_for(person)
    return sum(line.count for line in lines if line.url.endswith("state=in_review"))


def by_the_rule(person: Person) -> int:
    """Return the same by asking for the voting on every single release."""
    rows = queries.releases_visible_to(person).values_list("pk", flat=True)
    return sum(queries.voting_for(Release.objects.get(pk=pk), person).may_vote for pk in list(rows))


@pytest.fixture
def releases(cast: Cast) -> list[Release]:
    """Releases in every situation that the rule tells apart."""
    from portal.jobs import actions as jobs

    first = finished_job(cast)
    made = [actions.propose(by=cast.applicant, job=first)]
    for _number in range(8):
        job = finish(jobs.submit(by=cast.applicant, grant=first.grant, stream=training()))
        made.append(actions.propose(by=cast.applicant, job=job))
    one, two, three = cast.reviewers
    # 0: nobody has voted. 1: one has. 2: two disagree. 3: approved. 4: one recused.
    vote(made[1], one)
    vote(made[2], one)
    vote(made[2], two, "reject")
    vote(made[3], one)
    vote(made[3], two)
    actions.recuse(by=one, release=made[4])
    # 5: returned, proposed anew, and voted on by another than the first time.
    vote(made[5], one, "return")
    vote(made[5], two, "return")
    actions.propose_again(by=cast.applicant, release=made[5], note="Again.")
    vote(made[5], three)
    # 6: something changed after a vote, which has fallen. 7: withdrawn. 8: a conflict is declared.
    vote(made[6], one)
    Artefact.objects.filter(job=made[6].job).update(sha256="b" * 64)
    actions.withdraw(by=cast.applicant, release=made[7])
    Release.objects.filter(pk=made[8].pk).update(conflict_declared=True)
    return made


def everybody(cast: Cast) -> list[Person]:
    others = [cast.steward, cast.auditor, cast.administrator, cast.applicant, cast.stranger]
    return [*cast.reviewers, *cast.committee, *others]


@pytest.mark.parametrize("steward", [False, True])
def test_the_count_is_that_of_the_whole_rule(
    cast: Cast, releases: list[Release], steward: bool
) -> None:
    if steward:
        cast.version.dataset.policy = {"review": {"release": {"steward": True}}}
        cast.version.dataset.save()
    one, two, three = (person.email for person in cast.reviewers)
    for near in ("", "reviewer", "applicant"):
        # Of another's unit, or of the applicant's, one may vote on less.
        if near:
            person = cast.reviewers[2]
            person.unit = cast.applicant.unit if near == "applicant" else cast.reviewers[0].unit
            person.save()
        counts = {person.email: counted(person) for person in everybody(cast)}
        assert counts == {person.email: by_the_rule(person) for person in everybody(cast)}
        if not near:
            # 0, 5 (the vote was on the first round), 6 (it fell), 8; with another policy every vote
            # fell, on 1 and 2 as well.
            assert counts[one] == (6 if steward else 4)
            assert counts[two] == (7 if steward else 6)  # 0, 1, 4, 5, 6, 8, and 2 with the policy
    assert counts[three] == 0
    assert bool(counts[cast.steward.email]) == steward


def test_what_one_has_voted_on_hides_nothing_older(
    cast: Cast, releases: list[Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cast.reviewers[0]
    vote(releases[8], one)
    monkeypatch.setattr(waiting, "MOST", 1)
    assert counted(one) == 1
