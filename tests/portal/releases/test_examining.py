"""What examiners read of a network: its tensors, and its code against the last released one."""

from __future__ import annotations

import zipfile

import pytest
from django.urls import reverse

from portal.audit.models import Event
from portal.jobs import actions as jobs
from portal.jobs.models import Inspection, Job
from portal.releases import actions, tasks
from portal.releases.models import Release
from tests.portal.cast import Cast
from tests.portal.jobs.material import archive, training
from tests.portal.releases.finished import approve, finish, finished_job

pytestmark = pytest.mark.django_db


def let_out(cast: Cast, release: Release) -> None:
    approve(cast, release)
    tasks.build(release.pk)
    assert Release.objects.get(pk=release.pk).state == "released"


def changes(job: Job) -> str:
    return reverse("submission-changes", args=[job.submission_id])


def test_the_code_is_compared_with_the_last_released_one(cast: Cast, browse) -> None:
    grant = cast.granted()
    first = finished_job(cast, grant=grant)
    one = actions.propose(by=cast.applicant, job=first)
    reviewer = browse(cast.reviewers[0])
    assert "nothing to compare with" in reviewer.get(changes(first)).content.decode()
    let_out(cast, one)
    # A submission in between that never left is not what was agreed to.
    finished_job(cast, grant=grant)
    with zipfile.ZipFile(training()) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    files["train.py"] += b"\nprint('<b>one more</b>')\n"
    job = finish(jobs.submit(by=cast.applicant, grant=grant, stream=archive(files)))
    actions.propose(by=cast.applicant, job=job)
    answer = reviewer.get(changes(job))
    page = answer.content.decode()
    assert answer.context["before"].pk == first.submission_id
    assert "+" in page and "print(&#x27;&lt;b&gt;one more&lt;/b&gt;&#x27;)" in page
    assert answer["Cache-Control"] == "no-store"
    # Reading two submissions is recorded as reading two.
    seen = Event.objects.filter(action="submission.read", actor=cast.reviewers[0].email)
    assert set(seen.values_list("about_id", flat=True)) == {
        str(first.submission_id),
        str(job.submission_id),
    }
    assert browse(cast.stranger).get(changes(job)).status_code == 403
    # The release's page leads there.
    release = Release.objects.latest("pk")
    shown = reviewer.get(reverse("release", args=[release.pk])).content.decode()
    assert changes(job) in shown


def test_an_earlier_secret_stays_one(cast: Cast, browse) -> None:
    grant = cast.granted()
    first = finished_job(cast, grant=grant)
    secret = actions.propose(by=cast.applicant, job=first, proprietary=True)
    actions.name_reviewers(by=cast.steward, release=secret, people=cast.reviewers[:2])
    let_out(cast, secret)
    second = finished_job(cast, grant=grant)
    actions.propose(by=cast.applicant, job=second)
    address = changes(second)
    other = browse(cast.reviewers[2]).get(address)
    assert other.status_code == 200 and other.context["before"] is None
    assert "a secret that you were not named to see" in other.content.decode()
    assert browse(cast.reviewers[0]).get(address).context["before"].pk == first.submission_id


def test_the_tensors_are_told_to_who_examines_alone(cast: Cast, browse) -> None:
    job = finished_job(cast)
    drawn = {
        "architecture": "a" * 64,
        "sums": [1.0],
        "parameters": 36,
        "count": 1,
        "tensors": [["model.safetensors", "0.weight<i>", "F32", [4, 1, 3, 3]]],
    }
    Inspection.objects.filter(job=job).update(sketch=drawn)
    release = actions.propose(by=cast.applicant, job=Job.objects.get(pk=job.pk))
    address = reverse("release", args=[release.pk])
    page = browse(cast.reviewers[0]).get(address).content.decode()
    assert "0.weight&lt;i&gt;" in page and "4 × 1 × 3 × 3" in page
    Release.objects.update(proprietary=True)  # then to the named ones, not to the auditor
    assert "4 × 1 × 3 × 3" not in browse(cast.auditor).get(address).content.decode()
    assert "4 × 1 × 3 × 3" not in browse(cast.applicant).get(address).content.decode()
