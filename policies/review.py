"""Quorum, independence, conflict of interest, and who may see whose vote.

A vote counts only while it is bound to exactly what was submitted, and only if its voter could
cast it: :func:`decide` asks again, so that a row that slipped in decides nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from policies.document import Policy, Quorum
from policies.errors import Conflict, Denied, Invalid, UserError, _

Kind = Literal["access", "release"]
APPROVE, REJECT, RETURN = "approve", "reject", "return"
CHOICES = (APPROVE, REJECT, RETURN)
ROLE_OF: dict[str, str] = {"access": "committee", "release": "reviewer"}
# What a decision does with what was voted on: the action of policies.workflow, and the choice of
# the side that decided.
ACTION_OF: dict[str, str] = {"approved": APPROVE, "rejected": REJECT, "returned": RETURN}


@dataclass(frozen=True, slots=True)
class Party:
    """A person as the rules see them. ``external``: not of the organisation that runs the portal.

    ``roles`` are the words steward, committee, officer, reviewer, auditor, administrator.
    """

    person: str
    unit: str
    organisation: str
    roles: frozenset[str] = frozenset()
    external: bool = False


@dataclass(frozen=True, slots=True)
class Vote:
    """One vote; ``bound_to`` is the SHA-256 of what the voter saw."""

    voter: Party
    choice: str
    bound_to: str


@dataclass(frozen=True, slots=True)
class Case:
    """What is voted on: who asks, who owns the dataset, and the SHA-256 of what is submitted.

    ``named``: the only reviewers who may see and judge it, None where any may.
    """

    applicant: Party
    owner: Party
    analysts: frozenset[str]
    conflict_declared: bool
    bound_to: str
    recused: frozenset[str] = frozenset()
    named: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the votes say: open, approved, rejected, returned or conflicted.

    ``reason`` is a sentence; ``needed`` are sentences on what is missing while open, none of
    which tells how anybody voted. ``revealed``: the quorum has voted, so votes may be seen.
    """

    state: str
    reason: str
    needed: tuple[str, ...] = ()
    counted: int = 0
    quorum: int = 0
    revealed: bool = False
    barred: frozenset[str] = field(default=frozenset(), repr=False)


def rule_of(policy: Policy, kind: Kind) -> Quorum:
    """Return the quorum of this kind of vote."""
    return policy.review.access if kind == "access" else policy.review.release


def has_conflict(case: Case) -> bool:
    """Whether the applicant and the owner share an organisation, or a conflict was declared."""
    return case.conflict_declared or _same(case.applicant.organisation, case.owner.organisation)


def check_can_vote(
    case: Case,
    voter: Party,
    votes: Sequence[Vote],
    policy: Policy,
    kind: Kind = "access",
    *,
    bound_to: str | None = None,
) -> None:
    """Raise unless ``voter`` may vote on ``case`` now; the sentence is the rule.

    ``bound_to`` is what the voter's page showed, if the caller knows it. Raises Denied for a
    person who may not, Conflict where the vote comes twice, too late, or on something older.
    """
    _check_eligible(case, voter, policy, kind)
    if not case.bound_to or (bound_to is not None and bound_to != case.bound_to):
        raise Conflict(
            _("What you saw has changed since; please look at it again."), code="review.changed"
        )
    current = [vote for vote in votes if vote.bound_to == case.bound_to]
    if any(vote.voter.person == voter.person for vote in current):
        raise Conflict(_("You have voted on this already."), code="review.twice")
    if decide(case, votes, policy, kind).state not in ("open", "conflicted"):
        raise Conflict(_("This has been decided already."), code="review.decided")
    rule = rule_of(policy, kind)
    if rule.distinct_units and not _is_steward_vote(case, voter, rule):
        for vote in _counted(case, votes, policy, kind)[0]:
            if _same_unit(vote.voter, voter):
                raise Denied(
                    _("Somebody of your unit has voted on this; reviewers must be independent."),
                    code="review.voters-unit",
                )


def can_vote(
    case: Case, voter: Party, votes: Sequence[Vote], policy: Policy, kind: Kind = "access"
) -> bool:
    """Whether :func:`check_can_vote` holds."""
    try:
        check_can_vote(case, voter, votes, policy, kind)
    except UserError:
        return False
    return True


