"""Each address of the API by each kind of person: one truth table, complete over the URL conf."""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from portal.accounts.models import Person
from portal.ingest.models import Intake
from portal.releases import actions
from portal.releases.models import Release
from tests.portal.cast import Cast
from tests.portal.releases.finished import finished_job

pytestmark = pytest.mark.django_db
Api = Callable[..., Any]

PEOPLE = (
    "visitor",
    "stranger",
    "applicant",
    "analyst",
    "committee",
    "reviewer",
    "colleague",  # a reviewer of the applicant's own unit
    "steward",
    "neighbour",  # the steward of another dataset
    "officer",
    "auditor",
    "administrator",
)
OPEN = "200 " * 12
SIGNED_IN = "401 " + "200 " * 11
V = "datasets/mammography/versions/1"
# Address: the answer to each of PEOPLE, in that order.
TABLE: dict[str, str] = {
    "me": SIGNED_IN,
    "people": SIGNED_IN,
    "people/{administrator}": "401 404 404 404 404 404 404 404 404 404 200 200",
    "organisations": SIGNED_IN,
    "units": SIGNED_IN,
    "roles": SIGNED_IN,
    "tokens": SIGNED_IN,
    "datasets": OPEN,
    "datasets/mammography": OPEN,
    "datasets/mammography/croissant": OPEN,
    "datasets/mammography/sample": "409 " * 12,  # it is being made
    "datasets/mammography/versions": OPEN,
    V: OPEN,
    f"{V}/originals": "401 403 403 403 403 403 403 200 403 200 200 403",
    f"{V}/report": "401 403 403 403 403 403 403 200 403 200 200 403",
    f"{V}/examination": "401 403 403 403 403 403 403 403 403 200 403 403",
    f"{V}/examination/1/before.png": "401 403 403 403 403 403 403 403 403 404 403 403",
    f"{V}/examination/1/header": "401 403 403 403 403 403 403 403 403 404 403 403",
    f"{V}/destructions": "401 403 403 403 403 403 403 200 403 200 200 403",
    f"{V}/destructions/1/certificate": "401 403 403 403 403 403 403 404 403 404 404 403",
    "request-fields": OPEN,
    "service-levels": OPEN,
    "requests": SIGNED_IN,
    "requests/{request}": "401 404 200 200 200 404 404 200 404 404 200 404",
    "requests/{request}/documents/{document}": "401 404 200 200 200 404 404 200 404 404 200 404",
    "agreements": OPEN,
    "grants": SIGNED_IN,
    "grants/{grant}": "401 404 200 200 404 404 404 200 404 404 200 404",
    "submissions/{submission}": "401 404 200 200 404 200 200 200 404 404 200 200",
    "submissions/{submission}/archive": "401 403 200 200 403 200 403 200 403 403 200 403",
    "jobs": SIGNED_IN,
    "jobs/{job}": "401 404 200 200 404 200 200 200 404 404 200 200",
    "jobs/{job}/curves": "401 404 200 200 404 200 403 200 404 404 200 403",
    "jobs/{job}/inspection": "401 404 200 200 404 200 403 200 404 404 200 403",
    "jobs/{job}/inspection/internal": "401 403 403 403 403 200 403 200 403 403 200 403",
    "jobs/{job}/log": "401 403 403 403 403 200 403 200 403 403 200 403",
    "releases": SIGNED_IN,
    "releases/{release}": "401 404 200 200 404 200 200 200 404 404 200 404",
    "releases/{release}/bundle": "401 404 200 200 404 200 200 200 404 404 200 404",
    "downloads/guess": "401 " + "404 " * 11,
    "revocations": "204 " * 12,
    "audit/events": "401 403 403 403 403 403 403 403 403 403 200 403",
    "audit/checkpoints": OPEN,
    "keys": OPEN,
}  # fmt: skip


def addresses(found: URLResolver, before: str = "") -> Iterator[tuple[str, Any]]:
    """Give each address of the API with what answers it."""
    for each in found.url_patterns:
        here = before + str(each.pattern).lstrip("^")
        if isinstance(each, URLResolver):
            yield from addresses(each, here)
        elif isinstance(each, URLPattern) and here.startswith("api/v1/"):
            yield here.removeprefix("api/v1/"), each.callback


