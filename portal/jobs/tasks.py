"""Background work of jobs; every function looks at the rows and may be called at any time."""

from __future__ import annotations

from django.db.models import Q
from django.utils import timezone

from policies.errors import Conflict
from portal.access.models import Grant
from portal.access.queries import usable
from portal.jobs import actions, admission, checkpoints, engine, staging, workdir
from portal.jobs.line import free_rows
from portal.jobs.models import Job, StagedUse
from portal.jobs.transitions import LIVE
from portal.leases import free
from portal.tasking import hint, task
from sandbox_runner import lifecycle


@task("jobs.advance")
def advance(job_id: int) -> None:
    """Drive one job on."""
    engine.advance(job_id)


@task("jobs.clean", queue="short")
def clean(job_id: int) -> None:
    """Remove what is left of a job that ended while no worker held it."""
    job = Job.objects.exclude(state__in=LIVE).filter(pk=job_id).first()
    if job is not None:
        engine.clean(job)


@task("jobs.stop_lapsed", queue="short")
def stop_lapsed() -> None:
    """Stop the live jobs whose grant no longer lets anybody work."""
    for job in lapsed():
        try:
            actions.request_stop(job, reason="lapsed")
        except Conflict:
            continue  # it ended meanwhile


@task("jobs.sweep", queue="short")
def sweep() -> None:
    """Remove what killed workers left on this machine: sandboxes, staged copies, half files."""
    lifecycle.sweep()
    staging.sweep(admission.this_node())
    workdir.sweep()
    checkpoints.sweep()


@task("jobs.estimate", queue="short")
def estimate() -> None:
    """Note when each waiting job will likely start."""
    admission.estimate(admission.this_node())


def lapsed() -> list[Job]:
    """Return the live jobs whose grant has lapsed and which were not told yet."""
    good = Grant.objects.filter(usable(timezone.now()))
    return list(Job.objects.filter(state__in=LIVE, stop_requested="").exclude(grant__in=good))


def due() -> None:
    """Hint what the rows ask for: jobs that wait for a worker, lapsed grants, leftovers."""
    now = timezone.now()
    waiting = Job.objects.filter(free(), state__in=LIVE).filter(
        Q(retry_at=None) | Q(retry_at__lte=now)
    )
    for pk in waiting.order_by("pk").values_list("pk", flat=True)[:200]:
        hint("jobs.advance", pk, again_after=10)
    if lapsed():
        hint("jobs.stop_lapsed", again_after=10)
    left = StagedUse.objects.exclude(job__state__in=LIVE)
    for pk in left.values_list("job", flat=True).distinct():
        hint("jobs.clean", pk)
    if Job.objects.filter(free_rows()).exists():
        hint("jobs.estimate", again_after=30)
    hint("jobs.sweep", again_after=60)
