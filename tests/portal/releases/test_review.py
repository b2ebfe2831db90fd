"""Two reviewers, independent and blind, on exactly what leaves."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from django.utils import timezone

from policies.errors import Conflict, Denied, Invalid
from portal.access.models import Grant
from portal.accounts.models import Person
from portal.audit.models import Event
from portal.catalog.models import Dataset
from portal.jobs import storage
from portal.jobs.models import Artefact, Job, LedgerEntry
from portal.releases import actions, queries, tasks
from portal.releases.models import Release, ReleaseVote
from portal.releases.review import looked_for
from portal.voting import casting
from tests.portal.access.test_decisions import at_once
from tests.portal.cast import Cast
from tests.portal.releases.finished import ALL, blocked, finished_job

pytestmark = pytest.mark.django_db


@pytest.fixture
def release(cast: Cast) -> Release:
    """A release in review."""
    job = finished_job(cast, {**blocked(), "severity": "review"})
    return actions.propose(by=cast.applicant, job=job, note="Our first model.")


def vote(release: Release, voter: Person, choice: str = "approve", bound_to: str = "") -> None:
    fresh = Release.objects.get(pk=release.pk)
    actions.cast_vote(
        by=voter,
        release=fresh,
        choice=choice,
        bound_to=bound_to or queries.digest_of(fresh),
        comment="Because.",
        looked_at=ALL if choice == "approve" else (),
    )
    release.refresh_from_db()


def test_two_approvals_approve(cast: Cast, release: Release) -> None:
    assert (release.state, release.bound_to) == ("in_review", queries.digest_of(release))
    assert [a.path for a in release.artefacts.all()] == ["model.safetensors"]
    vote(release, cast.reviewers[0])
    assert release.state == "in_review"
    vote(release, cast.reviewers[1])
    assert release.state == "approved"


def test_reviewers_are_blind_to_each_other(cast: Cast, release: Release) -> None:
    vote(release, cast.reviewers[0], "reject")
    assert queries.voting_for(release, cast.reviewers[1]).votes == ()
    assert len(queries.voting_for(release, cast.reviewers[0]).votes) == 1
    vote(release, cast.reviewers[1])
    assert len(queries.voting_for(release, cast.reviewers[1]).votes) == 2
    assert queries.voting_for(release, cast.applicant).votes == ()
    # They disagree: a third reviewer settles it.
    assert release.state == "in_review"
    vote(release, cast.reviewers[2])
    assert release.state == "approved"


@pytest.mark.parametrize(
    "rule", ["review.own", "review.role", "review.same-unit", "review.voters-unit"]
)
def test_who_may_not_vote_hears_the_rule_and_it_is_recorded(
    cast: Cast, release: Release, rule: str
) -> None:
    voter = cast.reviewers[0]
    if rule == "review.own":
        voter = cast.analyst
    elif rule == "review.role":
        voter = cast.committee[0]
    elif rule == "review.same-unit":
        voter.unit = cast.applicant.unit
        voter.save()
    else:
        vote(release, cast.reviewers[1])
        voter.unit = cast.reviewers[1].unit
        voter.save()
    with pytest.raises(Denied) as refused:
        vote(release, voter)
    assert refused.value.code == rule
    event = Event.objects.get(action="release.vote.refused")
    assert (event.actor, event.details["rule"]) == (voter.email, rule)


def test_a_second_vote_and_a_vote_after_withdrawal_are_refused(
    cast: Cast, release: Release
) -> None:
    vote(release, cast.reviewers[0])
    with pytest.raises(Conflict):
        vote(release, cast.reviewers[0], "reject")
    with pytest.raises(Denied):
        actions.withdraw(by=cast.stranger, release=release)
    actions.withdraw(by=cast.analyst, release=release)
    with pytest.raises(Conflict):
        vote(release, cast.reviewers[1])


@pytest.mark.parametrize("what", ["artefact", "report", "code", "finding", "figure", "policy"])
def test_votes_fall_when_anything_changes(cast: Cast, release: Release, what: str) -> None:
    seen = queries.digest_of(release)
    vote(release, cast.reviewers[0])
    if what == "artefact":
        Artefact.objects.filter(releases=release).update(sha256="b" * 64)
    elif what == "report":
        type(release.job.inspection).objects.update(official={"patient": {"auc": 1}})
    elif what == "code":
        type(release.job.submission).objects.update(archive_sha256="c" * 64)
    elif what == "figure":
        # The public figure of a finding stands in the signed evidence.
        release.job.inspection.findings.update(evidence={"bits": 1})
    elif what == "policy":
        Dataset.objects.update(policy={"release": {"download_hours": 1}})
    else:
        finding = {**blocked(), "severity": "review"}
        release.job.inspection.findings.create(number=9, **finding)
    # Who still looks at the old page is told so.
    with pytest.raises(Conflict) as stale:
        vote(release, cast.reviewers[1], bound_to=seen)
    assert stale.value.code == "review.changed"
    vote(release, cast.reviewers[1])
    # One vote on what is there now: the earlier one has fallen, and may be cast anew.
    assert (release.state, queries.decision_on(release).counted) == ("in_review", 1)
    assert Event.objects.get(action="release.changed").details["votes_fallen"] == 1
    vote(release, cast.reviewers[0])
    assert release.state == "approved"


def test_what_changes_after_approval_is_reviewed_again(cast: Cast, release: Release) -> None:
    for reviewer in cast.reviewers[:2]:
        vote(release, reviewer)
    Artefact.objects.filter(releases=release).update(sha256="b" * 64)
    tasks.build(release.pk)
    release.refresh_from_db()
    assert (release.state, release.bundle_object) == ("in_review", "")
    assert queries.decision_on(release).counted == 0


def test_stored_bytes_that_are_not_the_reviewed_ones_do_not_leave(
    cast: Cast, release: Release
) -> None:
    for reviewer in cast.reviewers[:2]:
        vote(release, reviewer)
    kept = storage.keep(
        io.BytesIO(b"other weights"), context=storage.artefact_context(release.job_id)
    )
    Artefact.objects.filter(releases=release).update(
        object_name=kept.object_name, wrapped_key=kept.wrapped_key
    )
    tasks.build(release.pk)
    release.refresh_from_db()
    assert (release.state, release.bundle_object) == ("in_review", "")


def test_returned_answered_and_voted_anew(cast: Cast, release: Release) -> None:
    first = queries.digest_of(release)
    vote(release, cast.reviewers[0], "return")
    vote(release, cast.reviewers[1], "return")
    assert (release.state, "Because." in release.reason) == ("returned", True)
    with pytest.raises(Denied):
        actions.propose_again(by=cast.stranger, release=release, note="x")
    again = actions.propose_again(by=cast.applicant, release=release, note="An explanation.")
    assert (again.state, again.round) == ("in_review", 2)
    assert again.bound_to != first
    with pytest.raises(Conflict):
        vote(release, cast.reviewers[0], bound_to=first)
    vote(release, cast.reviewers[0])


@pytest.mark.parametrize("hard", [True, False])
def test_a_blocked_job_is_not_proposed(cast: Cast, hard: bool) -> None:
    job = finished_job(cast, blocked(hard))
    with pytest.raises(Conflict) as refused:
        actions.propose(by=cast.applicant, job=job)
    assert refused.value.code == "release.blocked"
    assert ("never released" in str(refused.value)) == hard
    assert not Release.objects.exists()


def test_what_blocks_later_is_not_approved(cast: Cast, release: Release) -> None:
    type(release.job.inspection).objects.update(verdict="block")
    with pytest.raises(Conflict) as refused:
        vote(release, cast.reviewers[0])
    assert refused.value.code == "release.blocked"


def test_only_a_finished_job_and_only_once(cast: Cast) -> None:
    job = finished_job(cast)
    Job.objects.update(state="failed")
    with pytest.raises(Conflict):
        actions.propose(by=cast.applicant, job=job)
    Job.objects.update(state="finished")
    actions.propose(by=cast.applicant, job=job)
    with pytest.raises(Conflict) as twice:
        actions.propose(by=cast.applicant, job=job)
    assert twice.value.code == "release.twice"


def test_only_the_grants_analysts_while_it_lasts(cast: Cast) -> None:
    job = finished_job(cast)
    for person in (cast.stranger, cast.steward, cast.reviewers[0]):
        with pytest.raises(Denied):
            actions.propose(by=person, job=job)
    past = timezone.now() - timedelta(seconds=1)
    Grant.objects.update(starts_at=past - timedelta(days=1), ends_at=past)
    job.grant.refresh_from_db()
    with pytest.raises(Denied) as refused:
        actions.propose(by=cast.applicant, job=job)
    assert refused.value.code == "access.grant-ended"
    assert Event.objects.filter(action="release.propose.refused").count() == 4


def test_an_education_grant_releases_figures_only(cast: Cast) -> None:
    grant = cast.granted(purpose="education")
    release = actions.propose(by=cast.applicant, job=finished_job(cast, grant=grant))
    assert not release.artefacts.exists()


def test_the_budget_of_releases_ends(cast: Cast) -> None:
    job = finished_job(cast)
    for _ in range(20):
        LedgerEntry.objects.create(
            kind="release",
            dataset=job.version.dataset,
            organisation=job.grant.unit.organisation,
            grant=job.grant,
            job=job,
        )
    with pytest.raises(Denied) as refused:
        actions.propose(by=cast.applicant, job=job)
    assert refused.value.code == "ledger.spent"


def test_what_waits_for_reviewers_counts_in_the_budget_of_releases(cast: Cast) -> None:
    dataset = cast.version.dataset
    dataset.policy = {"ledger": {"grant_releases": 1}}
    dataset.save()
    cast.version.refresh_from_db()
    job = finished_job(cast)
    waiting = actions.propose(by=cast.applicant, job=job)
    other = finished_job(cast, grant=job.grant)
    with pytest.raises(Denied) as refused:
        actions.propose(by=cast.applicant, job=other)
    assert refused.value.code == "ledger.spent"
    # Withdrawn, it no longer does.
    actions.withdraw(by=cast.applicant, release=waiting)
    actions.propose(by=cast.applicant, job=other)


def test_the_steward_agrees_too_where_the_policy_says_so(cast: Cast) -> None:
    dataset = cast.version.dataset
    dataset.policy = {"review": {"release": {"steward": True}}}
    dataset.save()
    cast.version.refresh_from_db()
    release = actions.propose(by=cast.applicant, job=finished_job(cast))
    for reviewer in cast.reviewers[:2]:
        vote(release, reviewer)
    assert release.state == "in_review"
    vote(release, cast.steward)
    assert release.state == "approved"


def test_a_shared_organisation_must_be_declared(cast: Cast) -> None:
    job = finished_job(cast)
    Person.objects.filter(pk=cast.applicant.pk).update(unit=cast.officer.unit)
    fresh = Job.objects.get(pk=job.pk)
    applicant = Person.objects.get(pk=cast.applicant.pk)
    with pytest.raises(Invalid) as refused:
        actions.propose(by=applicant, job=fresh)
    assert refused.value.field == "conflict_declared"
    assert actions.propose(by=applicant, job=fresh, conflict=True).state == "in_review"


@pytest.mark.parametrize("what", ["propose", "vote", "withdraw"])
def test_without_its_audit_event_nothing_is_written(cast: Cast, monkeypatch, what: str) -> None:
    job = finished_job(cast)
    release = None if what == "propose" else actions.propose(by=cast.applicant, job=job)
    if release is not None:
        vote(release, cast.reviewers[0])

    def rows() -> list:
        return [list(Release.objects.values()), list(ReleaseVote.objects.values())]

    before = rows()

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError

    for module in (actions, casting):
        monkeypatch.setattr(module, "record", broken)
    with pytest.raises(RuntimeError):
        if release is None:
            actions.propose(by=cast.applicant, job=job)
        elif what == "vote":
            vote(release, cast.reviewers[1])
        else:
            actions.withdraw(by=cast.applicant, release=release)
    assert rows() == before


@pytest.mark.django_db(transaction=True)
def test_two_reviewers_at_one_instant_decide_once(cast: Cast) -> None:
    release = actions.propose(by=cast.applicant, job=finished_job(cast))
    bound_to = queries.digest_of(release)

    def cast_by(reviewer: Person):
        return lambda: actions.cast_vote(
            by=reviewer, release=release, choice="approve", bound_to=bound_to, looked_at=ALL
        )

    assert at_once(*(cast_by(reviewer) for reviewer in cast.reviewers[:2])) == [None, None]
    release.refresh_from_db()
    assert release.state == "approved"
    assert Event.objects.filter(action="release.approve").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_double_click_proposes_once(cast: Cast) -> None:
    job = finished_job(cast)

    def click() -> None:
        actions.propose(by=cast.applicant, job=job)

    errors = at_once(click, click)
    assert sorted(type(error).__name__ for error in errors) == ["Conflict", "NoneType"]
    assert Release.objects.count() == 1


@pytest.mark.parametrize(
    "rule",
    [
        "artefacts.refused",
        "safetensors.trailing",
        "onnx.operator",
        "tensors.precision",
        "payload.low-bits",
        "sanitise.capacity",
        "samples.search",
        "metrics.budget",
        "evaluation.unsteady",
        "membership.auc",
        "membership.unmeasured",
        "memorisation.instances",
        "attacks.none",
        "privacy.epsilon",
    ],
)
def test_no_rule_of_the_gate_is_shown_to_reviewers_as_other(rule: str) -> None:
    rows = looked_for([{"rule": rule, "severity": "review"}])
    assert [row.count for row in rows if row.severity] == [1]
    assert "Other" not in {row.title for row in rows}
