"""Administration: people, units, organisations, and roles that two people give together."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.accounts import actions, queries, roles
from portal.accounts.forms import OrganisationForm, PlaceForm, RoleForm, UnitForm, units
from portal.accounts.models import Organisation, Person, Role
from portal.accounts.permissions import check_role
from portal.pages.forms import tried
from portal.pages.reader import reader

PEOPLE_A_PAGE = 50


def _administrator(request: HttpRequest) -> Person:
    person = reader(request)
    check_role(person, Role.ADMINISTRATOR)
    return person


@login_required
@require_safe
def people(request: HttpRequest) -> HttpResponse:
    """List people; narrowed by a word of name, address or unit."""
    viewer = _administrator(request)
    word = request.GET.get("q", "").strip()[:100]
    found = queries.people_visible_to(viewer).prefetch_related("role_assignments")
    if word:
        found = found.filter(
            Q(name__icontains=word)
            | Q(email__icontains=word)
            | Q(unit__name__icontains=word)
            | Q(unit__organisation__name__icontains=word)
        )
    page = Paginator(found, PEOPLE_A_PAGE).get_page(request.GET.get("page"))
    context = {"page": page, "word": word, "proposed": queries.roles_proposed().count()}
    return render(request, "accounts/people.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def person(request: HttpRequest, pk: int) -> HttpResponse:
    """Show somebody; POST places them in a unit."""
    viewer = _administrator(request)
    shown = get_object_or_404(queries.people_visible_to(viewer), pk=pk)
    form = PlaceForm(
        request.POST if request.method == "POST" else None, initial={"unit": shown.unit}
    )
    if request.method == "POST" and form.is_valid():
        unit = form.cleaned_data["unit"]
        tried(form, lambda: actions.place_person(person=shown, unit=unit, by=viewer))
        if not form.errors:
            messages.success(request, gettext("The unit was changed."))
            return redirect("administration-person", pk=pk)
        shown.refresh_from_db()
    context = {
        "shown": shown,
        "form": form,
        "assignments": queries.assignments_visible_to(viewer).filter(person=shown),
        "second_factor": queries.has_second_factor(shown),
        "tokens": queries.tokens_of(shown),
        "own": shown.pk == viewer.pk,
    }
    return render(request, "accounts/person.html", context, status=400 if form.errors else 200)


@login_required
@require_POST
def close_account(request: HttpRequest, pk: int) -> HttpResponse:
    """Close somebody's account."""
    viewer = _administrator(request)
    shown = get_object_or_404(queries.people_visible_to(viewer), pk=pk)
    actions.deactivate_person(person=shown, by=viewer)
    messages.success(request, gettext("The account is closed; its roles and tokens have ended."))
    return redirect("administration-person", pk=pk)


@login_required
@require_POST
def revoke_token(request: HttpRequest, pk: int, token: int) -> HttpResponse:
    """End somebody's token."""
    viewer = _administrator(request)
    shown = get_object_or_404(queries.people_visible_to(viewer), pk=pk)
    found = get_object_or_404(queries.tokens_of(shown), pk=token)
    actions.revoke_token(token=found, by=viewer)
    messages.success(request, gettext("The token was revoked."))
    return redirect("administration-person", pk=pk)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def all_roles(request: HttpRequest) -> HttpResponse:
    """Show proposals and roles in force; POST proposes one."""
    viewer = _administrator(request)
    form = RoleForm(request.POST if request.method == "POST" else None, by=viewer)
    if request.method == "POST" and form.is_valid():
        tried(form, lambda: roles.propose_role(**form.cleaned_data, by=viewer))
        if not form.errors:
            messages.success(request, gettext("Proposed. Another administrator must confirm it."))
            return redirect("administration-roles")
    seen = queries.assignments_visible_to(viewer).select_related("person__unit__organisation")
    context = {
        "form": form,
        "viewer": viewer,
        "proposals": seen.filter(confirmed_at=None, ended_at=None),
        "in_force": seen.exclude(confirmed_at=None).filter(ended_at=None).order_by("role", "pk"),
    }
    return render(request, "accounts/roles.html", context, status=400 if form.errors else 200)


@login_required
@require_POST
def decide_role(request: HttpRequest, pk: int, action: str) -> HttpResponse:
    """Confirm a proposal, or end a role (or its proposal)."""
    viewer = _administrator(request)
    assignment = get_object_or_404(queries.assignments_visible_to(viewer), pk=pk)
    if action == "confirm":
        roles.confirm_role(assignment=assignment, by=viewer)
        messages.success(request, gettext("The role is in force."))
    else:
        roles.end_role(assignment=assignment, by=viewer)
        messages.success(request, gettext("The role has ended."))
    return redirect("administration-roles")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def organisations(request: HttpRequest) -> HttpResponse:
    """Show organisations with their units; POST adds one of either."""
    viewer = _administrator(request)
    adds_unit = request.method == "POST" and request.POST.get("add") == "unit"
    adds_organisation = request.method == "POST" and not adds_unit
    unit = UnitForm(request.POST if adds_unit else None, prefix="unit")
    organisation = OrganisationForm(
        request.POST if adds_organisation else None, prefix="organisation"
    )
    if adds_unit and unit.is_valid():
        tried(unit, lambda: actions.create_unit(**unit.cleaned_data, by=viewer))
    if adds_organisation and organisation.is_valid():
        fields = organisation.cleaned_data
        tried(organisation, lambda: actions.create_organisation(**fields, by=viewer))
    wrong = bool(unit.errors or organisation.errors)
    if request.method == "POST" and not wrong:
        messages.success(request, gettext("Added."))
        return redirect("administration-organisations")
    context = {
        "organisations": Organisation.objects.order_by("name").prefetch_related("units"),
        "units": units(),
        "unit_form": unit,
        "organisation_form": organisation,
    }
    return render(request, "accounts/organisations.html", context, status=400 if wrong else 200)
