"""Pages of releases: the list, proposing, and the one screen on which reviewers decide."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from policies.access import can_get
from policies.errors import Conflict, Denied, UserError
from policies.workflow import RELEASE
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.catalog.queries import policy_of
from portal.errors import sentence
from portal.jobs import queries as jobs
from portal.jobs.models import Job
from portal.jobs.views import curves_of, facts, job_for, shown_of
from portal.pages.buttons import done, pressed, refused
from portal.pages.reader import reader
from portal.pages.steps import drawn
from portal.releases import actions, queries
from portal.releases.evidence import ledger_after
from portal.releases.forms import (
    AgainForm,
    NameForm,
    ProposalForm,
    ReviewForm,
    RevocationForm,
)
from portal.releases.models import Release
from portal.releases.review import ledger_rows, looked_for, notice_words
from portal.releases.serializers import bundle_facts
from portal.voting.pages import shown

A_PAGE = 25
PATH = ("proposed", "in_review", "approved", "released")
HISTORY = 20


def release_for(person: Person, pk: int) -> Release:
    """Return a release that a person may read, or answer 404."""
    return get_object_or_404(queries.releases_visible_to(person), pk=pk)


@require_safe
@login_required
def releases(request: HttpRequest) -> HttpResponse:
    """List the releases that the reader may read, by state."""
    person = reader(request)
    rows = queries.releases_visible_to(person)
    state = request.GET.get("state", "")
    if state in RELEASE.states:
        rows = rows.filter(state=state)
    context = {
        "page": Paginator(queries.listed(rows), A_PAGE).get_page(request.GET.get("page")),
        "state": state,
        "states": RELEASE.states,
        "roles": roles_of(person),
    }
    return render(request, "releases/releases.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def new(request: HttpRequest, job: int) -> HttpResponse:
    """Propose that what a finished job left may leave."""
    person = reader(request)
    row = job_for(person, job)
    form = ProposalForm(request.POST or None)
    status = 200
    if request.method == "POST":
        if form.is_valid():
            try:
                release = actions.propose(
                    by=person,
                    job=row,
                    note=form.cleaned_data["note"],
                    conflict=form.cleaned_data["conflict_declared"],
                    proprietary=form.cleaned_data["proprietary"],
                )
            except Denied:
                raise
            except UserError as error:
                form.add_error(error.field if error.field in form.fields else None, sentence(error))
            else:
                done(request, gettext("Proposed. It is with the reviewers."))
                return redirect("release", release.pk)
        status = 400
    live = row.releases.exclude(state__in=("rejected", "withdrawn", "revoked")).first()
    if live is not None and request.method != "POST":
        return redirect("release", live.pk)
    context = {
        **facts(request, row, shown_of(request, row)),
        "form": form,
        "artefacts": queries.leaving(row, weights=_gives_weights(row)),
        "gives_weights": _gives_weights(row),
    }
    return render(request, "releases/new.html", context, status=status)


def _gives_weights(job: Job) -> bool:
    return can_get(job.grant.purpose, "weights", policy_of(job.version.dataset))


@require_safe
@login_required
def one(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one release: to reviewers everything on one screen, to the applicant where it stands."""
    return page_of(request, release_for(reader(request), pk))


def page_of(
    request: HttpRequest,
    row: Release,
    *,
    review_form: Form | None = None,
    revocation_form: Form | None = None,
    proposal_form: Form | None = None,
    link: dict[str, Any] | None = None,
    status: int = 200,
) -> HttpResponse:
    """Render a release's page."""
    person, row = reader(request), queries.surround(row)
    voting = queries.voting_for(row, person)
    examines = jobs.may_examine(row.job, person)
    of_job = facts(request, row.job, shown_of(request, row.job))
    findings = of_job["report"]["findings"] if of_job["report"] else []
    decides = bool(roles_of(person) & {"reviewer", "auditor", "steward"})
    insider = jobs.is_insider(row.job, person)
    may = queries.actions_for(row, person)
    queries.note_view(row, person)
    context: dict[str, Any] = {
        **of_job,
        "row": row,
        "steps": drawn(PATH, row.state, reached=_reached(row)),
        "artefacts": sorted(row.artefacts.all(), key=lambda artefact: artefact.path),
        "looked": looked_for(findings),
        "ledger": ledger_rows(row.ledger_before, row.ledger_after or ledger_after(row)),
        "ledger_final": bool(row.ledger_after),
        "curves": _curves(row, person),
        "history": queries.history_of(row)[:HISTORY] if examines else [],
        "examines": examines,
        "network": row.job.inspection.sketch
        if examines and not jobs.is_kept_from(row.job, person)
        else {},
        "notices": notice_words(row.notices) if examines else [],
        "insider": insider,
        **shown(
            voting,
            vote_form=review_form
            or ReviewForm(
                initial={"bound_to": voting.bound_to},
                checklist=queries.policy_for(row).review.checklist,
            ),
            page="release",
        ),
        "shows_voting": decides and not insider,
        "changed": row.state == "in_review" and row.bound_to != voting.bound_to,
        "may": may,
        "revocation_form": revocation_form or RevocationForm(),
        "proposal_form": proposal_form
        or AgainForm(initial={"note": row.note, "conflict_declared": row.conflict_declared}),
        "name_form": NameForm(people=queries.may_be_named(row)) if "name" in may else None,
        "named": [one.person for one in row.named.all()],
        "bundle": bundle_facts(row, person),
        "building": row.state == "approved",
        "link": link,
    }
    response = render(request, "releases/release.html", context, status=status)
    response["Cache-Control"] = "no-store"
    return response


def _reached(row: Release) -> str:
    if row.state == "revoked":
        return "released"
    return "approved" if row.approved_at else "in_review"


def _curves(row: Release, person: Person) -> Any:
    return curves_of(row.job) if jobs.may_read_numbers(row.job, person) else []


@require_safe
@login_required
def live(request: HttpRequest, pk: int) -> HttpResponse:
    """Tell a page that waits for its bundle when to load again."""
    row = release_for(reader(request), pk)
    if row.state == "approved":
        return HttpResponse(status=204)
    return HttpResponse(status=286, headers={"HX-Refresh": "true"})


@require_POST
@login_required
def propose_again(request: HttpRequest, pk: int) -> HttpResponse:
    """Answer the reviewers who returned a release."""
    person = reader(request)
    row = get_object_or_404(Release.objects.all(), pk=pk)
    form = AgainForm(request.POST)
    if form.is_valid():
        try:
            actions.propose_again(
                by=person,
                release=row,
                note=form.cleaned_data["note"],
                conflict=form.cleaned_data["conflict_declared"],
            )
        except Denied:
            raise
        except Conflict as error:
            refused(request, error)
            return redirect("release", pk)
        except UserError as error:
            form.add_error(error.field if error.field in form.fields else None, sentence(error))
        else:
            done(request, gettext("Proposed again. Every vote is asked anew."))
            return redirect("release", pk)
    return page_of(request, release_for(person, pk), proposal_form=form, status=400)


@require_POST
@login_required
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a proposal back for good."""
    person = reader(request)
    row = get_object_or_404(Release.objects.all(), pk=pk)
    said = gettext("The release was withdrawn.")
    pressed(request, lambda: actions.withdraw(by=person, release=row), said=said)
    return redirect("release", pk)
