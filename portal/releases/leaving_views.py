"""What has left: personal links, downloads, revocations, and how anybody verifies a bundle."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext
from django.views.decorators.http import require_GET, require_POST, require_safe

from bundle import key_id
from policies.errors import Conflict, Invalid
from portal import keys
from portal.access.api import attachment
from portal.errors import sentence
from portal.pages.buttons import done, refused
from portal.pages.reader import reader
from portal.releases import actions, downloads, queries
from portal.releases.forms import RevocationForm
from portal.releases.models import RevocationList
from portal.releases.views import page_of, release_for
from portal.releases.voting_views import any_release


@require_POST
@login_required
def link(request: HttpRequest, pk: int) -> HttpResponse:
    """Make a personal link; it stands in this one answer and nowhere else."""
    person = reader(request)
    try:
        made, token = downloads.create_link(by=person, release=any_release(pk))
    except Conflict as error:
        refused(request, error)
        return redirect("release", pk)
    shown = {
        "url": settings.BASE_URL + reverse("download", args=[token]),
        "expires_at": made.expires_at,
        "uses_allowed": made.uses_allowed,
    }
    return page_of(request, release_for(person, pk), link=shown)


# A HEAD request of a link preview must not use the link up.
@require_GET
@login_required
def download(request: HttpRequest, token: str) -> FileResponse:
    """Use a personal link: its owner, signed in, as often as it says. Each use is recorded."""
    try:
        release, stream, size = downloads.use_link(by=reader(request), token=token)
    except downloads.NoSuchLink:
        raise Http404 from None
    return attachment(stream, f"glovebox-release-{release.pk}.zip", size)


@require_POST
@login_required
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """The dataset's steward revokes what has left, with a reason that is published."""
    person = reader(request)
    row = any_release(pk)
    form = RevocationForm(request.POST)
    if form.is_valid():
        try:
            actions.revoke(by=person, release=row, reason=form.cleaned_data["reason"])
        except Invalid as error:
            form.add_error("reason", sentence(error))
        except Conflict as error:
            refused(request, error)
            return redirect("release", pk)
        else:
            done(request, gettext("Revoked. Its links are dead; the signed list will name it."))
            return redirect("release", pk)
    return page_of(request, release_for(person, pk), revocation_form=form, status=400)


@require_safe
def revocations(request: HttpRequest) -> HttpResponse:
    """Tell anybody what was revoked, and how to verify a bundle without asking the portal."""
    newest = queries.revocation_list()
    context = {
        "newest": newest,
        "revoked": _entries(newest) if newest else [],
        "keys": [
            # By the name under which a bundle and `glovebox verify` know it.
            {"id": key_id(key), "pem": keys.public_pem(key).decode()}
            for key in keys.public_keys("release").values()
        ],
    }
    return render(request, "releases/revocations.html", context)


def _entries(signed: RevocationList) -> list[dict[str, str]]:
    """Return the entries of a list, newest first."""
    return sorted(queries.entries_of(signed), key=lambda row: row["date"], reverse=True)


@require_safe
def revocation_list(request: HttpRequest) -> HttpResponse:
    """The newest signed list, for ``glovebox verify``; nothing (204) while none was needed."""
    newest = queries.revocation_list()
    if newest is None:
        return HttpResponse(status=204)
    response = HttpResponse(newest.document, content_type="application/json")
    response["Content-Disposition"] = 'attachment; filename="revocations.json"'
    return response
