"""What every vote, every recusal and every move by them asks, whatever is voted on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from django.db.models import Manager
from django.utils import timezone

from policies.errors import Invalid, _
from policies.review import APPROVE, ROLE_OF, check_can_recuse, check_can_vote
from policies.workflow import Machine
from portal.accounts.models import Person
from portal.audit.record import record
from portal.voting.ballots import Ballot
from portal.voting.models import RecusalRow
from portal.voting.parties import party

MOST_COMMENT = 5000
R = TypeVar("R", bound=RecusalRow)


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


def check_may_cast(
    ballot: Ballot[Any], by: Person, machine: Machine, state: str, *, choice: str, bound_to: str
) -> None:
    """Raise unless ``by`` may vote ``choice`` now on what they saw (``bound_to``)."""
    me, actor = party(by), ROLE_OF[ballot.kind]
    if not machine.allows(state, choice, actor):
        # Who may not vote at all hears that first, whatever the state.
        check_can_vote(ballot.case, me, [], ballot.policy, ballot.kind)
        machine.next_state(state, choice, actor)
    check_can_vote(ballot.case, me, ballot.votes, ballot.policy, ballot.kind, bound_to=bound_to)


def comments(votes: Manager[Any], *, bound_to: str, choice: str) -> str:
    """Return what those of one choice wrote, unnamed, in the order in which they voted."""
    rows = votes.filter(bound_to=bound_to, choice=choice).exclude(comment="")
    return "\n\n".join(rows.order_by("pk").values_list("comment", flat=True))


def recuse(
    recusals: Manager[R], ballot: Ballot[Any], by: Person, *, is_open: bool, reason: str
) -> tuple[R, bool]:
    """Keep that ``by`` leaves the judgement to others; whether it is new, too."""
    check_can_recuse(
        ballot.case, party(by), ballot.votes, ballot.policy, ballot.kind, is_open=is_open
    )
    return recusals.get_or_create(person=by, defaults={"reason": reason.strip()[:MOST_COMMENT]})


def move(
    row: Any, machine: Machine, noun: str, action: str, actor: str, *, by: Person | None,
    said: Mapping[str, Any] | None = None, **changes: Any,
) -> None:  # fmt: skip
    """Move a locked row by its state machine, note when, and record ``<noun>.<action>``.

    ``said`` are further details of the audit event.
    """
    before = row.state
    row.state = machine.next_state(before, action, actor)
    for name, value in changes.items():
        setattr(row, name, value)
    row.save(update_fields=["state", *changes])
    now = timezone.now()
    row.steps.filter(left_at=None).update(left_at=now)
    row.steps.create(state=row.state, entered_at=now)
    details = {"from": before, "to": row.state, "round": row.round, **(said or {})}
    record(f"{noun}.{action}", by=by, about=row, details=details)
