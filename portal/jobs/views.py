"""Pages of jobs: the list, handing in, and a job's own page, which moves by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.utils.translation import gettext, gettext_noop
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from policies.errors import Denied, UserError
from policies.queue import PRIORITIES
from policies.workflow import JOB
from portal.access.models import Grant
from portal.access.queries import grants_usable_by
from portal.accounts.models import Person
from portal.catalog.queries import policy_of
from portal.errors import sentence
from portal.jobs import actions, checkpoints, queries
from portal.jobs.figures import official_figures, rewritten
from portal.jobs.forms import SubmissionForm
from portal.jobs.models import Job
from portal.jobs.reasons import in_words
from portal.jobs.serializers import InspectionSerializer, JobSerializer
from portal.jobs.transitions import LIVE
from portal.pages.buttons import done, pressed
from portal.pages.reader import reader
from portal.pages.steps import drawn
from portal.plain_input import whole_number

A_PAGE = 25
PATH = ("submitted", "checked", "queued", "staging", "running", "collecting", "inspecting",
        "finished")  # fmt: skip
USED: Mapping[str, str] = {
    "cpu": gettext_noop("Processor"),
    "memory": gettext_noop("Memory"),
    "data_wait": gettext_noop("Waiting for data"),
}
PLACES: Mapping[int, str] = {
    -1: gettext_noop("after others"),
    0: gettext_noop("as usual"),
    1: gettext_noop("before others"),
}
# The archive's own form field; every other field that is named lies inside the archive.
ARCHIVE = ("archive", "file", "")


def job_for(person: Person, pk: int) -> Job:
    """Return a job that a person may see, or answer 404."""
    return queries.surround(get_object_or_404(queries.jobs_visible_to(person), pk=pk))


@require_safe
@login_required
def jobs(request: HttpRequest) -> HttpResponse:
    """List the jobs that the reader may see, by state."""
    person = reader(request)
    rows = queries.jobs_visible_to(person)
    state = request.GET.get("state", "")
    if state in JOB.states:
        rows = rows.filter(state=state)
    context = {
        "page": Paginator(queries.listed(rows), A_PAGE).get_page(request.GET.get("page")),
        "state": state,
        "states": JOB.states,
        "may_submit": grants_usable_by(person).exists(),
    }
    return render(request, "jobs/jobs.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def new(request: HttpRequest) -> HttpResponse:
    """Hand a zipped submission in; a wrong manifest is answered with the field's name."""
    person = reader(request)
    grants = grants_usable_by(person).order_by("-pk")
    if request.method != "POST":
        form = SubmissionForm(grants=grants, initial={"grant": request.GET.get("grant")})
        return _form(request, form)
    form = SubmissionForm(request.POST, request.FILES, grants=grants)
    if not form.is_valid():
        _check_grant(request, person)
        return _form(request, form, status=400)
    try:
        job = actions.submit(
            by=person, grant=form.cleaned_data["grant"], stream=form.cleaned_data["archive"].file
        )
    except Denied as error:
        if not error.field:
            raise
        return _refused(request, form, error, status=403)
    except UserError as error:
        return _refused(request, form, error, status=400)
    done(request, gettext("Your submission was taken. It is being checked."))
    return redirect("job", job.pk)


def _check_grant(request: HttpRequest, person: Person) -> None:
    """Refuse by rule, and so record, a grant that exists and is not the reader's to use."""
    number = whole_number(request.POST.get("grant", ""))
    if number and not grants_usable_by(person).filter(pk=number).exists():
        grant = Grant.objects.select_related("version__dataset").filter(pk=number).first()
        upload = request.FILES.get("archive")
        if grant is not None and upload is not None:
            actions.submit(by=person, grant=grant, stream=cast(BinaryIO, upload.file))


def _refused(
    request: HttpRequest, form: SubmissionForm, error: UserError, status: int
) -> HttpResponse:
    form.add_error("archive", sentence(error))
    inside = error.field if error.field not in ARCHIVE else ""
    return _form(request, form, status=status, inside=inside)


def _form(
    request: HttpRequest, form: SubmissionForm, *, status: int = 200, inside: str = ""
) -> HttpResponse:
    grants = form.fields["grant"].queryset  # type: ignore[attr-defined]
    chosen = grants.first()
    context = {
        "form": form,
        "inside": inside,
        "grants": grants,
        "example": chosen.version if chosen else None,
        "policy": policy_of(chosen.version.dataset) if chosen else None,
    }
    return render(request, "jobs/new.html", context, status=status)


