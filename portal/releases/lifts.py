"""The steward lifts what softly blocks a job; a hard block is never lifted."""

from __future__ import annotations

from django.db import IntegrityError, transaction

from policies.errors import Conflict, _
from policies.lifting import check_can_lift, check_reason
from portal.access.refusals import refusals_recorded
from portal.accounts.models import Person
from portal.audit.record import record
from portal.catalog.queries import policy_of
from portal.jobs.models import Job
from portal.jobs.queries import blocking, blocks_digest, case_of_job
from portal.releases.models import Lift
from portal.voting.parties import party


def lift(*, by: Person, job: Job, reason: str) -> Lift:
    """Lift the soft blocks of a finished job as they are now.

    Raises Denied (recorded) for anybody but the dataset's independent steward and for a hard
    block, Conflict where nothing is blocked or it was lifted already, Invalid without a reason.
    """
    with refusals_recorded("block.lift", by=by, about=job):
        try:
            return _lift(by, job, reason)
        except IntegrityError:
            raise Conflict(_("This block was lifted already."), code="lift.twice") from None


@transaction.atomic
def _lift(by: Person, job: Job, reason: str) -> Lift:
    job = Job.objects.select_for_update(of=("self",)).get(pk=job.pk)
    inspection = getattr(job, "inspection", None)
    found = blocking(inspection) if inspection is not None else []
    hard = sum(row.hard for row in found)
    case = case_of_job(job, conflict=True)
    policy = policy_of(job.version.dataset)
    check_can_lift(case, party(by), policy, hard=hard, soft=len(found) - hard)
    if job.state != "finished" or inspection is None:
        raise Conflict(_("Nothing is blocked here."), code="lift.nothing")
    row = Lift.objects.create(
        job=job, steward=by, reason=check_reason(reason), bound_to=blocks_digest(inspection)
    )
    details = {
        "reason": row.reason,
        "rules": [finding.rule for finding in found],
        "bound_to": row.bound_to,
    }
    record("block.lift", by=by, about=job, details=details)
    return row
