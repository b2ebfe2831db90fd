"""The security officer's examination: what waits, one file at a time, the signature."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from policies.errors import Denied, Invalid, UserError, _
from policies.quality import upper_bound
from portal.accounts.models import Person, Role
from portal.accounts.permissions import check_role
from portal.catalog.models import DatasetVersion
from portal.catalog.queries import versions_for
from portal.errors import sentence
from portal.ingest import actions, queries, words
from portal.ingest.models import ReviewItem
from portal.ingest.sampling import population
from portal.ingest.views import find_version
from portal.pages.reader import reader

EXAMINED = ("de_identified", "in_qa", "published")


@dataclass(frozen=True)
class Round:
    """How far an officer is with the sample."""

    items: int
    looked_at: int
    missed: int
    population: int

    @property
    def waiting(self) -> int:
        return self.items - self.looked_at

    @property
    def bound(self) -> float:
        """The rate of misses that the sample excludes with 95 % confidence."""
        return upper_bound(sampled=self.items, missed=self.missed, population=self.population)


def _round(version: DatasetVersion, items: QuerySet[ReviewItem]) -> Round:
    return Round(
        items=items.count(),
        looked_at=items.exclude(finding="").count(),
        missed=items.filter(finding="missed").count(),
        population=population(version.intake).count() if items else 0,
    )


@login_required
@require_safe
def examinations(request: HttpRequest) -> HttpResponse:
    """List the versions that wait for a security officer, and those that were signed."""
    person = reader(request)
    check_role(person, Role.OFFICER)
    rows = versions_for(person).filter(state__in=EXAMINED)
    context = {
        "waiting": [(row, _may(person, row)) for row in rows if row.state != "published"],
        "signed": [row for row in rows if row.state == "published"],
    }
    return render(request, "ingest/examinations.html", context)


def _may(person: Person, version: DatasetVersion) -> bool:
    try:
        queries.check_officer(person, version)
    except Denied:
        return False
    return True


@login_required
@require_safe
def examination(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Show the open round of a version, and where it stands."""
    person = reader(request)
    version = find_version(person, slug, number)
    items = queries.sample_for(person, version)
    context = {
        "version": version,
        "items": [(item, words.stratum(item.stratum)) for item in items],
        "round": _round(version, items),
        "first": items.filter(finding="").first(),
        "signatures": version.signatures.select_related("officer").order_by("-round"),
        "preparing": version.state == "in_qa"
        and items.filter(after_object="", unseen="", finding="").exists(),
    }
    response = render(request, "ingest/examination.html", context)
    response["Cache-Control"] = "no-store"
    return response


@login_required
@require_POST
def start(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Draw the sample."""
    person = reader(request)
    version = find_version(person, slug, number)
    actions.start_examination(by=person, version=version, seed=secrets.randbits(32))
    return redirect("examination", slug=slug, number=number)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def item(request: HttpRequest, slug: str, number: int, position: int) -> HttpResponse:
    """Show one file before and after; POST keeps what the officer found and goes on."""
    person = reader(request)
    version = find_version(person, slug, number)
    items = queries.sample_for(person, version).select_related("version__dataset__steward")
    shown = get_object_or_404(items, position=position)
    problem, boxes, note = "", shown.boxes, shown.note
    if request.method == "POST":
        note = request.POST.get("note", "")
        try:
            boxes = _boxes(request)
            finding = request.POST.get("finding", "")
            actions.record_finding(by=person, item=shown, finding=finding, boxes=boxes, note=note)
        except Denied:
            raise
        except UserError as error:
            problem = sentence(error)
        else:
            return _onwards(items, shown)
    return _item_page(request, items, shown, problem=problem, boxes=boxes, note=note)


def _boxes(request: HttpRequest) -> list[dict[str, float]]:
    """Return the boxes that were drawn or typed; rows left empty do not count."""
    columns = {name: request.POST.getlist(f"box_{name}") for name in ("x", "y", "width", "height")}
    rows = zip(*columns.values(), strict=False)
    found = []
    for row in rows:
        if not any(value.strip() for value in row):
            continue
        try:
            found.append({name: float(value) for name, value in zip(columns, row, strict=True)})
        except ValueError:
            raise Invalid(
                _("A box has x, y, width and height in pixels."), field="boxes", code="qa.box"
            ) from None
    return found


def _onwards(items: QuerySet[ReviewItem], shown: ReviewItem) -> HttpResponse:
    """Go to the next file that was not looked at, or back to the round when there is none."""
    waiting = items.filter(finding="").exclude(pk=shown.pk)
    following = waiting.filter(position__gt=shown.position).first() or waiting.first()
    slug, number = shown.version.dataset.slug, shown.version.number
    if following is None:
        return redirect("examination", slug=slug, number=number)
    position = following.position
    return redirect("examination-item", slug=slug, number=number, position=position)


def _item_page(
    request: HttpRequest,
    items: QuerySet[ReviewItem],
    shown: ReviewItem,
    *,
    problem: str,
    boxes: list[Any],
    note: str,
) -> HttpResponse:
    positions = list(items.values_list("position", flat=True))
    here = positions.index(shown.position)
    context = {
        "version": shown.version,
        "item": shown,
        "stratum": words.stratum(shown.stratum),
        "ready": bool(shown.after_object) and shown.wrapped_key is not None,
        "unseen": words.reason(shown.unseen) if shown.unseen else "",
        "changes": words.changes(shown.row.actions),
        "masked": words.masked(shown.row.boxes),
        "boxes": boxes,
        "note": note,
        "problem": problem,
        "round": _round(shown.version, items),
        "previous": positions[here - 1] if here else None,
        "following": positions[here + 1] if here + 1 < len(positions) else None,
        "open": shown.version.state == "in_qa",
    }
    response = render(request, "ingest/item.html", context, status=400 if problem else 200)
    response["Cache-Control"] = "no-store"
    return response


@login_required
@require_POST
def sign(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Close the round."""
    person = reader(request)
    version = find_version(person, slug, number)
    signature = actions.sign(
        by=person, version=version, statement=request.POST.get("statement", "")
    )
    if signature.passed:
        messages.success(request, gettext("Signed. The version is published."), extra_tags="good")
    else:
        messages.warning(
            request,
            gettext("Signed as failed. Your boxes are being applied; then a new sample is drawn."),
            extra_tags="warn",
        )
    return redirect("examination", slug=slug, number=number)
