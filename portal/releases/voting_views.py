"""The reviewers' buttons on a release's page."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext
from django.views.decorators.http import require_POST

from policies.errors import Conflict, Invalid
from portal.access.forms import RecuseForm
from portal.errors import sentence
from portal.pages.buttons import done, pressed, refused
from portal.pages.reader import reader
from portal.releases import actions
from portal.releases.forms import ReviewForm
from portal.releases.models import Release
from portal.releases.views import page_of, release_for


def any_release(pk: int) -> Release:
    """Return any release: what somebody may not do is refused by rule and recorded."""
    return get_object_or_404(Release.objects.all(), pk=pk)


@require_POST
@login_required
def vote(request: HttpRequest, pk: int) -> HttpResponse:
    """Cast a vote on exactly what the page showed; it falls if anything behind it has changed."""
    person = reader(request)
    row = any_release(pk)
    form = ReviewForm(request.POST)
    if form.is_valid():
        try:
            actions.cast_vote(by=person, release=row, **form.cleaned_data)
        except Invalid as error:
            form.add_error(error.field if error.field in form.fields else None, sentence(error))
        except Conflict as error:
            # It has moved on, and what was filled in with it: the page is shown anew.
            refused(request, error)
            return redirect("release", pk)
        else:
            done(request, gettext("Your vote was counted."))
            return redirect("release", pk)
    return page_of(request, release_for(person, pk), review_form=form, status=400)


@require_POST
@login_required
def recuse(request: HttpRequest, pk: int) -> HttpResponse:
    """Leave the judgement to others."""
    person = reader(request)
    row = any_release(pk)
    form = RecuseForm(request.POST)
    reason = form.cleaned_data["reason"] if form.is_valid() else ""
    said = gettext("You have recused yourself; the others decide.")
    pressed(request, lambda: actions.recuse(by=person, release=row, reason=reason), said=said)
    return redirect("release", pk)