def test_the_table_knows_every_address_that_answers_get() -> None:
    known = [re.sub(r"\{\w+\}", "1", path) for path in TABLE]
    for pattern, view in addresses(get_resolver()):
        if not hasattr(view.view_class, "get"):
            continue
        assert "get" in view.view_class.http_method_names, inspect.getdoc(view)
        shape = re.sub(r"<int:\w+>", "[0-9]+", pattern)
        shape = re.sub(r"<\w+:\w+>", "[^/]+", shape).removesuffix("$")
        assert any(re.fullmatch(shape, path) for path in known), f"{pattern} is not in the table"


@pytest.fixture
def place(cast: Cast, make_person: Any, make_unit: Any) -> tuple[dict[str, Any], Release]:
    """A release in review, all around it, and everybody who could look."""
    job = finished_job(cast)
    Intake.objects.create(
        version=job.version, object_name="0" * 64, sha256="c" * 64, bytes=7,
        uploaded_by=cast.steward, uploaded_at=timezone.now(), destroy_after=timezone.now(),
    )  # fmt: skip
    release = actions.propose(by=cast.applicant, job=job)
    people: dict[str, Person | None] = {
        "visitor": None,
        "stranger": cast.stranger,
        "applicant": cast.applicant,
        "analyst": cast.analyst,
        "committee": cast.committee[0],
        "reviewer": cast.reviewers[0],
        "colleague": make_person("near@company.example", "reviewer", unit=cast.applicant.unit),
        "steward": cast.steward,
        "neighbour": make_person("other@hospital.example", "steward", unit=cast.steward.unit),
        "officer": cast.officer,
        "auditor": cast.auditor,
        "administrator": cast.administrator,
    }
    return people, release


def test_who_reads_what(place: tuple[dict[str, Any], Release], api: Api) -> None:
    people, release = place
    job = release.job
    ids = {
        "administrator": people["administrator"].pk,
        "request": job.grant.request_id,
        "document": job.grant.request.documents.get().pk,
        "grant": job.grant_id,
        "submission": job.submission_id,
        "job": job.pk,
        "release": release.pk,
    }
    clients = {name: api(person) for name, person in people.items()}
    wrong = []
    for path, row in TABLE.items():
        for name, expected in zip(PEOPLE, row.split(), strict=True):
            got = clients[name].get("/api/v1/" + path.format(**ids)).status_code
            if str(got) != expected:
                wrong.append(f"{path} by {name}: {got}, not {expected}")
    assert not wrong, "\n".join(wrong)


def test_code_is_null_for_who_may_not_read_it(
    place: tuple[dict[str, Any], Release], api: Api
) -> None:
    people, release = place
    path = f"/api/v1/submissions/{release.job.submission_id}"
    code = ("manifest", "manifest_text", "files", "archive_sha256", "archive_bytes")
    for name in ("colleague", "administrator"):
        seen = api(people[name]).get(path).json()
        assert {seen[field] for field in code} == {None}, name
    for name in ("applicant", "analyst", "reviewer", "steward", "auditor"):
        seen = api(people[name]).get(path).json()
        assert all(seen[field] for field in code), name


def test_the_time_of_an_inspection_is_rounded(
    place: tuple[dict[str, Any], Release], api: Api
) -> None:
    people, release = place
    client = api(people["applicant"])
    for found in (
        client.get(f"/api/v1/jobs/{release.job_id}/inspection").json(),
        client.get(f"/api/v1/releases/{release.pk}").json()["inspection"],
    ):
        assert re.search(r":00(Z|[+]\d\d:00)$", found["at"])


def test_an_empty_upload_is_no_document(cast: Cast, api: Api) -> None:
    draft = cast.draft()
    file = SimpleUploadedFile("a.pdf", io.BytesIO().getvalue())
    answer = api(cast.applicant).post(f"/api/v1/requests/{draft.pk}/documents", {"file": file})
    assert answer.status_code == 400