def check_can_recuse(
    case: Case,
    voter: Party,
    votes: Sequence[Vote],
    policy: Policy,
    kind: Kind = "access",
    *,
    is_open: bool,
) -> None:
    """Raise unless ``voter`` may leave the judgement to others: who votes, and has not yet."""
    _check_role(case, voter, policy, kind)
    if not is_open:
        raise Conflict(_("Nobody votes on this now."), code="review.closed")
    if any(v.voter.person == voter.person and v.bound_to == case.bound_to for v in votes):
        raise Conflict(_("You have voted on this already."), code="review.twice")


def check_can_be_named(case: Case, person: Party, policy: Policy) -> None:
    """Raise Invalid, with the rule's sentence, for who could not review a release if named."""
    named = replace(case, named=(case.named or frozenset()) | {person.person})
    try:
        if ROLE_OF["release"] not in person.roles:
            _check_role(named, replace(person, roles=frozenset()), policy, "release")
        _check_eligible(named, person, policy, "release")
    except Denied as refused:
        raise Invalid(str(refused), field="reviewers", code=refused.code) from None


def check_choice(choice: object) -> str:
    """Return a vote's choice, or raise Invalid."""
    if choice not in CHOICES:
        raise Invalid(
            _("A vote is approve, reject or return."), field="choice", code="review.choice"
        )
    return str(choice)


def decide(case: Case, votes: Sequence[Vote], policy: Policy, kind: Kind = "access") -> Decision:
    """Return what the votes decide. Votes are given in the order in which they were cast.

    Nothing is decided before the quorum with its internal and external members (and, where the
    policy says so, the steward) has voted. Then a choice needs more than half of the votes;
    approval needs the policy's number too and, in a conflict of interest, more than half of the
    external votes. Without such a majority it is conflicted, and a further vote may settle it.
    """
    rule = rule_of(policy, kind)
    counted, steward = _counted(case, votes, policy, kind)
    external = [vote for vote in counted if _is_external(case, vote.voter)]
    needed = _missing(case, rule, counted, external, steward)
    choices = [vote.choice for vote in counted]
    approvals = choices.count(APPROVE)

    def decision(state: str, reason: str) -> Decision:
        return Decision(
            state=state,
            reason=reason,
            needed=needed,
            counted=len(counted),
            quorum=rule.quorum,
            revealed=state != "open",
            barred=case.analysts | {case.applicant.person},
        )

    if needed:
        return decision("open", _("Votes are still missing."))
    majority = [choice for choice in CHOICES if choices.count(choice) * 2 > len(choices)]
    if (steward is not None and steward.choice == REJECT) or majority == [REJECT]:
        return decision("rejected", _("It was rejected."))
    if (steward is not None and steward.choice == RETURN) or majority == [RETURN]:
        return decision("returned", _("It was returned for changes."))
    if not approvals:
        return decision("returned", _("Nobody approved it; it was returned for changes."))
    if majority == [APPROVE] and approvals >= rule.approvals:
        agreeing = sum(vote.choice == APPROVE for vote in external)
        if not _needs_external_majority(case, rule) or agreeing * 2 > len(external):
            return decision("approved", _("It was approved."))
    return decision("conflicted", _("The votes disagree; a further vote may settle it."))


def visible_votes(viewer: Party, votes: Sequence[Vote], decision: Decision) -> tuple[Vote, ...]:
    """Return the votes that ``viewer`` may see.

    Auditors, who cannot vote, see all. Those who decide see their own until the quorum has
    voted, then all. The applicant, the analysts and everybody else see none.
    """
    if "auditor" in viewer.roles and viewer.person not in decision.barred:
        return tuple(votes)
    if viewer.person in decision.barred or not viewer.roles & {"committee", "reviewer", "steward"}:
        return ()
    if decision.revealed:
        return tuple(votes)
    return tuple(vote for vote in votes if vote.voter.person == viewer.person)


def _check_role(case: Case, voter: Party, policy: Policy, kind: Kind) -> None:
    if ROLE_OF[kind] not in voter.roles and not _is_steward_vote(
        case, voter, rule_of(policy, kind)
    ):
        raise Denied(
            _("Only people with the role {role} vote on this."),
            code="review.role",
            role=ROLE_OF[kind],
        )


