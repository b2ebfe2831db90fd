"""A vote as it stands, and what one person may know of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from policies.document import Policy
from policies.errors import UserError
from policies.review import Case, Decision, Kind, Vote, check_can_vote, decide, visible_votes
from portal.accounts.models import Person
from portal.voting.models import VoteRow
from portal.voting.parties import party

V = TypeVar("V", bound=VoteRow)


@dataclass(frozen=True)
class Ballot(Generic[V]):
    """What is voted on under which policy, and the votes on what it is now, as they were cast."""

    kind: Kind
    case: Case
    policy: Policy
    pairs: tuple[tuple[V, Vote], ...]

    @property
    def votes(self) -> list[Vote]:
        """Return the votes as the rules see them."""
        return [vote for _row, vote in self.pairs]

    @property
    def decision(self) -> Decision:
        """Return what the votes say."""
        return decide(self.case, self.votes, self.policy, self.kind)


def ballot_of(kind: Kind, case: Case, policy: Policy, rows: Iterable[V]) -> Ballot[V]:
    """Return the ballot on ``case``; ``rows`` may hold votes on what it was before."""
    current = sorted((row for row in rows if row.bound_to == case.bound_to), key=lambda r: r.pk)
    pairs = tuple((row, Vote(party(row.voter), row.choice, row.bound_to)) for row in current)
    return Ballot(kind, case, policy, pairs)


@dataclass(frozen=True)
class VotingView(Generic[V]):
    """What one person may know of the voting; ``bound_to`` is what a vote would agree to."""

    bound_to: str
    decision: Decision
    votes: tuple[V, ...]
    may_vote: bool
    why_not: UserError | None


def seen_by(ballot: Ballot[V], viewer: Person, *, is_open: bool) -> VotingView[V]:
    """Return the voting as ``viewer`` may see it: blind until the quorum has voted."""
    me, decision = party(viewer), ballot.decision
    seen = visible_votes(me, ballot.votes, decision)
    why_not: UserError | None = None
    may_vote = is_open
    if may_vote:
        try:
            check_can_vote(ballot.case, me, ballot.votes, ballot.policy, ballot.kind)
        except UserError as error:
            may_vote, why_not = False, error
    return VotingView(
        bound_to=ballot.case.bound_to,
        decision=decision,
        votes=tuple(row for row, vote in ballot.pairs if vote in seen),
        may_vote=may_vote,
        why_not=why_not,
    )
