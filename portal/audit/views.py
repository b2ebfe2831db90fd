"""The trail as pages: events for auditors; checkpoints and public keys for everybody."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST, require_safe

from bundle import key_id as bundle_key_id
from portal import keys
from portal.accounts.models import Role
from portal.accounts.permissions import check_role
from portal.audit import chain, checkpoints, queries, walks
from portal.audit.models import Checkpoint, Event, Walk
from portal.audit.record import record_attempt
from portal.pages.reader import reader
from portal.plain_input import whole_number

EVENTS_A_PAGE = 100
CHECKPOINTS_SHOWN = 100
USES: tuple[keys.Signer, ...] = ("release", "audit")


class FilterForm(forms.Form):
    """What narrows the list of events."""

    action = forms.CharField(
        label=_("What (or how it begins)"),
        required=False,
        max_length=80,
        widget=forms.TextInput(attrs={"placeholder": "role."}),
    )
    actor_id = forms.CharField(label=_("Who (number, or system)"), required=False, max_length=40)
    about_kind = forms.CharField(label=_("About a"), required=False, max_length=60)
    about_id = forms.CharField(label=_("Its number"), required=False, max_length=80)
    since = forms.DateTimeField(
        label=_("Since"),
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    until = forms.DateTimeField(
        label=_("Until"),
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )


def _chain_state() -> dict[str, Any]:
    position, digest, event_id = chain.head()
    return {
        "position": position,
        "digest": digest,
        "unsealed": Event.objects.filter(id__gt=event_id).count(),
        "checkpoint": queries.checkpoints().first(),
    }


@login_required
@require_safe
def events(request: HttpRequest) -> HttpResponse:
    """List events, newest first, in pages by id: a page stays the same while events are added."""
    viewer = reader(request)
    form = FilterForm(request.GET)
    fields = form.cleaned_data if form.is_valid() else {}
    where = queries.Filter(**{name: value for name, value in fields.items() if value})
    found = queries.events(viewer=viewer, where=where)
    number = whole_number(request.GET.get("before", "")) or 0
    # Looking is an event too; it is written before anything is shown.
    with transaction.atomic():
        details = {**where.as_details(), "before": number, "limit": EVENTS_A_PAGE}
        record_attempt("audit.viewed", by=viewer, subject="events", kind="audit", details=details)
    rows = list((found.filter(id__lt=number) if number else found)[: EVENTS_A_PAGE + 1])
    following = rows[EVENTS_A_PAGE - 1].pk if len(rows) > EVENTS_A_PAGE else None
    shown = rows[:EVENTS_A_PAGE]
    context = {
        "form": form,
        "narrowed": bool(where.as_details()),
        "events": [(event, _as_text(event.details)) for event in shown],
        "following": following,
        "first": not number,
        "chain": _chain_state(),
    }
    return render(request, "audit/events.html", context)


def _as_text(details: Any) -> list[tuple[str, str]]:
    """Return an event's details as short pairs of plain text."""
    if not isinstance(details, dict):
        return [("", str(details))]
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in details.items()
        if value not in ("", None, [], {})
    ]


@login_required
@require_POST
def check(request: HttpRequest) -> HttpResponse:
    """Have the whole chain walked, and go where it will be said what was found."""
    return redirect("audit-walk", walks.ask(by=reader(request)).pk)


def _walk(request: HttpRequest, pk: int) -> Walk:
    check_role(reader(request), Role.AUDITOR)
    return get_object_or_404(Walk, pk=pk)


@login_required
@require_safe
def walk(request: HttpRequest, pk: int) -> HttpResponse:
    """Say what a walk found, or that it is not done yet."""
    return render(request, "audit/check.html", {"walk": _walk(request, pk)})


@login_required
@require_safe
def walk_live(request: HttpRequest, pk: int) -> HttpResponse:
    """Tell a page that waits for a walk when to load again."""
    if _walk(request, pk).done_at is None:
        return HttpResponse(status=204)
    return HttpResponse(status=286, headers={"HX-Refresh": "true"})


@require_safe
def all_checkpoints(request: HttpRequest) -> HttpResponse:
    """List the newest signed checkpoints; anyone may keep them."""
    context = {"checkpoints": queries.checkpoints()[:CHECKPOINTS_SHOWN]}
    return render(request, "audit/checkpoints.html", context)


@require_safe
def checkpoint(request: HttpRequest, pk: int) -> HttpResponse:
    """Give one checkpoint as the file that ``glovebox audit verify --checkpoint`` reads."""
    row = get_object_or_404(Checkpoint, pk=pk)
    name = f"checkpoint-{row.position:012d}.json"
    return HttpResponse(
        checkpoints.of_row(row).as_json(),
        content_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@require_safe
def public_keys(request: HttpRequest) -> HttpResponse:
    """Show the public keys that sign releases and checkpoints."""
    rows = [
        {
            "use": use,
            "id": key_id,
            # A bundle and `glovebox verify` name a key by another digest than checkpoints do.
            "shown": bundle_key_id(key) if use == "release" else key_id,
            "pem": keys.public_pem(key).decode(),
        }
        for use in USES
        for key_id, key in keys.public_keys(use).items()
    ]
    return render(request, "audit/keys.html", {"keys": rows})


@require_safe
def public_key(request: HttpRequest, use: str, key_id: str) -> HttpResponse:
    """Give one public key as a PEM file."""
    found = (keys.public_keys(one).get(key_id) for one in USES if one == use)
    key = next(found, None)
    if key is None:
        raise Http404
    return HttpResponse(
        keys.public_pem(key),
        content_type="application/x-pem-file",
        headers={"Content-Disposition": f'attachment; filename="glovebox-{use}.pub.pem"'},
    )
