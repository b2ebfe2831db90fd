"""From a draft to a downloaded bundle as programs do it, and what they get when they may not."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

import bundle
from portal import keys
from portal.accounts.models import Person
from portal.audit.models import Event
from portal.jobs.models import Job, Submission
from portal.releases import tasks
from tests.portal.cast import PDF, Cast
from tests.portal.jobs.material import QUICK, archive, submission, training
from tests.portal.releases.finished import blocked, finish

pytestmark = pytest.mark.django_db
SignIn = Callable[[Person | None], APIClient]


def ok(response, status: int = 200):
    assert response.status_code == status, response.content
    return response.json() if response["Content-Type"].startswith("application/json") else response


def upload(stream: io.BytesIO, name: str = "submission.zip") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, stream.getvalue())


def test_the_main_job_over_http(cast: Cast, api: SignIn, tmp_path: Path) -> None:
    company = api(cast.applicant)
    # The request.
    given = {"dataset": "mammography", "answers": cast.answers}
    request = ok(company.post("/api/v1/requests", given, format="json"), 201)
    assert set(request["actions"]) == {"submit", "withdraw", "edit"}
    at = f"/api/v1/requests/{request['id']}"
    refused = ok(company.post(f"{at}/submit"), 400)
    assert refused["error"]["field"] == "ethics_document"
    document = ok(company.post(f"{at}/documents", {"file": upload(io.BytesIO(PDF), "a.pdf")}), 201)
    assert ok(company.post(f"{at}/submit"))["state"] == "in_review"
    # The document leaves as an attachment only.
    answer = api(cast.committee[0]).get(f"{at}/documents/{document['id']}")
    assert b"".join(answer.streaming_content) == PDF
    assert answer["Content-Disposition"].startswith("attachment")
    assert answer["Content-Type"] == "application/octet-stream"
    assert "no-store" in answer["Cache-Control"]
    # The committee.
    for member in cast.committee:
        client = api(member)
        seen = ok(client.get(at))
        assert "vote" in seen["actions"]
        ballot = {"choice": "approve", "bound_to": seen["bound_to"]}
        ok(client.post(f"{at}/votes", ballot, format="json"), 201)
    assert ok(company.get(at))["actions"] == ["sign_agreement"]
    # The grant.
    agreement = ok(company.get("/api/v1/agreements"))["results"][0]
    signature = {"agreement": agreement["id"], "typed_name": cast.applicant.name}
    grant = ok(company.post(f"{at}/sign-agreement", signature, format="json"), 201)
    assert [g["id"] for g in ok(company.get("/api/v1/grants?usable=1"))["results"]] == [grant["id"]]
    # The submission.
    form = {"grant": grant["id"], "file": upload(training())}
    made = ok(company.post("/api/v1/submissions", form), 201)
    job = made["job"]["id"]
    assert made["submission"]["advice"] is None
    seen = ok(company.get(f"/api/v1/jobs/{job}"))
    assert (seen["state"], seen["waiting"]["code"], seen["operator"]) == (
        "submitted",
        "check",
        None,
    )
    ok(company.get(f"/api/v1/jobs/{job}/inspection"), 404)
    finish(Job.objects.get(pk=job))
    assert ok(company.get(f"/api/v1/jobs/{job}/inspection"))["verdict"] == "pass"
    # The release.
    # What the job could choose freely waits for the reviewers: figures, sizes, digests, times.
    report = ok(company.get(f"/api/v1/jobs/{job}/inspection"))
    assert (report["metrics"], report["official"], report["report_sha256"]) == (None, None, None)
    seen = ok(company.get(f"/api/v1/jobs/{job}"))
    assert {artefact["bytes"] for artefact in seen["artefacts"]} == {None}
    assert re.search(r":00(Z|[+]\d\d:00)$", seen["state_since"])
    assert "propose" in seen["actions"]
    release = ok(company.post("/api/v1/releases", {"job": job, "note": "x"}, format="json"), 201)
    there = f"/api/v1/releases/{release['id']}"
    assert (release["voting"]["bound_to"], release["artefacts"][0]["sha256"]) == ("", None)
    for reviewer in cast.reviewers[:2]:
        client = api(reviewer)
        seen = ok(client.get(there))
        assert seen["voting"]["votes"] == []
        assert ok(client.get(f"/api/v1/jobs/{job}"))["operator"]["backend"] == "bubblewrap"
        ok(client.get(f"/api/v1/jobs/{job}/log"))
        ballot = {
            "choice": "approve",
            "bound_to": seen["voting"]["bound_to"],
            "looked_at": [line["name"] for line in seen["checklist"]],
        }
        ok(client.post(f"{there}/votes", ballot, format="json"), 201)
    assert ok(company.get(there))["state"] == "approved"
    tasks.build(release["id"])
    assert ok(company.get(f"{there}/bundle"))["ready"]
    report = ok(company.get(f"/api/v1/jobs/{job}/inspection"))
    assert report["metrics"] == {"loss": 0.1}
    # The download.
    link = ok(company.post(f"{there}/link"), 201)
    path = "/api/v1/downloads/" + link["token"]
    assert link["url"].endswith(path)
    assert api(cast.analyst).get(path).status_code == 403
    assert company.head(path).status_code == 405
    answer = company.get(path)
    target = tmp_path / "bundle.zip"
    target.write_bytes(b"".join(answer.streaming_content))
    assert answer["Content-Disposition"].startswith("attachment")
    assert bundle.verify(target, keys.public_keys("release").values()).held
    again = ok(company.get(path), 403)
    assert again["error"]["code"] == "download.used"
    ok(company.get("/api/v1/downloads/guess"), 404)
    assert Event.objects.filter(action="download.refused").count() == 2


def test_strangers_see_nothing(cast: Cast, api: SignIn) -> None:
    grant = cast.granted()
    made = ok(
        api(cast.applicant).post(
            "/api/v1/submissions", {"grant": grant.pk, "file": upload(submission())}
        ),
        201,
    )
    stranger = api(cast.stranger)
    for place in ("requests", "grants", "jobs", "releases"):
        assert ok(stranger.get(f"/api/v1/{place}"))["results"] == []
    job, row = made["job"]["id"], made["submission"]["id"]
    for path in (
        f"requests/{grant.request_id}",
        f"grants/{grant.pk}",
        f"jobs/{job}",
        f"jobs/{job}/curves",
        f"submissions/{row}",
    ):
        assert stranger.get(f"/api/v1/{path}").status_code == 404, path
    for path in (
        f"jobs/{job}/log",
        f"jobs/{job}/inspection/internal",
        f"submissions/{row}/archive",
    ):
        assert stranger.get(f"/api/v1/{path}").status_code == 403, path
    nobody = api(None)
    assert nobody.get("/api/v1/jobs").status_code in (401, 403)
    # What is for everybody is for everybody.
    for path in ("agreements", "request-fields", "service-levels"):
        ok(nobody.get(f"/api/v1/{path}"))
    assert nobody.get("/api/v1/revocations").status_code == 204


def test_an_administrator_runs_the_machine_and_reads_nothing(cast: Cast, api: SignIn) -> None:
    grant = cast.granted()
    form = {"grant": grant.pk, "file": upload(submission())}
    job = ok(api(cast.applicant).post("/api/v1/submissions", form), 201)["job"]["id"]
    client = api(cast.administrator)
    seen = ok(client.get(f"/api/v1/jobs/{job}"))
    assert (seen["operator"], seen["fault"], seen["budget"]) == (None, None, None)
    for what in ("curves", "log", "inspection", "inspection/internal"):
        assert client.get(f"/api/v1/jobs/{job}/{what}").status_code == 403
    assert client.get(f"/api/v1/submissions/{made_submission(job)}/archive").status_code == 403
    assert ok(client.get("/api/v1/requests"))["results"] == []


def made_submission(job: int) -> int:
    return Job.objects.values_list("submission", flat=True).get(pk=job)


def test_reviewers_read_code_only_once_a_release_is_proposed(cast: Cast, api: SignIn) -> None:
    grant = cast.granted()
    form = {"grant": grant.pk, "file": upload(submission())}
    job = ok(api(cast.applicant).post("/api/v1/submissions", form), 201)["job"]["id"]
    reviewer = api(cast.reviewers[0])
    path = f"/api/v1/submissions/{made_submission(job)}/archive"
    assert reviewer.get(path).status_code == 403
    assert reviewer.get(f"/api/v1/jobs/{job}").status_code == 404
    finish(Job.objects.get(pk=job))
    ok(api(cast.applicant).post("/api/v1/releases", {"job": job}, format="json"), 201)
    assert reviewer.get(path).status_code == 200
    # One of the applicant's own unit is no reviewer of this.
    Person.objects.filter(pk=cast.reviewers[1].pk).update(unit=cast.applicant.unit)
    colleague = api(Person.objects.get(pk=cast.reviewers[1].pk))
    assert colleague.get(path).status_code == 403
    assert Event.objects.filter(action="submission.read").count() == 1


def test_what_is_blocked_says_why(cast: Cast, api: SignIn) -> None:
    grant = cast.granted()
    form = {"grant": grant.pk, "file": upload(submission())}
    client = api(cast.applicant)
    job = ok(client.post("/api/v1/submissions", form), 201)["job"]["id"]
    finish(Job.objects.get(pk=job), blocked(hard=True))
    answer = ok(client.post("/api/v1/releases", {"job": job}, format="json"), 409)
    assert answer["error"]["code"] == "release.blocked"
    [finding] = ok(client.get(f"/api/v1/jobs/{job}/inspection"))["findings"]
    assert (finding["severity"], finding["hard"]) == ("block", True)
    assert "propose" not in ok(client.get(f"/api/v1/jobs/{job}"))["actions"]


@pytest.mark.parametrize(
    ("form", "status", "field"),
    [
        ({}, 400, "grant"),
        ({"grant": 999, "file": b"PK"}, 403, "grant"),
        ({"grant": "own", "file": b"no zip"}, 400, "archive"),
        ({"grant": "own", "file": archive({"train.py": QUICK}).getvalue()}, 400, "glovebox.toml"),
    ],
)
def test_bad_uploads_name_the_field(
    cast: Cast, api: SignIn, form: dict, status: int, field: str
) -> None:
    grant = cast.granted()
    if form.get("grant") == "own":
        form = {**form, "grant": grant.pk}
    if "file" in form:
        form = {**form, "file": SimpleUploadedFile("s.zip", form["file"])}
    answer = ok(api(cast.applicant).post("/api/v1/submissions", form), status)
    assert answer["error"]["field"] == field
    assert not Submission.objects.exists()


def test_a_vote_by_who_may_not_is_403_with_the_rule(cast: Cast, api: SignIn) -> None:
    request = cast.submitted()
    ballot = {"choice": "approve", "bound_to": request.bound_to}
    for person in (cast.stranger, cast.applicant, cast.administrator, cast.reviewers[0]):
        client = api(person)
        answer = ok(client.post(f"/api/v1/requests/{request.pk}/votes", ballot, format="json"), 403)
        assert answer["error"]["message"].endswith(".")
    assert Event.objects.filter(action="request.vote.refused").count() == 4
    # A draft is nobody's to vote on, and its number tells nothing.
    draft = cast.draft()
    url = f"/api/v1/requests/{draft.pk}/votes"
    assert api(cast.committee[0]).post(url, ballot, format="json").status_code == 404
