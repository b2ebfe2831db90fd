"""Drive one job as far as it goes now. Calling this too often, or from two workers, is harmless."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F
from django.utils import timezone

from policies.errors import Conflict
from portal import leases
from portal.access.models import Grant
from portal.access.queries import usable
from portal.jobs import admission, examination, staging, steps, workdir
from portal.jobs.models import Job, JobStep, Node
from portal.jobs.transitions import LIVE, begin, move, set_waiting
from portal.jobs.watch import Stopped
from portal.leases import Lease, LeaseLost
from portal.tasking import TryAgain, hint

LEASE_SECONDS = 60
# Between attempts at a step that failed for a reason of ours.
RETRY_SECONDS = 10
# A machine that was not seen for this long has lost its jobs.
NODE_LOST = timedelta(minutes=5)

Step = Callable[[Job, Lease, Node], None]
STEPS: dict[str, Step] = {
    "submitted": steps.check,
    "checked": steps.queue,
    "staging": steps.stage,
    "running": steps.run,
    "collecting": steps.collect,
    "inspecting": examination.inspect,
}


def _load(job_id: int) -> Job:
    return Job.objects.select_related("submission", "grant__unit", "version__dataset", "node").get(
        pk=job_id
    )


def advance(job_id: int) -> None:
    """Do what a job's state asks for, step after step, while this worker holds its lease."""
    node = admission.this_node()
    with leases.hold(Job.objects.filter(state__in=LIVE), job_id, seconds=LEASE_SECONDS) as lease:
        if lease is None:
            return
        while (job := _load(job_id)).state in LIVE:
            if job.retry_at is not None and job.retry_at > timezone.now():
                break
            if _stopped(job, lease) or not _here(job, lease, node):
                break
            if job.state == "queued":
                moved = admission.admit(job, lease, node)
            else:
                moved = _do(job, lease, node)
            if not moved:
                break
    job = _load(job_id)
    if job.state not in LIVE:
        clean(job)
        _wake_queue(node)


def _stopped(job: Job, lease: Lease) -> bool:
    """End a job that was asked to end, or whose grant has lapsed."""
    reason = job.stop_requested
    if not reason and not Grant.objects.filter(usable(timezone.now()), pk=job.grant_id).exists():
        reason = "lapsed"
    if not reason:
        return False
    move(job, "stop", lease=lease, reason=reason)
    return True


def _here(job: Job, lease: Lease, node: Node) -> bool:
    """Whether this machine is the one that holds the job's plain files."""
    if job.node_id is None or job.node_id == node.pk or job.state in ("submitted", "checked"):
        return True
    if job.node is not None and job.node.seen_at > timezone.now() - NODE_LOST:
        return False
    if job.state in ("staging", "running"):
        move(job, "requeue", lease=lease, node=None, waiting="queue", waiting_facts={})
    elif job.state == "collecting":
        move(job, "stop", lease=lease, reason="node-lost")
    elif job.state == "inspecting":
        # Artefacts are in the object store: any machine can examine them.
        Job.objects.filter(pk=job.pk).update(node=node)
        return True
    return False


def _do(job: Job, lease: Lease, node: Node) -> bool:
    """Begin the step of the job's state; True when the job has moved."""
    opened = begin(job, lease)
    if opened is None:
        move(
            job,
            "stop",
            lease=lease,
            reason="node-lost",
            message=f"The step {job.state} was begun several times and never ended.",
        )
        return True
    before = job.state
    try:
        STEPS[before](job, lease, node)
    except Stopped as stopped:
        move(job, "stop", lease=lease, reason=stopped.reason)
        return True
    except TryAgain as error:
        _put_off(job, opened, lease, counts=False, waiting=error.waiting, facts=error.facts)
        raise
    except (LeaseLost, OperationalError, InterfaceError):
        raise
    except Exception:
        _put_off(job, opened, lease, counts=True)
        raise
    job.refresh_from_db()
    return job.state != before


def _put_off(
    job: Job,
    opened: JobStep,
    lease: Lease,
    *,
    counts: bool,
    waiting: str = "retry",
    facts: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Note that a step did not end, why, and when it is tried again."""
    with transaction.atomic():
        lease.check()
        now = timezone.now()
        JobStep.objects.filter(pk=opened.pk, ended_at=None).update(ended_at=now, result="retry")
        changes: dict[str, object] = {
            "retry_at": now + timedelta(seconds=RETRY_SECONDS if counts else 2)
        }
        if not counts:
            changes["attempts"] = F("attempts") - 1
        Job.objects.filter(pk=job.pk, state=opened.state).update(**changes)
        set_waiting(job, waiting, **facts)


def clean(job: Job) -> None:
    """Remove what this machine holds of a job that has ended; idempotent."""
    if job.state in LIVE:
        raise Conflict("The job has not ended.", code="job.live")
    staging.leave(job)
    workdir.remove(job)


def _wake_queue(node: Node) -> None:
    """Room may have become free: let those look whose turn it is."""
    for pk in admission.startable(node):
        hint("jobs.advance", pk)
