"""Pages of access requests: the list, asking, and reading one."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import FileResponse, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from policies.access import REQUEST_FIELDS, request_faults
from policies.errors import Conflict, UserError
from policies.workflow import ACCESS_REQUEST
from portal.access import actions, queries
from portal.access.api import attachment
from portal.access.forms import (
    GROUPS,
    PURPOSES,
    RequestForm,
    initial_of,
    purpose_label,
    purposes_open,
)
from portal.access.models import AccessRequest, Grant
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.catalog.queries import policy_of, public_datasets, published
from portal.pages.buttons import done, pressed
from portal.pages.reader import reader
from portal.pages.steps import drawn
from portal.plain_input import whole_number
from portal.voting.forms import VoteForm
from portal.voting.pages import shown

A_PAGE = 25
PATH = ("draft", "in_review", "approved")


def request_for(person: Person, pk: int) -> AccessRequest:
    """Return a request that a person may read, or answer 404."""
    return get_object_or_404(queries.requests_visible_to(person), pk=pk)


@require_safe
@login_required
def requests(request: HttpRequest) -> HttpResponse:
    """List the requests that the reader may read, by state."""
    person = reader(request)
    rows = queries.requests_visible_to(person)
    state = request.GET.get("state", "")
    if state in ACCESS_REQUEST.states:
        rows = rows.filter(state=state)
    page = Paginator(rows, A_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "state": state,
        "states": ACCESS_REQUEST.states,
        "roles": roles_of(person),
        "grants": queries.grants_visible_to(person)[:5],
        "datasets": public_datasets() if person.unit_id else [],
    }
    return render(request, "access/requests.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def new(request: HttpRequest, slug: str) -> HttpResponse:
    """Say what will be asked and how long it takes; begin a draft when asked to."""
    person = reader(request)
    dataset = get_object_or_404(public_datasets(), slug=slug)
    if request.method == "POST":
        row = actions.create_request(by=person, version=published(slug), fields={})
        return redirect("request-edit", row.pk)
    policy = policy_of(dataset)
    mine = AccessRequest.objects.filter(applicant=person, version__dataset=dataset)
    context = {
        "dataset": dataset,
        "version": published(slug),
        "drafts": mine.filter(state__in=("draft", "returned")).order_by("-pk"),
        "purposes": [purpose_label(name, policy) for name in purposes_open(policy)],
        "levels": queries.service_levels(),
        "groups": [(gettext(title), gettext(text)) for title, text, _names in GROUPS],
        "quorum": policy.review.access,
        "most_days": policy.access.maximum_days,
    }
    return render(request, "access/new.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    """Fill a draft in, save it, attach and remove documents, hand it in."""
    person = reader(request)
    row = request_for(person, pk)
    if "edit" not in queries.actions_for(row, person):
        raise Conflict(
            gettext("A request is changed only as a draft or after it was returned."),
            code="request.closed",
        )
    policy = queries.policy_for(row)
    if request.method != "POST":
        form = RequestForm(initial=initial_of(row), policy=policy)
        return _form(request, row, form)
    form = RequestForm(request.POST, request.FILES, policy=policy)
    if not form.is_valid():
        return _form(request, row, form, status=400)
    faults = request_faults(form.answers(), policy, complete=False)
    if faults:
        form.show(faults)
        return _form(request, row, form, status=400)
    if not _saved(person, row, form):
        return _form(request, row, form, status=400)
    row = request_for(person, pk)
    if number := whole_number(request.POST.get("remove", "")):
        document = get_object_or_404(queries.documents_of(row), pk=number)
        said = gettext("The document was removed.")
        pressed(request, lambda: actions.remove_document(by=person, document=document), said=said)
        return redirect("request-edit", pk)
    if "submit" not in request.POST:
        done(request, gettext("The draft was saved."))
        return redirect("request-edit", pk)
    return _submit(request, person, row, form)


def _saved(person: Person, row: AccessRequest, form: RequestForm) -> bool:
    """Save a draft with its upload; False (and faults beside the fields) where it was refused."""
    upload = form.cleaned_data.get("ethics_document")
    try:
        actions.edit_request(
            by=person,
            request=row,
            fields=form.answers(),
            conflict=form.cleaned_data["conflict_declared"],
        )
        if upload:
            actions.add_document(
                by=person, request=row, stream=upload.file, filename=upload.name, kind="ethics"
            )
    except Conflict:
        raise
    except UserError as error:
        name = "ethics_document" if error.field == "file" else error.field
        form.show({name: error})
        return False
    return True


def _submit(
    request: HttpRequest, person: Person, row: AccessRequest, form: RequestForm
) -> HttpResponse:
    """Hand a saved draft in, or show everything that is still missing."""
    has_ethics = queries.documents_of(row).filter(kind="ethics").exists()
    fields = {**row.answers, "ethics_document": has_ethics}
    faults = request_faults(fields, queries.policy_for(row), complete=True)
    if not faults:
        try:
            actions.submit_request(by=person, request=row)
        except UserError as error:
            faults = {error.field or "title": error}
        else:
            done(request, gettext("Your request is with the committee."))
            return redirect("request", row.pk)
    form.show(faults)
    return _form(request, row, form, status=400)


def _form(
    request: HttpRequest, row: AccessRequest, form: RequestForm, status: int = 200
) -> HttpResponse:
    context = {
        "row": row,
        "form": form,
        "documents": queries.documents_of(row),
        "levels": queries.service_levels(),
        "steps": drawn(PATH, row.state, reached="in_review"),
    }
    return render(request, "access/edit.html", context, status=status)


@require_safe
@login_required
def one(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one request to who may read it; to the committee with its criteria and the voting."""
    person = reader(request)
    return page_of(request, request_for(person, pk))