@require_safe
@login_required
def one(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a job: where it is, why it waits, its curves, what was found, what may be done."""
    person = reader(request)
    job = job_for(person, pk)
    shown = shown_of(request, job)
    inside, seen = _moving(request, job, shown)
    context = {
        **facts(request, job, shown),
        "inside": inside,
        "seen": seen,
        "is_live": job.state in LIVE,
    }
    return render(request, "jobs/job.html", context)


@require_safe
@login_required
def live(request: HttpRequest, pk: int) -> HttpResponse:
    """The part of a job's page that moves: 204 while nothing has changed, a reload at its end."""
    job = job_for(reader(request), pk)
    if job.state not in LIVE:
        return HttpResponse(status=286, headers={"HX-Refresh": "true"})
    inside, seen = _moving(request, job, shown_of(request, job))
    if request.GET.get("seen") == seen:
        return HttpResponse(status=204)
    return render(request, "jobs/live.html", {"inside": inside, "seen": seen})


def shown_of(request: HttpRequest, job: Job) -> Mapping[str, Any]:
    """Return a job as the API would show it to the reader."""
    data: Mapping[str, Any] = JobSerializer(job, context={"request": request}).data
    return data


def _moving(request: HttpRequest, job: Job, shown: Mapping[str, Any]) -> tuple[str, str]:
    """Return the moving part and a digest of it, by which the page asks for news only."""
    person = reader(request)
    inside = render_to_string("jobs/moving.html", moving_facts(job, person, shown), request)
    return inside, hashlib.sha256(inside.encode()).hexdigest()[:16]


def moving_facts(job: Job, person: Person, shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the moving part shows; ``shown`` is the job as the API would show it."""
    passed = [step.state for step in job.steps.all()]
    return {
        "job": job,
        "shown": shown,
        "steps": drawn(PATH, job.state, reached=_furthest(passed)),
        "waiting": shown["waiting"],
        "reason": in_words(job.state, job.reason),
        "fault": shown["fault"],
        "budget": shown["budget"],
        "curves": curves_of(job) if queries.may_read_numbers(job, person) else None,
    }


def _furthest(states: list[str]) -> str:
    known = [PATH.index(state) for state in states if state in PATH]
    return PATH[max(known)] if known else "submitted"


def curves_of(job: Job) -> list[tuple[str, list[tuple[int, float]]]]:
    """Return the job's curves by name, as (step, value) points."""
    found: dict[str, list[tuple[int, float]]] = {}
    for tick in queries.curves(job):
        for name, value in tick.values.items():
            found.setdefault(name, []).append((tick.step, value))
    return sorted(found.items())


def facts(request: HttpRequest, job: Job, shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job's page shows beside the moving part; ``shown`` is as the API shows it."""
    person = reader(request)
    inspection = getattr(job, "inspection", None)
    report = None
    if inspection is not None and queries.may_read_numbers(job, person):
        report = InspectionSerializer(inspection, context={"request": request}).data
    return {
        "job": job,
        "shown": shown,
        "may": shown["actions"],
        "priorities": priorities_for(job, person),
        "checkpoint": checkpoints.in_words(shown["checkpoint"]),
        "utilisation": [
            (gettext(USED[name]), share) for name, share in (shown["utilisation"] or {}).items()
        ],
        "operator": shown["operator"],
        "report": report,
        # Until reviewers let them out, figures and sizes are for those who examine.
        "sees_figures": queries.may_see_figures(job, person),
        "official": official_figures((report and report["official"]) or {}),
        "rewritten": rewritten(
            (report and report["sanitising"]) or {}, (report and report["official"]) or {}
        ),
        "reported": sorted(((report and report["metrics"]) or {}).items()),
        "releases": sorted(job.releases.all(), key=lambda release: -release.pk),
        "propose_block": _propose_block(job, person),
        "lift": queries.lift_of(job),
        "is_insider": queries.is_insider(job, person),
        "advice": job.submission.advice if shown["operator"] else None,
    }


def priorities_for(job: Job, person: Person) -> list[tuple[int, str]]:
    """Return what a reader may say of a waiting job's place in line, with its words."""
    if job.state not in ("submitted", "checked", "queued"):
        return []
    return [(number, gettext(PLACES[number])) for number in actions.may_prioritise(job, person)]


def _propose_block(job: Job, person: Person) -> str:
    """Return why an analyst may not propose a release of a finished job, "" where they may."""
    if job.state != "finished" or not queries.is_insider(job, person):
        return ""
    blocked = queries.propose_block(job)
    return gettext(blocked) if blocked else ""


@require_POST
@login_required
def prioritise(request: HttpRequest, pk: int) -> HttpResponse:
    """Let a waiting job go before or behind others."""
    person = reader(request)
    job = get_object_or_404(Job.objects.all(), pk=pk)
    words = {str(number): number for number in PRIORITIES}
    if (priority := words.get(request.POST.get("priority", ""))) is None:
        return HttpResponse(status=400)
    said = gettext("The job's place in line was changed.")
    pressed(request, lambda: actions.prioritise(by=person, job=job, priority=priority), said=said)
    return redirect("job", pk)


@require_POST
@login_required
def checkpoint(request: HttpRequest, pk: int) -> HttpResponse:
    """Remove the checkpoint that a job left."""
    person = reader(request)
    job = get_object_or_404(Job.objects.all(), pk=pk)
    said = gettext("The checkpoint was removed.")
    pressed(request, lambda: checkpoints.remove_by(by=person, job=job), said=said)
    return redirect("job", pk)


@require_POST
@login_required
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop a job. Who may not is refused by rule, and it is recorded."""
    person = reader(request)
    job = get_object_or_404(Job.objects.all(), pk=pk)
    said = gettext("The job is being stopped.")
    pressed(request, lambda: actions.cancel(by=person, job=job), said=said)
    return redirect("job", pk)
