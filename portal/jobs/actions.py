"""Writes around jobs by people: handing a submission in, cancelling, stopping."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from django.db import transaction
from django.utils import timezone

from policies.access import check_can_get, check_grant_covers
from policies.document import Policy
from policies.errors import Conflict, Denied, Invalid, _
from policies.queue import PRIORITIES
from policies.submission import Manifest, parse_manifest
from policies.workflow import ADMINISTRATOR, APPLICANT, JOB, STEWARD, SYSTEM
from portal import blobs
from portal.access.models import Grant
from portal.access.queries import check_usable, facts_of
from portal.access.refusals import refusals_recorded
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.audit.record import record
from portal.catalog.models import DatasetVersion
from portal.catalog.queries import policy_of
from portal.jobs import checkpoints, ledger, storage
from portal.jobs.archive import Archive
from portal.jobs.models import Job, Submission
from portal.jobs.transitions import LIVE, move
from portal.leases import free
from portal.tasking import hint

# Live jobs of one grant at a time; more wait with their author, not with the queue.
MOST_LIVE_JOBS = 16


def read_submission(stream: BinaryIO, grant: Grant, policy: Policy) -> tuple[Archive, Manifest]:
    """Check an uploaded zip and its manifest. Raises Invalid or Denied naming the field."""
    archive = Archive(stream, policy)
    version = grant.version
    manifest = parse_manifest(
        archive.manifest_text(),
        policy,
        known_datasets=_known_datasets(),
        members=archive.names,
    )
    if not manifest.datasets:
        raise Invalid(
            _('Name the dataset: [datasets] {slug} = "{number}".'),
            field="datasets",
            code="manifest.datasets",
            slug=version.dataset.slug,
            number=version.number,
        )
    check_grant_covers(facts_of(grant), manifest.datasets)
    checkpoints.check_source(grant, manifest.checkpoint.source)
    return archive, manifest


def _known_datasets() -> dict[str, list[str]]:
    known: dict[str, list[str]] = {}
    rows = DatasetVersion.objects.filter(state="published").order_by("number")
    for slug, number in rows.values_list("dataset__slug", "number"):
        known.setdefault(slug, []).append(str(number))
    return known


def _check_size(stream: BinaryIO, policy: Policy) -> None:
    size = stream.seek(0, 2)
    stream.seek(0)
    if size > policy.submission.archive.bytes:
        raise Invalid(
            _("The archive is too large: at most {most} bytes."),
            field="archive",
            code="archive.total",
            most=policy.submission.archive.bytes,
        )


def submit(*, by: Person, grant: Grant, stream: BinaryIO) -> Job:
    """Take a zipped submission in under a grant and queue its job.

    ``stream`` is seekable. Nothing is unpacked here: the list of members and the manifest are
    read, everything else waits for a worker. The archive is kept encrypted; only the grant's
    analysts and the reviewers may open it. The same archive handed in twice at once (a double
    click) is one job. Raises Denied (recorded) without a usable grant, Invalid by field.
    """
    with refusals_recorded("submission.upload", by=by, about=grant):
        check_usable(grant, by)
        policy = policy_of(grant.version.dataset)
        check_can_get(grant.purpose, "train", policy)
        ledger.check_may_ask_sealed(grant, policy)
        _check_size(stream, policy)
        archive, manifest = read_submission(stream, grant, policy)
    stream.seek(0)
    digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    twin = _live_twin(grant, by, digest)
    if twin is not None:
        return twin
    stream.seek(0)
    kept = storage.keep(stream, context=storage.archive_context(grant.pk))
    try:
        with transaction.atomic():
            # The grant's row is the lock: it cannot lapse now, and of two equal uploads at once
            # the second finds the first.
            grant = Grant.objects.select_for_update().get(pk=grant.pk)
            check_usable(grant, by)
            job = _live_twin(grant, by, digest)
            if job is None:
                job = _create(by, grant, archive, manifest, kept)
    except BaseException:
        blobs.delete(kept.object_name)
        raise
    if job.submission.archive_object != kept.object_name:
        blobs.delete(kept.object_name)
    return job


def _live_twin(grant: Grant, by: Person, digest: str) -> Job | None:
    return Job.objects.filter(
        grant=grant,
        state__in=LIVE,
        submission__submitter=by,
        submission__archive_sha256=digest,
    ).first()


def _create(
    by: Person, grant: Grant, archive: Archive, manifest: Manifest, kept: storage.Kept
) -> Job:
    if Job.objects.filter(grant=grant, state__in=LIVE).count() >= MOST_LIVE_JOBS:
        raise Conflict(
            _("This grant has {most} jobs under way; wait for one to end, or cancel one."),
            code="job.many",
            most=MOST_LIVE_JOBS,
        )
    submission = Submission.objects.create(
        grant=grant,
        submitter=by,
        name=manifest.name,
        manifest_text=archive.manifest_text().decode(),
        manifest=manifest.as_mapping(),
        files=[list(row) for row in archive.sizes],
        archive_object=kept.object_name,
        archive_key=kept.wrapped_key,
        archive_sha256=kept.sha256,
        archive_bytes=kept.bytes,
    )
    job = Job.objects.create(
        submission=submission,
        grant=grant,
        version=grant.version,
        state=JOB.initial,
        waiting="check",
    )
    details = {"job": job.pk, "sha256": kept.sha256, "bytes": kept.bytes, "grant": grant.pk}
    record("submission.upload", by=by, about=submission, details=details)
    hint("jobs.advance", job.pk)
    return job


def _actor(job: Job, by: Person) -> tuple[str, str]:
    """Return the actor's word and the workflow's action for who wants a job to end."""
    if by.pk == job.submission.submitter_id or job.grant.holder_id == by.pk:
        return APPLICANT, "cancel"
    roles = roles_of(by)
    if "steward" in roles and job.version.dataset.steward_id == by.pk:
        return STEWARD, "stop"
    if "administrator" in roles:
        return ADMINISTRATOR, "stop"
    raise Denied(
        _("Only who handed the job in, the dataset's steward or an administrator may stop it."),
        code="job.stop",
    )


def cancel(*, by: Person, job: Job) -> Job:
    """End a job: its submitter or the grant's holder cancels, steward or administrator evicts.

    A job that no worker holds ends at once; otherwise the worker that runs it ends its sandbox
    within seconds. Raises Denied (recorded), Conflict where it has ended.
    """
    with refusals_recorded("job.cancel", by=by, about=job):
        actor, action = _actor(job, by)
        reason = "cancelled" if actor == APPLICANT else "evicted"
        return request_stop(job, reason=reason, actor=actor, by=by, action=action)


def may_prioritise(job: Job, by: Person) -> tuple[int, ...]:
    """Return the priorities that a person may give a job; empty where it is not theirs to say.

    Who handed it in may let others go first; only an administrator puts it before others.
    """
    if "administrator" in roles_of(by):
        return tuple(PRIORITIES)
    if by.pk in (job.submission.submitter_id, job.grant.holder_id):
        return tuple(number for number in PRIORITIES if number <= 0)
    return ()


def prioritise(*, by: Person, job: Job, priority: int) -> Job:
    """Let a job that waits go before or behind others.

    Raises Denied (recorded) for whoever may not say so, Conflict where it has begun.
    """
    with refusals_recorded("job.prioritise", by=by, about=job):
        if priority not in may_prioritise(job, by):
            raise Denied(
                _(
                    "Who handed a job in may let others go first; an administrator may put it "
                    "before them."
                ),
                code="job.priority",
            )
    with transaction.atomic():
        rows = Job.objects.filter(pk=job.pk, state__in=("submitted", "checked", "queued"))
        if rows.update(priority=priority) != 1:
            raise Conflict(_("The job does not wait any more."), code="job.begun")
        record("job.prioritise", by=by, about=job, details={"priority": priority})
    hint("jobs.advance", job.pk)
    job.refresh_from_db()
    return job


@transaction.atomic
def request_stop(
    job: Job, *, reason: str, actor: str = SYSTEM, by: Person | None = None, action: str = "stop"
) -> Job:
    """Stop a live job now, or ask the worker that holds it to. A second request changes nothing."""
    row = Job.objects.select_for_update().get(pk=job.pk)
    JOB.next_state(row.state, action, actor)
    if row.stop_requested:
        return row
    Job.objects.filter(pk=row.pk).update(stop_requested=reason, stop_requested_by=by)
    if Job.objects.filter(free(), pk=row.pk).exists():
        move(row, action, actor=actor, by=by, reason=reason, stop_requested=reason)
        hint("jobs.clean", row.pk)
    else:
        details = {"reason": reason, "state": row.state, "at": timezone.now().isoformat()}
        record(f"job.{action}.request", by=by, about=row, details=details)
    row.refresh_from_db()
    return row
