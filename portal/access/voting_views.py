"""The committee's buttons on a request's page."""

from __future__ import annotations

from functools import partial

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_POST

from portal.access import decisions
from portal.access.models import AccessRequest
from portal.access.views import page_of, request_for
from portal.pages.reader import reader
from portal.voting.forms import VoteForm
from portal.voting.pages import recused, voted


def _submitted(pk: int) -> AccessRequest:
    """Return any request that was handed in: voting on it is refused by rule, not hidden."""
    return get_object_or_404(AccessRequest.objects.filter(round__gt=0), pk=pk)


@require_POST
@login_required
def vote(request: HttpRequest, pk: int) -> HttpResponse:
    """Cast a vote on what the page showed. Who may not gets the rule's sentence, recorded."""
    person, row = reader(request), _submitted(pk)
    form = VoteForm(request.POST)
    return voted(
        request,
        form,
        partial(decisions.cast_vote, by=person, request=row),
        page="request",
        pk=pk,
        again=lambda: page_of(request, request_for(person, pk), vote_form=form, status=400),
    )


@require_POST
@login_required
def recuse(request: HttpRequest, pk: int) -> HttpResponse:
    """Leave the judgement to others."""
    act = partial(decisions.recuse, by=reader(request), request=_submitted(pk))
    return recused(request, act, page="request", pk=pk)
