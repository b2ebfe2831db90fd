"""What only who examines a job may read: code, log, internal findings. Each reading is recorded."""

from __future__ import annotations

import json
import re
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import FileResponse, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from portal.access.api import attachment
from portal.catalog.queries import policy_of
from portal.jobs import queries
from portal.jobs.code_diff import DiffFile, differences
from portal.jobs.code_listing import listing
from portal.jobs.models import Job, Submission
from portal.pages.reader import reader

#: Base64 of a PNG: its first eight bytes, and no letter that ends an attribute.
PNG = re.compile(r"iVBORw0KGg[A-Za-z0-9+/]{20,400000}={0,2}")
MOST_PICTURES = 12


def _any_job(pk: int) -> Job:
    """Return any job: reading what is not for one is refused by rule and recorded."""
    return get_object_or_404(
        Job.objects.select_related(
            "submission__submitter__unit__organisation", "grant", "version__dataset__steward"
        ),
        pk=pk,
    )


@require_safe
@login_required
@cache_control(no_store=True)
def log(request: HttpRequest, pk: int) -> HttpResponse:
    """The raw log as inert text."""
    job = _any_job(pk)
    text = queries.read_log(by=reader(request), job=job)
    return _page(request, "jobs/log.html", {"job": job, "log": text})


@require_safe
@login_required
@cache_control(no_store=True)
def internal(request: HttpRequest, pk: int) -> HttpResponse:
    """All findings with their internal parts: names, places, samples."""
    job = _any_job(pk)
    found = json.loads(queries.internal_findings(by=reader(request), job=job))
    for number, finding in enumerate(found, start=1):
        finding["number"] = number
        inside = finding.get("internal", {})
        finding["pictures"] = drawn(inside.pop("pictures", []))
        finding["rows"] = list(flat(inside))
    return _page(request, "jobs/internal.html", {"job": job, "findings": found})


@require_safe
@login_required
@cache_control(no_store=True)
def code(request: HttpRequest, pk: int) -> HttpResponse:
    """The submission's files by line, with the static scan's advice for who examines."""
    person = reader(request)
    submission = get_object_or_404(
        Submission.objects.select_related("grant__version__dataset"), pk=pk
    )
    stream = queries.open_code(by=person, submission=submission)
    jobs = submission.jobs.order_by("-pk")
    examines = any(queries.may_examine(job, person) for job in jobs)
    advice = submission.advice if examines else None
    files = listing(stream, advice, policy_of(submission.grant.version.dataset))
    context = {
        "submission": submission,
        "job": jobs[0],
        "files": files,
        "advice": advice,
        "examines": examines,
    }
    return _page(request, "jobs/code.html", context)


@require_safe
@login_required
@cache_control(no_store=True)
def changes(request: HttpRequest, pk: int) -> HttpResponse:
    """What changed since the organisation's last released submission on this dataset."""
    person = reader(request)
    submission = get_object_or_404(
        Submission.objects.select_related("grant__version__dataset", "grant__unit"), pk=pk
    )
    policy = policy_of(submission.grant.version.dataset)
    new = listing(queries.open_code(by=person, submission=submission), None, policy)
    before, kept = queries.released_before(submission), False
    found: list[DiffFile] = []
    if before is not None and not queries.may_read_code(before, person):
        before, kept = None, True
    if before is not None:
        old = listing(queries.open_code(by=person, submission=before), None, policy)
        found = differences(old, new)
    context = {
        "submission": submission,
        "job": submission.jobs.order_by("-pk")[0],
        "before": before,
        "kept": kept,
        "files": [file for file in found if file.kind != "same"],
        "same": sum(file.kind == "same" for file in found),
    }
    return _page(request, "jobs/changes.html", context)


@require_safe
@login_required
def archive(request: HttpRequest, pk: int) -> FileResponse:
    """The archive itself, as an attachment."""
    submission = get_object_or_404(Submission.objects.all(), pk=pk)
    stream = queries.open_code(by=reader(request), submission=submission)
    return attachment(stream, f"submission-{submission.pk}.zip")


def _page(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    """Render a page of its own, or only its inside where another page asks for it."""
    whole = request.headers.get("HX-Request") != "true"
    frame = "working.html" if whole else "parts/inside.html"
    return render(request, template, {**context, "frame": frame, "whole": whole})


def drawn(given: Any) -> list[dict[str, str]]:
    """Return the pictures of a finding: title, and a PNG as base64 that is nothing else."""
    found = []
    for each in given if isinstance(given, list) else []:
        png = each.get("png") if isinstance(each, dict) else None
        if isinstance(png, str) and PNG.fullmatch(png):
            found.append({"title": str(each.get("title", ""))[:300], "png": png})
    return found[:MOST_PICTURES]


def flat(value: Any, name: str = "", *, most: int = 200) -> list[tuple[str, str]]:
    """Return nested JSON as (dotted name, value) rows, at most ``most`` of them."""
    rows: list[tuple[str, str]] = []
    if isinstance(value, dict):
        for key, item in value.items():
            rows += flat(item, f"{name}.{key}" if name else str(key), most=most - len(rows))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value, start=1):
            rows += flat(item, f"{name}[{number}]", most=most - len(rows))
    elif isinstance(value, list):
        rows.append((name, ", ".join(str(item) for item in value)))
    else:
        rows.append((name, str(value)))
    return rows[: max(0, most)]
