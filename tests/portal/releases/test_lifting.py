"""A hard block is never lifted; a soft one by the steward and two reviewers, with a reason."""

from __future__ import annotations

import dataclasses

import pytest
from django.urls import reverse

import bundle
from policies.errors import Conflict, Denied, Invalid
from portal import keys
from portal.accounts.models import Person
from portal.audit.models import Event
from portal.jobs.models import Finding, Job
from portal.releases import actions, lifts, queries, tasks
from portal.releases.models import Lift, Release
from tests.portal.cast import Cast
from tests.portal.releases.finished import ALL, blocked, finished_job
from tests.portal.releases.test_bundle import save

pytestmark = pytest.mark.django_db
WHY = "The tensor is a table of published norms, not of patients."


def fresh(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def approve(release: Release, voter: Person) -> None:
    release = Release.objects.get(pk=release.pk)
    actions.cast_vote(
        by=voter,
        release=release,
        choice="approve",
        bound_to=queries.digest_of(release),
        looked_at=ALL,
    )


def test_a_hard_block_is_lifted_by_nobody(cast: Cast) -> None:
    job = finished_job(cast, blocked(hard=True), blocked())
    with pytest.raises(Denied) as refused:
        lifts.lift(by=cast.steward, job=job, reason=WHY)
    assert refused.value.code == "lift.hard"
    event = Event.objects.get(action="block.lift.refused")
    assert (event.actor, event.details["rule"]) == (cast.steward.email, "lift.hard")
    # Even a row that slipped past the action lifts nothing.
    from portal.jobs.queries import blocks_digest

    Lift.objects.create(
        job=job, steward=cast.steward, reason=WHY, bound_to=blocks_digest(job.inspection)
    )
    with pytest.raises(Conflict) as blocks:
        actions.propose(by=cast.applicant, job=fresh(job))
    assert "never released" in str(blocks.value)
    assert not Release.objects.exists()


def test_only_the_dataset_s_own_steward_lifts(cast: Cast) -> None:
    job = finished_job(cast, blocked())
    for person in (cast.applicant, cast.reviewers[0], cast.administrator, cast.auditor):
        with pytest.raises(Denied) as refused:
            lifts.lift(by=person, job=job, reason=WHY)
        assert refused.value.code == "lift.steward"
    with pytest.raises(Invalid):
        lifts.lift(by=cast.steward, job=job, reason="  ")
    assert not Lift.objects.exists()
    # Of the applicant's own unit the steward is not independent either.
    Person.objects.filter(pk=cast.steward.pk).update(unit=cast.applicant.unit)
    with pytest.raises(Denied) as close:
        lifts.lift(by=Person.objects.get(pk=cast.steward.pk), job=fresh(job), reason=WHY)
    assert close.value.code == "review.same-unit"


def test_nothing_is_lifted_twice_or_where_nothing_blocks(cast: Cast) -> None:
    with pytest.raises(Conflict) as nothing:
        lifts.lift(by=cast.steward, job=finished_job(cast), reason=WHY)
    assert nothing.value.code == "lift.nothing"
    job = finished_job(cast, blocked())
    lifts.lift(by=cast.steward, job=job, reason=WHY)
    with pytest.raises(Conflict) as twice:
        lifts.lift(by=cast.steward, job=job, reason=WHY)
    assert twice.value.code == "lift.twice"


def test_a_soft_block_leaves_by_steward_and_two_reviewers_with_its_reason(
    cast: Cast, tmp_path
) -> None:
    job = finished_job(cast, blocked())
    with pytest.raises(Conflict):
        actions.propose(by=cast.applicant, job=fresh(job))
    lifts.lift(by=cast.steward, job=job, reason=WHY)
    assert Event.objects.get(action="block.lift").details["reason"] == WHY
    release = actions.propose(by=cast.applicant, job=fresh(job))
    # The policy asks for two reviewers; a lifted block asks for the steward's own vote, too.
    for reviewer in cast.reviewers[:2]:
        approve(release, reviewer)
    release.refresh_from_db()
    assert release.state == "in_review"
    assert "The dataset's steward has to agree." in queries.decision_on(release).needed
    approve(release, cast.steward)
    release.refresh_from_db()
    assert release.state == "approved"
    tasks.build(release.pk)
    release.refresh_from_db()
    assert release.state == "released"
    path = save(release, tmp_path)
    said = bundle.verify(path, keys.public_keys("release").values()).evidence
    assert said["lifted"]["reason"] == WHY
    assert said["lifted"]["steward"] == cast.steward.pseudonym
    assert said["lifted"]["rules"] == ["samples.stored"]
    assert len(said["review"]) == 3
    assert WHY.encode() in path.read_bytes()  # and on the card, for people


@pytest.mark.parametrize("first", ["reviewer", "steward"])
def test_one_reviewer_and_the_steward_are_not_enough(cast: Cast, first: str) -> None:
    dataset = cast.version.dataset
    job = finished_job(cast, blocked())
    lifts.lift(by=cast.steward, job=job, reason=WHY)
    release = actions.propose(by=cast.applicant, job=fresh(job))
    voters = [cast.reviewers[0], cast.steward]
    for voter in voters if first == "reviewer" else voters[::-1]:
        approve(release, voter)
    release.refresh_from_db()
    assert release.state == "in_review"
    assert dataset.policy == {}


def test_two_reviewers_and_the_steward_even_where_one_vote_is_usual(cast: Cast) -> None:
    from policies.document import default_policy
    from policies.lifting import lifted

    policy = default_policy()
    one = dataclasses.replace(
        policy,
        review=dataclasses.replace(
            policy.review,
            release=dataclasses.replace(policy.review.release, quorum=1, approvals=1),
        ),
    )
    rule = lifted(one).review.release
    assert (rule.quorum, rule.approvals, rule.distinct_units, rule.steward) == (2, 2, True, True)


def test_a_lift_is_void_when_the_findings_change(cast: Cast) -> None:
    job = finished_job(cast, blocked())
    lifts.lift(by=cast.steward, job=job, reason=WHY)
    release = actions.propose(by=cast.applicant, job=fresh(job))
    Finding.objects.filter(inspection__job=job).update(evidence={"count": 4})
    with pytest.raises(Conflict) as refused:
        approve(release, cast.reviewers[0])
    assert refused.value.code == "release.blocked"
    # And what was approved before does not leave.
    Finding.objects.filter(inspection__job=job).update(evidence={"count": 3})
    for voter in (*cast.reviewers[:2], cast.steward):
        approve(release, voter)
    Finding.objects.filter(inspection__job=job).update(hard=True)
    tasks.build(release.pk)
    release.refresh_from_db()
    assert (release.state, release.bundle_object) == ("in_review", "")


def test_through_the_page(cast: Cast, browse) -> None:
    job = finished_job(cast, blocked())
    address, button = reverse("job", args=[job.pk]), reverse("job-lift", args=[job.pk])
    steward, mine = browse(cast.steward), browse(cast.applicant)
    page = steward.get(address).content.decode()
    assert button in page and reverse("job-internal", args=[job.pk]) in page
    assert steward.get(reverse("job-internal", args=[job.pk])).status_code == 200
    assert button not in mine.get(address).content.decode()
    assert mine.post(button, {"reason": WHY}).status_code == 403
    assert "Say why" in steward.post(button, {"reason": ""}, follow=True).content.decode()
    assert "Lifted." in steward.post(button, {"reason": WHY}, follow=True).content.decode()
    seen = mine.get(address).content.decode()
    assert WHY in seen and reverse("release-new", args=[job.pk]) in seen
    mine.post(reverse("release-new", args=[job.pk]), {"note": ""})
    release = Release.objects.get()
    shown = browse(cast.reviewers[0]).get(reverse("release", args=[release.pk]))
    assert WHY in shown.content.decode()


def test_a_hard_block_through_the_page_and_the_api(cast: Cast, browse, api) -> None:
    job = finished_job(cast, blocked(hard=True))
    steward = browse(cast.steward)
    button = reverse("job-lift", args=[job.pk])
    assert button not in steward.get(reverse("job", args=[job.pk])).content.decode()
    answer = steward.post(button, {"reason": WHY})
    assert answer.status_code == 403
    assert "nobody lifts this block" in answer.content.decode()
    answer = api(cast.steward).post(f"/api/v1/jobs/{job.pk}/lift", {"reason": WHY}, format="json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "lift.hard")
    assert Event.objects.filter(action="block.lift.refused").count() == 2
    soft = finished_job(cast, blocked())
    made = api(cast.steward).post(f"/api/v1/jobs/{soft.pk}/lift", {"reason": WHY}, format="json")
    assert (made.status_code, made.json()["reason"]) == (201, WHY)
