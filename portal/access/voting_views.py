"""The committee's buttons on a request's page."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext
from django.views.decorators.http import require_POST

from policies.errors import Conflict, Invalid
from portal.access import decisions
from portal.access.forms import RecuseForm, VoteForm
from portal.access.models import AccessRequest
from portal.access.views import page_of, request_for
from portal.errors import sentence
from portal.pages.buttons import done, pressed, refused
from portal.pages.reader import reader


def _submitted(pk: int) -> AccessRequest:
    """Return any request that was handed in: voting on it is refused by rule, not hidden."""
    return get_object_or_404(AccessRequest.objects.filter(round__gt=0), pk=pk)


@require_POST
@login_required
def vote(request: HttpRequest, pk: int) -> HttpResponse:
    """Cast a vote on what the page showed. Who may not gets the rule's sentence, recorded."""
    person = reader(request)
    row = _submitted(pk)
    form = VoteForm(request.POST)
    if form.is_valid():
        try:
            decisions.cast_vote(by=person, request=row, **form.cleaned_data)
        except Invalid as error:
            form.add_error(error.field if error.field in form.fields else None, sentence(error))
        except Conflict as error:
            # It has moved on, and what was filled in with it: the page is shown anew.
            refused(request, error)
            return redirect("request", pk)
        else:
            done(request, gettext("Your vote was counted."))
            return redirect("request", pk)
    return page_of(request, request_for(person, pk), vote_form=form, status=400)


@require_POST
@login_required
def recuse(request: HttpRequest, pk: int) -> HttpResponse:
    """Leave the judgement to others."""
    person = reader(request)
    row = _submitted(pk)
    form = RecuseForm(request.POST)
    reason = form.cleaned_data["reason"] if form.is_valid() else ""
    said = gettext("You have recused yourself; the others decide.")
    pressed(request, lambda: decisions.recuse(by=person, request=row, reason=reason), said=said)
    return redirect("request", pk)
