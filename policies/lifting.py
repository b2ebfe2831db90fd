"""Who may lift a block of the inspection: nobody a hard one, three people together a soft one.

The dataset's steward lifts it with a reason; the release then needs the steward's own vote and
those of two independent reviewers, on exactly what leaves.
"""

from __future__ import annotations

import dataclasses

from policies.document import Policy, Quorum
from policies.errors import Conflict, Denied, Invalid, _
from policies.review import Case, Party, check_can_vote

REVIEWERS = 2
MOST_REASON = 2000


def lifted(policy: Policy) -> Policy:
    """Return the policy under which something is voted on whose soft block was lifted."""
    rule: Quorum = policy.review.release
    stricter = dataclasses.replace(
        rule,
        quorum=max(rule.quorum, REVIEWERS),
        approvals=max(rule.approvals, REVIEWERS),
        distinct_units=True,
        steward=True,
    )
    return dataclasses.replace(policy, review=dataclasses.replace(policy.review, release=stricter))


def check_can_lift(case: Case, by: Party, policy: Policy, *, hard: int, soft: int) -> None:
    """Raise unless ``by`` may lift the blocks; ``hard`` and ``soft`` say how many there are.

    Raises Denied with the rule's sentence for anybody but the dataset's own, independent steward
    and for a hard block, Conflict where nothing is blocked.
    """
    if by.person != case.owner.person or "steward" not in by.roles:
        raise Denied(
            _("Only the dataset's steward lifts a block, and two reviewers must agree."),
            code="lift.steward",
        )
    check_can_vote(case, by, [], lifted(policy), "release")
    if hard:
        raise Denied(
            _("What the inspection found is never released: nobody lifts this block."),
            code="lift.hard",
        )
    if not soft:
        raise Conflict(_("Nothing is blocked here."), code="lift.nothing")


def check_reason(reason: str) -> str:
    """Return the reason, which stands in the evidence. Raises Invalid without one."""
    reason = reason.strip()
    if not reason or len(reason) > MOST_REASON:
        raise Invalid(
            _("Say why; it stands in the evidence of the release."),
            field="reason",
            code="lift.reason",
        )
    return reason
