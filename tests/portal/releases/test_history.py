"""Reviewers are told what a dataset's earlier releases say of the one before them."""

from __future__ import annotations

import pytest
from django.urls import reverse

import bundle
from portal import keys
from portal.audit.models import Event
from portal.jobs.models import Inspection, Job
from portal.releases import actions, queries, tasks
from portal.releases.models import Release
from tests.portal.cast import Cast
from tests.portal.releases.finished import ALL, finished_job
from tests.portal.releases.test_bundle import save

pytestmark = pytest.mark.django_db


def sketched(job: Job, *sums: float) -> Job:
    drawn = {"architecture": "a" * 64, "sums": list(sums)}
    Inspection.objects.filter(job=job).update(sketch=drawn)
    return Job.objects.get(pk=job.pk)


def proposed(cast: Cast, *sums: float) -> Release:
    return actions.propose(by=cast.applicant, job=sketched(finished_job(cast), *sums))


def rules(release: Release) -> list[str]:
    return [row["rule"] for row in release.notices]


def test_nearly_the_same_weights_again_are_told(cast: Cast, browse, api, tmp_path) -> None:
    first = proposed(cast, 1.0, 2.0, 3.0)
    assert rules(first) == []
    withdrawn = proposed(cast, 5.0, -1.0, 0.0)
    assert rules(withdrawn) == []  # the same program and architecture, trained anew
    second = proposed(cast, 1.0, 2.0, 3.01)
    assert rules(second) == ["history.near-identical"]
    third = proposed(cast, 1.0, 2.0, 3.02)
    assert rules(third) == ["history.near-identical", "history.row"]
    said = "Its weights are nearly those of an earlier release of this dataset."
    page = browse(cast.reviewers[0]).get(reverse("release", args=[second.pk])).content.decode()
    assert said in page and reverse("release", args=[first.pk]) in page
    # To the applicant nothing is said of others' releases.
    mine = f"/api/v1/releases/{second.pk}"
    assert (
        said
        not in browse(cast.applicant).get(reverse("release", args=[second.pk])).content.decode()
    )
    assert api(cast.applicant).get(mine).json()["notices"] is None
    shown = api(cast.reviewers[0]).get(mine).json()["notices"]
    assert shown[0]["releases"] == [first.pk]
    told = Event.objects.filter(action="release.propose").latest("pk").details["notices"]
    assert told == rules(third)
    # A vote agrees to the notices, too; they stay in the evidence without naming anybody.
    for reviewer in cast.reviewers[:2]:
        actions.cast_vote(
            by=reviewer,
            release=second,
            choice="approve",
            bound_to=queries.digest_of(second),
            looked_at=ALL,
        )
    tasks.build(second.pk)
    second.refresh_from_db()
    path = save(second, tmp_path)
    evidence = bundle.verify(path, keys.public_keys("release").values()).evidence
    assert evidence["history"] == [{"rule": "history.near-identical", "message": said}]


def test_what_was_withdrawn_or_left_no_weights_is_not_compared(cast: Cast) -> None:
    first = proposed(cast, 1.0, 2.0)
    actions.withdraw(by=cast.applicant, release=first)
    assert rules(proposed(cast, 1.0, 2.0)) == []
    grant = cast.granted(purpose="education")
    job = sketched(finished_job(cast, grant=grant), 1.0, 2.0)
    assert rules(actions.propose(by=cast.applicant, job=job)) == []


def test_many_small_releases_are_told(cast: Cast) -> None:
    dataset = cast.version.dataset
    dataset.policy = {"history": {"small_releases": 3}}
    dataset.save()
    assert rules(proposed(cast)) == rules(proposed(cast)) == []
    third = proposed(cast)
    assert rules(third) == ["history.small"]
    assert third.notices[0]["evidence"]["releases"] == 3


def test_it_is_asked_again_when_a_returned_release_comes_back(cast: Cast) -> None:
    returned = proposed(cast, 1.0, 2.0)
    for reviewer in cast.reviewers[:2]:
        actions.cast_vote(
            by=reviewer,
            release=returned,
            choice="return",
            bound_to=queries.digest_of(returned),
            comment="Why?",
        )
    proposed(cast, 1.0, 2.0)
    returned.refresh_from_db()
    again = actions.propose_again(by=cast.applicant, release=returned, note="Because.")
    assert rules(again) == ["history.near-identical"]
