"""Pages of jobs: who sees what of a job, that it moves by itself, that what it says is inert."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from PIL import Image

from portal.accounts.models import Person
from portal.audit.models import Event
from portal.jobs import storage
from portal.jobs.figures import Figure, drawing, official_figures
from portal.jobs.models import Inspection, Job, Tick
from portal.releases import actions as releases
from tests.portal.cast import Cast
from tests.portal.jobs.material import submission, submitted
from tests.portal.releases.finished import blocked, finish, finished_job

pytestmark = pytest.mark.django_db
SignIn = Callable[[Person], Client]


def words(response: Any) -> str:
    return str(response.content.decode())


def upload(content: bytes) -> SimpleUploadedFile:
    return SimpleUploadedFile("submission.zip", content, "application/zip")


def proposed(cast: Cast, *findings: dict[str, Any]) -> Job:
    """Return a finished job whose release is with the reviewers."""
    job = finished_job(cast, *findings)
    releases.propose(by=cast.applicant, job=job)
    return job


def test_a_submission_is_handed_in(browse: SignIn, cast: Cast) -> None:
    grant = cast.granted()
    mine = browse(cast.applicant)
    assert mine.get(reverse("job-new")).status_code == 200
    answer = mine.post(
        reverse("job-new"), {"grant": grant.pk, "archive": upload(submission().getvalue())}
    )
    job = Job.objects.get()
    assert answer.url == reverse("job", args=[job.pk])
    assert job.state == "submitted"


def test_a_wrong_manifest_is_answered_with_the_field_s_name(browse: SignIn, cast: Cast) -> None:
    grant = cast.granted()
    wrong = submission(more='[model]\nbuild = "model:build"\nbiuld = 1').getvalue()
    answer = browse(cast.applicant).post(
        reverse("job-new"), {"grant": grant.pk, "archive": upload(wrong)}
    )
    assert answer.status_code == 400
    assert "<code>model.biuld</code>" in words(answer)
    assert not Job.objects.exists()


def test_a_file_that_is_no_zip_is_said_beside_the_field(browse: SignIn, cast: Cast) -> None:
    grant = cast.granted()
    answer = browse(cast.applicant).post(
        reverse("job-new"), {"grant": grant.pk, "archive": upload(b"not a zip")}
    )
    assert answer.status_code == 400
    assert 'id="id_archive_error"' in words(answer)


def test_another_s_grant_is_refused_by_rule_and_recorded(browse: SignIn, cast: Cast) -> None:
    grant = cast.granted()
    answer = browse(cast.stranger).post(
        reverse("job-new"), {"grant": grant.pk, "archive": upload(submission().getvalue())}
    )
    assert answer.status_code == 403
    assert Event.objects.filter(action="submission.upload.refused").exists()


@pytest.mark.parametrize("number", ["²", "9" * 5000, "-1", "x"])
def test_a_grant_that_is_no_number_is_said_beside_the_field(
    number: str, browse: SignIn, cast: Cast
) -> None:
    answer = browse(cast.applicant).post(
        reverse("job-new"), {"grant": number, "archive": upload(submission().getvalue())}
    )
    assert answer.status_code == 400


def test_strangers_find_no_job(browse: SignIn, cast: Cast) -> None:
    job = submitted(cast)
    stranger = browse(cast.stranger)
    assert stranger.get(reverse("job", args=[job.pk])).status_code == 404
    assert stranger.get(reverse("job-live", args=[job.pk])).status_code == 404
    assert "quick" not in words(stranger.get(reverse("jobs")))


def test_the_page_says_in_words_why_a_job_waits(browse: SignIn, cast: Cast) -> None:
    job = submitted(cast)
    Job.objects.filter(pk=job.pk).update(
        state="queued", waiting="memory", waiting_facts={"wanted": 1 << 30, "free": 1 << 29}
    )
    page = words(browse(cast.applicant).get(reverse("job", args=[job.pk])))
    assert "It waits for memory: 1Gi are asked for, 512Mi are free now." in page
    assert 'hx-trigger="every 2s"' in page


def test_the_moving_part_says_nothing_until_something_has_changed(
    browse: SignIn, cast: Cast
) -> None:
    job = submitted(cast)
    mine, address = browse(cast.applicant), reverse("job-live", args=[job.pk])
    first = mine.get(address)
    seen = first.context["seen"]
    assert mine.get(address, {"seen": seen}).status_code == 204
    Tick.objects.create(job=job, sequence=1, step=7, values={"loss": 0.5}, bits=1)
    changed = mine.get(address, {"seen": seen})
    assert changed.status_code == 200
    assert "<polyline" in words(changed)
    finish(job)
    over = mine.get(address, {"seen": seen})
    assert over.status_code == 286  # HTMX's word for: do not ask again
    assert over["HX-Refresh"] == "true"


def test_curves_are_the_analysts_not_the_administrator_s(browse: SignIn, cast: Cast) -> None:
    job = submitted(cast)
    Tick.objects.create(job=job, sequence=1, step=7, values={"loss": 0.125}, bits=1)
    address = reverse("job", args=[job.pk])
    assert "0.125" in words(browse(cast.analyst).get(address))
    assert "0.125" not in words(browse(cast.administrator).get(address))


def test_a_fault_shows_type_file_and_line_only(browse: SignIn, cast: Cast) -> None:
    job = submitted(cast)
    Job.objects.filter(pk=job.pk).update(
        state="failed", reason="exit", fault_type="ValueError", fault_file="train.py", fault_line=12
    )
    page = words(browse(cast.applicant).get(reverse("job", args=[job.pk])))
    assert "<code>ValueError</code> in <code>train.py</code>, line 12" in page
    assert "Your program ended with an error." in page
    assert "For who examines" not in page


def test_cancelling_and_who_may_not(browse: SignIn, cast: Cast) -> None:
    job = submitted(cast)
    address = reverse("job-cancel", args=[job.pk])
    assert browse(cast.stranger).post(address).status_code == 403
    assert Event.objects.filter(action="job.cancel.refused").exists()
    mine = browse(cast.applicant)
    assert mine.get(address).status_code == 405
    mine.post(address)
    job.refresh_from_db()
    assert (job.state, job.reason) == ("stopped", "cancelled")
    assert mine.post(address).status_code == 302  # a second press is a message, not an error


def test_official_figures_stand_beside_their_targets(browse: SignIn, cast: Cast) -> None:
    job = proposed(cast)
    Inspection.objects.filter(job=job).update(
        official={
            "patient": {
                "auc": {"value": 0.91, "low": 0.87, "high": 0.95},
                "sensitivity": {"value": 0.82, "low": 0.7, "high": 0.9},
                "specificity": {"value": 0.6, "low": 0.5, "high": 0.7},
                "accuracy": None,
            }
        }
    )
    address = reverse("job", args=[job.pk])
    assert "0.910" not in words(browse(cast.applicant).get(address))  # until it is released
    page = words(browse(cast.reviewers[0]).get(address))
    for text in ("0.910", "0.870 – 0.950", "≥ 0.85", "≥ 0.80", "suppressed: too few subjects"):
        assert text in page
    assert page.count("reached, but the interval goes below") == 1
    assert page.count("not reached") == 1


@pytest.mark.parametrize(
    ("low", "value", "look"), [(0.81, 0.9, "good"), (0.79, 0.9, "warn"), (0.6, 0.79, "bad")]
)
def test_a_figure_is_judged_by_its_interval(low: float, value: float, look: str) -> None:
    figure = Figure("by patient", "Sensitivity", value, low, 0.95, 0.8)
    assert figure.judged == look
    assert "style" not in drawing(figure)


def test_figures_without_enough_subjects_and_by_class_are_read() -> None:
    rows = official_figures(
        {"patient": {"auc": None}, "classes": {"2": {"image": {"auc": {"value": 1, "low": 1,
                                                                      "high": 1}}}}}
    )  # fmt: skip
    assert [(row.value, row.level) for row in rows] == [
        (None, "by patient"),
        (1, "class 2, by image"),
    ]
    assert rows[1].target is None


def test_a_blocked_job_says_why_and_offers_no_proposal(browse: SignIn, cast: Cast) -> None:
    job = finished_job(cast, blocked(hard=True))
    page = words(browse(cast.applicant).get(reverse("job", args=[job.pk])))
    assert "The inspection found what is never released" in page
    assert "The weights hold training pictures." in page
    assert reverse("release-new", args=[job.pk]) not in page


@pytest.mark.parametrize("name", ["job-log", "job-internal"])
def test_log_and_internal_findings_are_for_who_examines(
    browse: SignIn, cast: Cast, name: str
) -> None:
    job = proposed(cast)
    for person in (cast.applicant, cast.stranger, cast.administrator, cast.committee[0]):
        assert browse(person).get(reverse(name, args=[job.pk])).status_code == 403
    answer = browse(cast.reviewers[0]).get(reverse(name, args=[job.pk]))
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    action = {"job-log": "job.log.read", "job-internal": "inspection.internal.read"}[name]
    assert Event.objects.filter(action=action).count() == 1
    assert Event.objects.filter(action=f"{action}.refused").count() == 4


def test_reviewers_see_nothing_before_a_proposal(browse: SignIn, cast: Cast) -> None:
    job = finished_job(cast)
    assert browse(cast.reviewers[0]).get(reverse("job-log", args=[job.pk])).status_code == 403


def test_a_log_is_inert_text(browse: SignIn, cast: Cast) -> None:
    job = proposed(cast)
    raw = "<script>alert(1)</script> \x1b[2J\x1b]0;title\x07 \u202eevil\r\nnext\x00\n"
    kept = storage.keep(io.BytesIO(raw.encode()), context=storage.log_context(job.pk))
    Job.objects.filter(pk=job.pk).update(
        log_object=kept.object_name, log_key=kept.wrapped_key, log_bytes=len(raw)
    )
    page = words(browse(cast.reviewers[0]).get(reverse("job-log", args=[job.pk])))
    assert "&lt;script&gt;alert(1)&lt;/script&gt; ␛[2J␛]0;title␇" in page
    for bad in ("<script>alert", "\x1b", "\x07", "\x00", "\u202e"):
        assert bad not in page


def test_internal_parts_are_inert_rows(browse: SignIn, cast: Cast) -> None:
    job = proposed(cast)
    finding = {
        **blocked(),
        "internal": {"samples": [{"sample": "s001/1.png", "hits": [{"offset": 4}]}],
                     "note": "<img src=x>\x1b[1m"},
    }  # fmt: skip
    kept = storage.keep(
        io.BytesIO(json.dumps([finding]).encode()), context=storage.report_context(job.pk)
    )
    Inspection.objects.filter(job=job).update(
        internal_object=kept.object_name, internal_key=kept.wrapped_key
    )
    page = words(browse(cast.reviewers[0]).get(reverse("job-internal", args=[job.pk])))
    assert "samples[1].hits[1].offset" in page and "s001/1.png" in page
    assert "<img src=x>" not in page and "\x1b" not in page


def test_pictures_of_findings_are_shown_to_who_examines_and_nothing_else_as_one(
    browse: SignIn, cast: Cast
) -> None:
    image = io.BytesIO()
    Image.new("L", (4, 4)).save(image, "PNG")
    png = base64.b64encode(image.getvalue()).decode()
    job = proposed(cast)
    finding = {
        **blocked(),
        "internal": {
            "pictures": [
                {"title": "<b>slug/s1.png", "png": png},
                {"title": "broken out", "png": png[:40] + '"><script>alert(1)</script>'},
                {"title": "no picture", "png": base64.b64encode(b"<svg onload=x>" * 9).decode()},
                "no entry",
            ]
        },
    }
    kept = storage.keep(
        io.BytesIO(json.dumps([finding]).encode()), context=storage.report_context(job.pk)
    )
    Inspection.objects.filter(job=job).update(
        internal_object=kept.object_name, internal_key=kept.wrapped_key
    )
    page = words(browse(cast.reviewers[0]).get(reverse("job-internal", args=[job.pk])))
    assert f"data:image/png;base64,{png}" in page
    assert page.count("data:image/png;base64,") == 1
    assert "&lt;b&gt;slug/s1.png" in page
    assert "alert(1)" not in page


def test_code_is_listed_by_line_with_the_scan_s_advice_for_who_examines(
    browse: SignIn, cast: Cast
) -> None:
    code = "import socket\nprint('<b>hello</b>')\n# \x1b[31m\n"
    job = finish(submitted(cast, code=code))
    job.submission.advice = [
        {"file": "train.py", "line": 1, "rule": "network", "message": "uses the network, so"}
    ]
    job.submission.save()
    releases.propose(by=cast.applicant, job=job)
    address = reverse("submission-code", args=[job.submission_id])
    seen = words(browse(cast.reviewers[0]).get(address))
    assert "train.py:1" in seen and 'class="pointed"' in seen
    assert "&lt;b&gt;hello" in seen and "<b>hello" not in seen
    assert "\x1b" not in seen
    own = words(browse(cast.applicant).get(address))
    assert "print(" in own and "uses the network" not in own
    assert browse(cast.stranger).get(address).status_code == 403
    assert Event.objects.filter(action="submission.read").count() == 2
    assert Event.objects.filter(action="submission.read.refused").count() == 1


def test_the_archive_is_an_attachment(browse: SignIn, cast: Cast) -> None:
    job = submitted(cast)
    address = reverse("submission-archive", args=[job.submission_id])
    answer = browse(cast.applicant).get(address)
    assert answer["Content-Disposition"].startswith("attachment")
    assert b"".join(answer.streaming_content).startswith(b"PK")


def test_a_part_is_given_to_a_page_that_asks_for_it(browse: SignIn, cast: Cast) -> None:
    job = proposed(cast)
    reviewer, address = browse(cast.reviewers[0]), reverse("job-log", args=[job.pk])
    part = words(reviewer.get(address, headers={"HX-Request": "true"}))
    assert "<html" not in part
    assert "<html" in words(reviewer.get(address))


def test_what_waits_counts_finished_jobs_without_a_release(cast: Cast) -> None:
    from portal.jobs.waiting import waiting_for

    job = finished_job(cast)
    assert [one.count for one in waiting_for(cast.applicant)] == [1]
    assert [one.count for one in waiting_for(cast.stranger)] == [0]
    releases.propose(by=cast.applicant, job=job)
    assert [one.count for one in waiting_for(cast.applicant)] == [0]
