"""The reviewers' buttons on a release's page."""

from __future__ import annotations

from functools import partial

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext
from django.views.decorators.http import require_POST

from portal.accounts.models import Person
from portal.jobs.views import job_for
from portal.pages.buttons import pressed
from portal.pages.reader import reader
from portal.releases import actions, lifts
from portal.releases.forms import ReviewForm
from portal.releases.models import Release
from portal.releases.queries import policy_for
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
    form = ReviewForm(request.POST, checklist=policy_for(row).review.checklist)
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
def name(request: HttpRequest, pk: int) -> HttpResponse:
    """The steward names who may see a proprietary network and vote on it."""
    row = any_release(pk)
    wanted = [int(one) for one in request.POST.getlist("reviewers") if one.isdecimal()]
    act = partial(
        actions.name_reviewers,
        by=reader(request),
        release=row,
        people=Person.objects.filter(pk__in=wanted),
    )
    pressed(request, act, said=gettext("Named. They see the network and may vote."))
    return redirect("release", pk)


@require_POST
@login_required
def lift(request: HttpRequest, pk: int) -> HttpResponse:
    """The steward lifts a soft block of a job, with a reason; two reviewers must agree to it."""
    person = reader(request)
    job = job_for(person, pk)
    reason = request.POST.get("reason", "")
    said = gettext("Lifted. A release may be proposed; it needs your vote and two reviewers'.")
    pressed(request, lambda: lifts.lift(by=person, job=job, reason=reason), said=said)
    return redirect("job", pk)


@require_POST
@login_required
def recuse(request: HttpRequest, pk: int) -> HttpResponse:
    """Leave the judgement to others."""
    act = partial(actions.recuse, by=reader(request), release=any_release(pk))
    return recused(request, act, page="release", pk=pk)
