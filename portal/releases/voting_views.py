"""The reviewers' buttons on a release's page."""

from __future__ import annotations

from functools import partial

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_POST

from portal.pages.reader import reader
from portal.releases import actions
from portal.releases.forms import ReviewForm
from portal.releases.models import Release
from portal.releases.views import page_of, release_for
from portal.voting.pages import recused, voted


def any_release(pk: int) -> Release:
    """Return any release: what somebody may not do is refused by rule and recorded."""
    return get_object_or_404(Release.objects.all(), pk=pk)


@require_POST
@login_required
def vote(request: HttpRequest, pk: int) -> HttpResponse:
    """Cast a vote on exactly what the page showed; it falls if anything behind it has changed."""
    person, row = reader(request), any_release(pk)
    form = ReviewForm(request.POST)
    return voted(
        request,
        form,
        partial(actions.cast_vote, by=person, release=row),
        page="release",
        pk=pk,
        again=lambda: page_of(request, release_for(person, pk), review_form=form, status=400),
    )


@require_POST
@login_required
def recuse(request: HttpRequest, pk: int) -> HttpResponse:
    """Leave the judgement to others."""
    act = partial(actions.recuse, by=reader(request), release=any_release(pk))
    return recused(request, act, page="release", pk=pk)
