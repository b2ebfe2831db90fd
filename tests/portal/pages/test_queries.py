"""How often a page asks the database: a small number, and the same however much there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bench import portal_rows
from portal.access.models import AccessRequest, Recusal, RequestVote
from portal.accounts.models import Person
from portal.jobs.models import Artefact, Finding, Job, JobStep, Tick
from portal.releases import actions
from portal.releases.models import Release, ReleaseRecusal, ReleaseVote
from portal.releases.queries import digest_of
from tests.portal.cast import default_agreement

# Real transactions: inside one roles are asked anew, and a test's own would be one.
pytestmark = pytest.mark.django_db(transaction=True)
MORE = 60
# (page, who reads it): the most queries it may need, with session and reader.
PAGES = {
    ("/", "reviewer"): 23,
    ("/", "committee2"): 18,
    ("/", "steward"): 25,
    ("/", "applicant"): 10,
    ("/datasets/", ""): 2,
    ("/datasets/mammography/", "applicant"): 6,
    ("/requests/", "committee1"): 8,
    ("/requests/{request}/", "committee1"): 18,
    ("/requests/{request}/", "applicant"): 18,
    ("/jobs/", "applicant"): 6,
    ("/jobs/{job}/", "applicant"): 17,
    ("/jobs/{job}/", "steward"): 16,
    ("/releases/", "reviewer"): 6,
    ("/releases/{release}/", "reviewer"): 30,
    ("/releases/{release}/", "applicant"): 28,
    ("/audit/", "auditor"): 11,
    ("/api/v1/requests", "committee1"): 6,
    ("/api/v1/requests/{request}", "committee1"): 15,
    ("/api/v1/jobs", "applicant"): 6,
    ("/api/v1/jobs/{job}", "applicant"): 15,
    ("/api/v1/releases", "reviewer"): 6,
    ("/api/v1/releases/{release}", "reviewer"): 21,
}
Count = Callable[[str, str], int]


@pytest.fixture
def people(portal_home: object, transactional_db: None) -> dict[str, Person]:
    default_agreement()
    return portal_rows.make_people()


@pytest.fixture
def world(people: dict[str, Person]) -> tuple[Job, Release]:
    """One request, grant, job and release."""
    job = portal_rows.make_job(people["applicant"], portal_rows.make_grant(people))
    return job, actions.propose(by=people["applicant"], job=job, note="Please.")


@pytest.fixture
def count(people: dict[str, Person], world: tuple[Job, Release]) -> Iterator[Count]:
    """Return how to count the queries of a page for its reader."""
    job, release = world
    sessions = {name: portal_rows.session_of(person) for name, person in people.items()}

    def of(page: str, who: str) -> int:
        client = Client()
        if who:
            client.cookies[settings.SESSION_COOKIE_NAME] = sessions[who]
        path = page.format(request=job.grant.request_id, job=job.pk, release=release.pk)
        with CaptureQueriesContext(connection) as asked:
            assert client.get(path).status_code == 200
        return len(asked)

    yield of


def grow(people: dict[str, Person], job: Job, release: Release, patch: pytest.MonkeyPatch) -> None:
    """Make more of everything a page could go through one by one."""
    patch.setattr(portal_rows, "JOBS_A_GRANT", 4)
    patch.setattr(portal_rows, "IN_REVIEW_EVERY", 2)
    portal_rows.multiply(job, release, MORE)
    for number in range(10, 20):
        Finding.objects.create(
            inspection=job.inspection, number=number, rule="tensors.shape", severity="review",
            artefact="model.safetensors", message="More.",
        )  # fmt: skip
        Tick.objects.create(job=job, sequence=100 + number, step=number, values={"loss": 1}, bits=0)
        JobStep.objects.create(job=job, state="running", ended_at=timezone.now())
    kept = job.artefacts.filter(kind="weights").get()
    more = portal_rows.copies(
        kept, 5, path=lambda n: f"more-{n}", object_name=lambda n: f"{n:064d}"
    )
    release.artefacts.add(*Artefact.objects.filter(path__in=[row.path for row in more]))
    for row in Release.objects.filter(state="in_review"):
        digest = digest_of(row)
        for voter in ("committee1", "committee2"):
            ReleaseVote.objects.create(
                release=row, voter=people[voter], choice="approve", bound_to=digest
            )
        ReleaseRecusal.objects.create(release=row, person=people["committee3"])
    for row in AccessRequest.objects.filter(state="in_review"):
        for voter in ("reviewer", "steward"):
            RequestVote.objects.create(
                request=row, voter=people[voter], choice="approve", bound_to=row.bound_to
            )
        Recusal.objects.create(request=row, person=people["committee3"])


def test_no_page_asks_more_often_the_more_there_is(
    people: dict[str, Person],
    world: tuple[Job, Release],
    count: Count,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {page: count(*page) for page in PAGES}
    grow(people, *world, monkeypatch)
    after = {page: count(*page) for page in PAGES}
    over = {page: (before[page], after[page]) for page in PAGES if after[page] > PAGES[page]}
    assert not over, over
    # What belongs to nothing is not fetched, so the first few rows may ask for more; then no row.
    double(world)
    assert {page: count(*page) for page in PAGES} == after


def double(world: tuple[Job, Release]) -> None:
    """Copy every release in review with its job, and every request in review with its votes."""
    job, _release = world
    for row in list(Release.objects.filter(state="in_review")):
        submission = portal_rows.copies(row.job.submission, 1, archive_object=portal_rows._token)[0]
        again = portal_rows.copies(row.job, 1, submission_id=submission.pk)[0]
        portal_rows.copies(row.job.inspection, 1, job_id=again.pk)
        copy = portal_rows.copies(row, 1, job_id=again.pk)[0]
        copy.artefacts.set(row.artefacts.all())
        for vote in row.votes.all():
            portal_rows.copies(vote, 1, release_id=copy.pk)
    for asked in list(AccessRequest.objects.filter(state="in_review")):
        copy = portal_rows.copies(asked, 1)[0]
        copy.analysts.set(asked.analysts.all())
        for vote in asked.votes.all():
            portal_rows.copies(vote, 1, request_id=copy.pk)
    portal_rows.copies(job.inspection.findings.first(), 5, number=lambda n: 50 + n)
