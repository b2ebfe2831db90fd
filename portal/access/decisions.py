"""The committee's side of a request: recusing oneself, voting, and what the votes decide."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from policies.review import ACTION_OF, check_choice
from policies.workflow import ACCESS_REQUEST, COMMITTEE
from portal.access import queries
from portal.access.actions import locked, move
from portal.access.models import AccessRequest, Recusal, RequestVote
from portal.access.refusals import refusals_recorded
from portal.accounts.models import Person
from portal.audit.record import record
from portal.voting import casting


def cast_vote(
    *, by: Person, request: AccessRequest, choice: str, bound_to: str, comment: str = ""
) -> RequestVote:
    """Vote on a request as it was submitted (``bound_to``); decides it when the votes suffice.

    Raises Denied with the rule's sentence (and the attempt is recorded), Conflict for a second
    vote, a decided request, or one that has changed since it was read.
    """
    with refusals_recorded("request.vote", by=by, about=request):
        return _cast_vote(by, request, check_choice(choice), bound_to, comment)


@transaction.atomic
def _cast_vote(
    by: Person, request: AccessRequest, choice: str, bound_to: str, comment: str
) -> RequestVote:
    request = locked(request)
    ballot = queries.ballot_on(request)
    casting.check_may_cast(
        ballot, by, ACCESS_REQUEST, request.state, choice=choice, bound_to=bound_to
    )
    vote = RequestVote.objects.create(
        request=request,
        voter=by,
        choice=choice,
        comment=casting.check_comment(comment, choice),
        bound_to=request.bound_to,
    )
    details = {"choice": choice, "bound_to": request.bound_to, "round": request.round}
    record("request.vote", by=by, about=request, details=details)
    decision = queries.decision_on(request).state
    if decision in ACTION_OF:
        action = ACTION_OF[decision]
        # What the applicant reads: the comments of the side that decided.
        said = casting.comments(request.votes, bound_to=request.bound_to, choice=action)
        move(request, action, COMMITTEE, by=None, reason=said, decided_at=timezone.now())
    return vote


def recuse(*, by: Person, request: AccessRequest, reason: str = "") -> Recusal:
    """Say that one is too close to this request to judge it; it cannot be taken back."""
    with refusals_recorded("request.recuse", by=by, about=request), transaction.atomic():
        request = locked(request)
        is_open, ballot = request.state == "in_review", queries.ballot_on(request)
        recusal, created = casting.recuse(
            request.recusals, ballot, by, is_open=is_open, reason=reason
        )
        if created:
            record("request.recuse", by=by, about=request)
        return recusal
