"""How a job moves: one conditional step, its record and its audit event, in one transaction."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from policies.errors import Conflict, _
from policies.workflow import JOB, SYSTEM
from portal.accounts.models import Person
from portal.audit.record import record
from portal.jobs.models import Job, JobStep
from portal.leases import Lease
from sandbox_runner.spec import REASONS

LIVE = tuple(state for state in JOB.states if state not in JOB.final_states)
# A step that was begun this often and never ended is not begun again.
MOST_ATTEMPTS = 5


def begin(job: Job, lease: Lease) -> JobStep | None:
    """Open a step for the job's present state; None when it was begun too often already.

    A step that is still open belonged to a worker that died: it is closed as lost.
    """
    with transaction.atomic():
        lease.check()
        now = timezone.now()
        JobStep.objects.filter(job=job, ended_at=None).update(ended_at=now, result="lost")
        if job.attempts >= MOST_ATTEMPTS:
            return None
        Job.objects.filter(pk=job.pk).update(attempts=F("attempts") + 1)
        job.refresh_from_db()
        return JobStep.objects.create(job=job, state=job.state, owner=lease.owner, began_at=now)


def move(
    job: Job,
    action: str,
    *,
    actor: str = SYSTEM,
    by: Person | None = None,
    lease: Lease | None = None,
    keep_attempts: bool = False,
    **changes: Any,
) -> Job:
    """Move ``job`` by the state machine and set ``changes`` in the same UPDATE.

    Inside the caller's transaction, or one of its own. With a lease the worker must still hold
    it; without one nobody may. Raises LeaseLost or Conflict, and then nothing has changed.
    """
    following = JOB.next_state(job.state, action, actor)
    if following in JOB.final_states:
        reason = changes.get("reason", "")
        if reason not in REASONS[following]:
            raise ValueError(f"{reason!r} is no reason for {following}")
        changes |= {"ended_at": timezone.now(), "waiting": "", "waiting_facts": {}}
    now = timezone.now()
    with transaction.atomic():
        if lease is not None:
            lease.check()
        rows = Job.objects.filter(pk=job.pk, state=job.state)
        changes |= {"state": following, "state_since": now, "retry_at": None}
        if not keep_attempts:
            changes["attempts"] = 0
        if rows.update(**changes) != 1:
            raise Conflict(_("Somebody else has just moved this job on; look again."), code="race")
        JobStep.objects.filter(job=job, ended_at=None).update(ended_at=now, result=following)
        before = job.state
        job.refresh_from_db()
        record(
            f"job.{action}",
            by=by,
            about=job,
            details={"from": before, "to": following, "reason": job.reason},
        )
    return job


def set_waiting(job: Job, code: str, **facts: int | float | str) -> None:
    """Say why a job waits; the row changes only when the reason does."""
    if (job.waiting, job.waiting_facts) != (code, facts):
        Job.objects.filter(pk=job.pk).update(waiting=code, waiting_facts=facts)
        job.waiting, job.waiting_facts = code, facts
