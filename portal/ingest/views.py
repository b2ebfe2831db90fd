"""A version's originals: upload, start, progress, report, destruction; for steward and auditors."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.views.decorators.http import require_POST, require_safe

from portal.accounts.models import Person
from portal.catalog.models import DatasetVersion
from portal.catalog.queries import versions_for
from portal.ingest import actions, queries, words
from portal.pages.reader import reader

ROWS_A_PAGE = 100
STATUSES = ("written", "quarantined", "failed")
# What an interrupted run or a shard had made before is "unchanged" for the last run; for people
# all of it was written for this version.
WRITTEN = ("written", "unchanged")


def find_version(person: Person, slug: str, number: int) -> DatasetVersion:
    """Return a version that the person may see, or answer 404."""
    return get_object_or_404(versions_for(person), dataset__slug=slug, number=number)


def _progress(version: DatasetVersion) -> dict[str, Any]:
    progress = queries.progress(version)
    counts: Counter[str] = Counter()
    for status, count in progress["counts"].items():
        counts[_status(status)] += count
    return {
        "version": version,
        "progress": progress,
        "counts": [(name, counts[name]) for name in STATUSES],
    }


def _status(status: str) -> str:
    """Return a row's status as people read it."""
    return "written" if status in WRITTEN else status


@login_required
@require_safe
def version(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Show one version to those who work on it."""
    person = reader(request)
    shown = find_version(person, slug, number)
    queries.report_for(person, shown)  # the same readers
    context = {
        **_progress(shown),
        "own": shown.dataset.steward_id == person.pk,
        "signatures": shown.signatures.select_related("officer").order_by("-round"),
        "destructions": [
            (one, words.destroyed(one.what)) for one in shown.destructions.order_by("-at")
        ],
    }
    return render(request, "ingest/version.html", context)


@login_required
@require_safe
def progress(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """The part of the version's page that moves by itself."""
    person = reader(request)
    shown = find_version(person, slug, number)
    queries.report_for(person, shown)
    response = render(request, "ingest/progress.html", _progress(shown))
    if request.GET.get("state") != shown.state:
        # Another state has other buttons: the whole page is asked for again.
        response["HX-Refresh"] = "true"
    return response


@login_required
@require_POST
def start(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Start de-identification."""
    person = reader(request)
    actions.start(by=person, version=find_version(person, slug, number))
    messages.success(request, gettext("De-identification has been asked for."))
    return redirect("version", slug=slug, number=number)


@login_required
@require_safe
def report(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """The report: a row for each original, narrowed by status and reason."""
    person = reader(request)
    shown = find_version(person, slug, number)
    rows = queries.report_for(person, shown)
    status, why = request.GET.get("status", ""), request.GET.get("reason", "")
    reasons = sorted(set(rows.exclude(reason="").values_list("reason", flat=True).distinct()))
    if status in STATUSES:
        rows = rows.filter(status__in=WRITTEN if status == "written" else (status,))
    if why in reasons:
        rows = rows.filter(reason=why)
    page = Paginator(rows, ROWS_A_PAGE).get_page(request.GET.get("page"))
    context = {
        "version": shown,
        "page": page,
        "rows": [
            (row, _status(row.status), words.reason(row.reason), words.changes(row.actions))
            for row in page
        ],
        "status": status,
        "statuses": STATUSES,
        "why": why,
        "reasons": [(code, words.reason(code)) for code in reasons],
    }
    return render(request, "ingest/report.html", context)