def _check_eligible(case: Case, voter: Party, policy: Policy, kind: Kind) -> None:
    if voter.person == case.applicant.person or voter.person in case.analysts:
        raise Denied(_("Applicants and analysts do not vote on their own work."), code="review.own")
    if voter.roles & {"administrator", "auditor"}:
        raise Denied(_("Administrators and auditors do not vote."), code="review.administrator")
    _check_role(case, voter, policy, kind)
    unnamed = case.named is not None and voter.person not in case.named
    if unnamed and not _is_steward_vote(case, voter, rule_of(policy, kind)):
        raise Denied(
            _("The network is a secret of its owner: only the reviewers named for it see it."),
            code="review.named",
        )
    if voter.person in case.recused:
        raise Denied(_("You have recused yourself from this."), code="review.recused")
    if not _normal(voter.organisation):
        raise Denied(
            _("Your organisation is not known, so your independence cannot be shown."),
            code="review.organisation",
        )
    if _same_unit(voter, case.applicant):
        raise Denied(
            _("You are of the applicant's unit; somebody independent must vote."),
            code="review.same-unit",
        )
    of_applicant = _same(voter.organisation, case.applicant.organisation)
    if of_applicant and not _same(case.applicant.organisation, case.owner.organisation):
        raise Denied(
            _("You are of the applicant's organisation; somebody independent must vote."),
            code="review.same-organisation",
        )


def _counted(
    case: Case, votes: Sequence[Vote], policy: Policy, kind: Kind
) -> tuple[list[Vote], Vote | None]:
    """Return the votes that count towards the quorum, and the steward's where it is asked for."""
    rule = rule_of(policy, kind)
    counted: list[Vote] = []
    steward: Vote | None = None
    people: set[str] = set()
    for vote in votes:
        if not case.bound_to or vote.bound_to != case.bound_to or vote.choice not in CHOICES:
            continue
        try:
            _check_eligible(case, vote.voter, policy, kind)
        except Denied:
            continue
        if vote.voter.person in people:
            continue
        if _is_steward_vote(case, vote.voter, rule):
            people.add(vote.voter.person)
            steward = vote
            continue
        if rule.distinct_units and any(_same_unit(vote.voter, v.voter) for v in counted):
            continue
        people.add(vote.voter.person)
        counted.append(vote)
    return counted, steward


def _missing(
    case: Case, rule: Quorum, counted: list[Vote], external: list[Vote], steward: Vote | None
) -> tuple[str, ...]:
    inside = len(counted) - len(external)
    missing: list[str] = []
    if _same(case.applicant.organisation, case.owner.organisation) and not case.conflict_declared:
        missing.append(
            _("The applicant and the owner share an organisation: this must be declared first.")
        )
    if len(counted) < rule.quorum:
        missing.append(_("More votes are needed for the quorum."))
    if inside < rule.internal:
        missing.append(_("An internal member has to vote."))
    if len(external) < rule.external:
        missing.append(_("An external member has to vote."))
    if _needs_external_majority(case, rule) and len(external) <= inside:
        missing.append(_("Most votes have to come from external members."))
    if rule.steward and steward is None:
        missing.append(_("The dataset's steward has to agree."))
    return tuple(missing)


def _needs_external_majority(case: Case, rule: Quorum) -> bool:
    return rule.external_majority_on_conflict and has_conflict(case)


def _is_steward_vote(case: Case, voter: Party, rule: Quorum) -> bool:
    """Whether this person votes as the owner; then not as a member of the quorum as well."""
    return rule.steward and voter.person == case.owner.person and "steward" in voter.roles


def _is_external(case: Case, voter: Party) -> bool:
    """Whether a vote counts as external: of neither the owner's organisation nor the applicant's.

    The flag alone is not believed: an expert of the hospital that owns the dataset is internal to
    it, whoever runs the portal.
    """
    return voter.external and not (
        _same(voter.organisation, case.owner.organisation)
        or _same(voter.organisation, case.applicant.organisation)
    )


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _same(one: str, other: str) -> bool:
    """Whether two names are one; an unknown one may be any, so it is taken as the same."""
    return not _normal(one) or not _normal(other) or _normal(one) == _normal(other)


def _same_unit(one: Party, other: Party) -> bool:
    return _same(one.organisation, other.organisation) and _same(one.unit, other.unit)
