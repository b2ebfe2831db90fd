"""What a reviewer must have looked at before agreeing to a release: the policy's checklist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policies.errors import Invalid, _
from policies.review import APPROVE

# Every line that a policy may ask for, in the order in which it is shown.
LINES: Mapping[str, str] = {
    "artefacts": _("What leaves is what the work needs, and no more."),
    "findings": _("I have read every finding, with its internal part."),
    "code": _("I have read the code where the scan points, and where data are written."),
    "metrics": _("The metrics say nothing of single subjects."),
    "history": _("With the earlier releases and the ledger, the whole is still proportionate."),
    "changes": _("I have read what changed since the last released submission."),
    "subgroups": _("No row of a subgroup table tells of a few people."),
    "purpose": _("The model is what the grant's purpose asks for."),
}


def check_looked_at(asked: Iterable[str], choice: str, looked_at: Iterable[str]) -> tuple[str, ...]:
    """Return what was ticked, in the list's order.

    Raises Invalid for a line that is not on the list, and for an approval that lacks one.
    """
    asked, ticked = tuple(asked), set(looked_at)
    if not ticked <= set(asked):
        raise Invalid(
            _("The checklist has no such line."), field="looked_at", code="review.checklist"
        )
    if choice == APPROVE and ticked != set(asked):
        raise Invalid(
            _("Tick what you have looked at; an approval needs all of it."),
            field="looked_at",
            code="review.checklist",
        )
    return tuple(line for line in LINES if line in ticked)
