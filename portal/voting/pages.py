"""The voting on a page: what ``parts/voting.html`` shows, and its two buttons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext

from policies.errors import Conflict, Invalid
from portal.errors import sentence
from portal.pages.buttons import done, pressed, refused
from portal.voting.ballots import V, VotingView
from portal.voting.forms import RecuseForm


def shown(view: VotingView[V], *, vote_form: Form, page: str) -> dict[str, Any]:
    """Return what ``parts/voting.html`` needs; ``page`` is the name of the page's address."""
    return {
        "voting": view,
        "decision": view.decision,
        "why_not": sentence(view.why_not) if view.why_not else "",
        "vote_form": vote_form,
        "recuse_form": RecuseForm(),
        "vote_url": f"{page}-vote",
        "recuse_url": f"{page}-recuse",
    }


def voted(
    request: HttpRequest,
    form: Form,
    cast: Callable[..., object],
    *,
    page: str,
    pk: int,
    again: Callable[[], HttpResponse],
) -> HttpResponse:
    """Cast the vote that was filled in and go back to its page; ``again`` shows what was wrong.

    Denied passes through: it is answered with 403 and recorded.
    """
    if not form.is_valid():
        return again()
    try:
        cast(**form.cleaned_data)
    except Invalid as error:
        form.add_error(error.field if error.field in form.fields else None, sentence(error))
        return again()
    except Conflict as error:
        # It has moved on, and what was filled in with it: the page is shown anew.
        refused(request, error)
    else:
        done(request, gettext("Your vote was counted."))
    return redirect(page, pk)


def recused(
    request: HttpRequest, recuse: Callable[..., object], *, page: str, pk: int
) -> HttpResponse:
    """Leave the judgement to others and go back to the page."""
    form = RecuseForm(request.POST)
    reason = form.cleaned_data["reason"] if form.is_valid() else ""
    said = gettext("You have recused yourself; the others decide.")
    pressed(request, lambda: recuse(reason=reason), said=said)
    return redirect(page, pk)
