"""The committee's side of a request: recusing oneself, voting, and what the votes decide."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from policies.errors import Conflict, Denied, Invalid, _
from policies.review import APPROVE, REJECT, RETURN, check_can_vote, check_choice
from policies.workflow import ACCESS_REQUEST, COMMITTEE
from portal.access import queries
from portal.access.actions import locked, move
from portal.access.models import AccessRequest, Recusal, RequestVote
from portal.access.parties import party
from portal.access.refusals import refusals_recorded
from portal.accounts.models import Person
from portal.audit.record import record

_ACTION_OF = {"approved": APPROVE, "rejected": REJECT, "returned": RETURN}
MOST_COMMENT = 5000


def check_comment(comment: str, choice: str) -> str:
    """Return a vote's comment; whoever does not approve says why."""
    comment = comment.strip()
    if len(comment) > MOST_COMMENT:
        raise Invalid(
            _("At most {most} characters."), field="comment", code="vote.comment", most=MOST_COMMENT
        )
    if choice != APPROVE and not comment:
        raise Invalid(_("Say why; it is read by who asked."), field="comment", code="vote.reason")
    return comment


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
    case, policy = queries.case_of(request), queries.policy_for(request)
    votes = [vote for _row, vote in queries.votes_on(request)]
    if not ACCESS_REQUEST.allows(request.state, choice, COMMITTEE):
        # Who may not vote at all hears that first, whatever the state.
        check_can_vote(case, party(by), [], policy, "access")
        ACCESS_REQUEST.next_state(request.state, choice, COMMITTEE)
    check_can_vote(case, party(by), votes, policy, "access", bound_to=bound_to)
    vote = RequestVote.objects.create(
        request=request,
        voter=by,
        choice=choice,
        comment=check_comment(comment, choice),
        bound_to=request.bound_to,
    )
    details = {"choice": choice, "bound_to": request.bound_to, "round": request.round}
    record("request.vote", by=by, about=request, details=details)
    decision = queries.decision_on(request)
    if decision.state in _ACTION_OF:
        move(
            request,
            _ACTION_OF[decision.state],
            COMMITTEE,
            by=None,
            reason=_reasons(request, decision.state),
            decided_at=timezone.now(),
        )
    return vote


def _reasons(request: AccessRequest, state: str) -> str:
    """Return the comments that the applicant reads: those of the side that decided, unnamed."""
    choice = _ACTION_OF[state]
    rows = request.votes.filter(bound_to=request.bound_to, choice=choice).exclude(comment="")
    return "\n\n".join(rows.order_by("pk").values_list("comment", flat=True))


def recuse(*, by: Person, request: AccessRequest, reason: str = "") -> Recusal:
    """Say that one is too close to this request to judge it; it cannot be taken back."""
    with refusals_recorded("request.recuse", by=by, about=request), transaction.atomic():
        request = locked(request)
        if "committee" not in party(by).roles:
            raise Denied(
                _("Only people with the role {role} vote on this."),
                code="review.role",
                role="committee",
            )
        if request.state != "in_review":
            raise Conflict(_("Nobody votes on this request now."), code="request.closed")
        if request.votes.filter(voter=by, bound_to=request.bound_to).exists():
            raise Conflict(_("You have voted on this already."), code="review.twice")
        recusal, created = Recusal.objects.get_or_create(
            request=request, person=by, defaults={"reason": reason.strip()[:MOST_COMMENT]}
        )
        if created:
            record("request.recuse", by=by, about=request)
        return recusal
