"""The security officer's examination: what waits, one file at a time, the signature."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from policies.errors import Conflict, Denied, Invalid, UserError, _
from portal.accounts.models import Person, Role
from portal.accounts.permissions import check_role
from portal.catalog.models import DatasetVersion
from portal.catalog.queries import policy_of, versions_for
from portal.errors import sentence
from portal.ingest import actions, handing_out, marks, queries, words
from portal.ingest.models import ReviewItem
from portal.ingest.pipeline import undrawn
from portal.ingest.sampling import FAILING, bound, population
from portal.ingest.views import find_version
from portal.pages.reader import reader

ITEMS_A_PAGE = 100
EXAMINED = ("de_identified", "in_qa", "published")


@dataclass(frozen=True)
class Round:
    """How far an officer is with the sample."""

    items: int
    looked_at: int
    missed: int
    wrong: int
    in_hand: int  # of those not looked at, with an officer now
    population: int
    bound: float  # the rate of misses that the round excludes with 95 % confidence
    at_random: int
    every: bool

    @property
    def waiting(self) -> int:
        return self.items - self.looked_at


def _round(version: DatasetVersion, items: QuerySet[ReviewItem]) -> Round:
    drawn = list(items.select_related(None).only("finding", "why", "wrong_boxes", "lease_until"))
    pictures = population(version.intake).count() if drawn else 0
    rate, at_random = bound(drawn, pictures) if drawn else (1.0, 0)
    now = timezone.now()
    return Round(
        items=len(drawn),
        looked_at=sum(item.finding != "" for item in drawn),
        missed=sum(item.finding in FAILING for item in drawn),
        wrong=sum(bool(item.wrong_boxes) for item in drawn),
        in_hand=sum(
            not item.finding and item.lease_until is not None and item.lease_until > now
            for item in drawn
        ),
        population=pictures,
        bound=rate,
        at_random=at_random,
        every=bool(drawn) and len(drawn) >= pictures,
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
    page = Paginator(items, ITEMS_A_PAGE).get_page(request.GET.get("page"))
    here = _round(version, items)
    policy = policy_of(version.dataset).deid
    newest = items.values_list("round", flat=True).first() or 0
    standing = version.signatures.filter(round=newest, standing=True)
    context = {
        "version": version,
        "page": page,
        "items": [(item, words.stratum(item.stratum), words.why(item.why)) for item in page],
        "round": here,
        "policy": policy,
        "signed": standing.count(),
        "signed_already": standing.filter(officer=person).exists(),
        "signatures": version.signatures.select_related("officer").order_by("-round", "-at"),
        "preparing": version.state == "in_qa" and undrawn(items).exists(),
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
    if version.state == "in_qa" and not handing_out.held_by_another(person, shown):
        # Looking at a file takes it in hand; it comes back by itself.
        with contextlib.suppress(Conflict):
            if request.method != "POST":
                handing_out.take(by=person, item=shown)
    problem, boxes, note = "", shown.boxes, shown.note
    if request.method == "POST":
        note = request.POST.get("note", "")
        try:
            boxes = _boxes(request)
            finding = request.POST.get("finding", "")
            wrong = _wrong(request)
            actions.record_finding(
                by=person, item=shown, finding=finding, boxes=boxes, wrong=wrong, note=note
            )
        except Denied:
            raise
        except UserError as error:
            problem = sentence(error)
        else:
            return _onwards(person, shown)
    return _item_page(request, items, shown, problem=problem, boxes=boxes, note=note)


@login_required
@require_safe
def following(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Hand the officer a file that nobody else has, and go there."""
    person = reader(request)
    return _next_of(person, find_version(person, slug, number))


@login_required
@require_POST
def keep(request: HttpRequest, slug: str, number: int, position: int) -> HttpResponse:
    """Keep a file in hand; the page asks for it while it is open."""
    person = reader(request)
    version = find_version(person, slug, number)
    shown = get_object_or_404(queries.sample_for(person, version), position=position)
    handing_out.take(by=person, item=shown)
    return HttpResponse(status=204)


def _wrong(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the masked boxes that were ticked, each as ``kind x y width height``."""
    found = []
    for text in request.POST.getlist("wrong"):
        kind, *sides = text.split(" ")
        found.append({"kind": kind, **dict(zip(marks.SIDES, sides, strict=False))})
    return found


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


def _onwards(person: Person, shown: ReviewItem) -> HttpResponse:
    """Go to the next file that is free, or back to the round when there is none."""
    return _next_of(person, shown.version)


def _next_of(person: Person, version: DatasetVersion) -> HttpResponse:
    item = handing_out.hand_out(by=person, version=version)
    slug, number = version.dataset.slug, version.number
    if item is None:
        return redirect("examination", slug=slug, number=number)
    return redirect("examination-item", slug=slug, number=number, position=item.position)


def _item_page(
    request: HttpRequest,
    items: QuerySet[ReviewItem],
    shown: ReviewItem,
    *,
    problem: str,
    boxes: list[Any],
    note: str,
) -> HttpResponse:
    person = reader(request)
    positions = list(items.values_list("position", flat=True))
    here = positions.index(shown.position)
    taken = handing_out.held_by_another(person, shown)
    ready = bool(shown.after_object) and shown.wrapped_key is not None and not taken
    ticked = {marks.mark_of(box) for box in shown.wrong_boxes}
    if problem:
        ticked = {marks.mark_of(box) for box in _wrong(request)}
    context = {
        "version": shown.version,
        "item": shown,
        "stratum": words.stratum(shown.stratum),
        "why": words.why(shown.why),
        "taken": taken,
        "ready": ready,
        "unseen": words.reason(shown.unseen) if shown.unseen else "",
        "changes": words.changes(shown.row.actions),
        "differences": queries.open_header(by=person, item=shown) if ready else [],
        "masked": words.masked(shown.row.boxes, ticked),
        "film": marks.is_film(shown),
        "frames": sorted(int(number) for number in shown.frames),
        "boxes": boxes,
        "note": note,
        "problem": problem,
        "round": _round(shown.version, items),
        "previous": positions[here - 1] if here else None,
        "following": positions[here + 1] if here + 1 < len(positions) else None,
        "open": shown.version.state == "in_qa" and not taken,
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
        by=person,
        version=version,
        statement=request.POST.get("statement", ""),
        correct="correct" in request.POST,
    )
    version.refresh_from_db()
    if version.state == "published":
        messages.success(request, gettext("Signed. The version is published."), extra_tags="good")
    elif signature.passed:
        messages.success(
            request,
            gettext("Signed. Another security officer must sign before it is published."),
            extra_tags="good",
        )
    else:
        messages.warning(
            request,
            gettext("Sent back. Your boxes are being applied; then a new sample is drawn."),
            extra_tags="warn",
        )
    return redirect("examination", slug=slug, number=number)