def page_of(
    request: HttpRequest,
    row: AccessRequest,
    *,
    vote_form: VoteForm | None = None,
    status: int = 200,
) -> HttpResponse:
    """Render a request's page."""
    person, row = reader(request), queries.surround(row)
    may = queries.actions_for(row, person)
    context: dict[str, Any] = {
        "row": row,
        "steps": drawn(PATH, row.state, reached=_reached(row)),
        "groups": _answers(row),
        "documents": queries.documents_of(row),
        "analysts": row.analysts.all(),
        **shown(
            queries.voting_for(row, person),
            vote_form=vote_form or VoteForm(initial={"bound_to": row.bound_to}),
            page="request",
        ),
        "shows_voting": bool(row.round) and row.state != "draft" and row.applicant_id != person.pk,
        "may": may,
        "grant": Grant.objects.filter(request=row).first(),
        "passed": row.steps.order_by("pk"),
        "levels": queries.service_levels(),
    }
    return render(request, "access/request.html", context, status=status)


def _reached(row: AccessRequest) -> str:
    return "in_review" if row.round else "draft"


def _answers(row: AccessRequest) -> list[dict[str, Any]]:
    """Return what was answered, grouped as it was asked."""
    specs = {spec.name: spec for spec in REQUEST_FIELDS}
    groups = []
    for title, _text, names in GROUPS[:-1]:
        rows = []
        for name in names:
            value = row.answers.get(name, "")
            if name == "purpose":
                value = gettext(PURPOSES.get(str(value), str(value)))
            if name != "analysts":
                rows.append((gettext(specs[name].label), value))
        groups.append({"title": gettext(title), "rows": rows})
    return groups


@require_POST
@login_required
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    """Take one's own request back for good."""
    person = reader(request)
    row = request_for(person, pk)
    said = gettext("The request was withdrawn.")
    pressed(request, lambda: actions.withdraw_request(by=person, request=row), said=said)
    return redirect("request", pk)


@require_safe
@login_required
def document(request: HttpRequest, pk: int, document: int) -> FileResponse:
    """A document's bytes, always as an attachment; the reading is recorded."""
    person = reader(request)
    rows = queries.documents_of(request_for(person, pk))
    row = get_object_or_404(rows, pk=document)
    return attachment(actions.open_document(by=person, document=row), row.filename)
