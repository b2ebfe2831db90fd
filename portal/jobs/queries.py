"""Reads of jobs with a rule in them: who sees a job, its numbers, its code, its log."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, BinaryIO

from django.db import transaction
from django.db.models import Q, QuerySet, prefetch_related_objects
from django.utils import timezone

from policies.access import can_get
from policies.document import stricter_since
from policies.errors import Denied, _
from policies.review import Case, check_can_vote
from policies.workflow import APPLICANT, JOB
from portal.access.refusals import refusals_recorded
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.audit.record import record
from portal.catalog.queries import policy_of
from portal.jobs import storage
from portal.jobs.admission import ahead_of
from portal.jobs.models import Artefact, Finding, Inspection, Job, Submission, Tick
from portal.jobs.rounding import rounded_minute
from portal.jobs.transitions import LIVE
from portal.voting.parties import party

# Why a job waits, as its applicant reads it; filled with the row's ``waiting_facts``.
WAITING: Mapping[str, str] = {
    "check": _("The submission is about to be checked."),
    "queue": _("It is in line; {ahead} jobs are before it."),
    "cpus": _("It waits for {wanted} processor cores; {free} are free now."),
    "memory": _("It waits for memory: {wanted} are asked for, {free} are free now."),
    "gpus": _("It waits for {wanted} GPUs; {free} are free now."),
    "organisation": _(
        "Your organisation's jobs hold {held} % of the machine. While others wait for room it may "
        "hold {share} %."
    ),
    "person": _(
        "Your own jobs hold {held} % of the machine. While others wait for room you may hold "
        "{share} %."
    ),
    "reserved": _("The room that is free is kept for a larger job that comes before it."),
    "staging": _("The data are being decrypted and verified."),
    "room": _("It waits for room for the data: {wanted} are needed, {free} are free now."),
    "collecting": _("Its files are being collected."),
    "inspecting": _("Its files are being inspected."),
    "retry": _("The last attempt did not end; it is tried again shortly."),
    "stopping": _("It is being stopped."),
}

# What a job's page asks for again and again, for `surround`.
AROUND = (
    "grant__analysts",
    "releases__named",
    "inspection__findings",
    "artefacts",
    "steps",
    "lifts__steward",
)


def jobs_visible_to(person: Person) -> QuerySet[Job]:
    """Return the jobs whose state a person may see.

    The grant's analysts and holder, the dataset's steward, auditors; reviewers where a release
    was proposed; administrators all, for they run the machine.
    """
    rows = Job.objects.select_related(
        "submission__submitter__unit__organisation",
        "grant__holder",
        "grant__unit__organisation",
        "version__dataset__steward__unit__organisation",
    ).order_by("-pk")
    roles = roles_of(person)
    if roles & {"auditor", "administrator"}:
        return rows
    seen = Q(grant__analysts=person) | Q(grant__holder=person) | Q(version__dataset__steward=person)
    if "reviewer" in roles:
        seen |= Q(releases__isnull=False)
    return rows.filter(seen).distinct()


def listed(rows: QuerySet[Job]) -> QuerySet[Job]:
    """Return the same jobs with what a list shows of each, and no more."""
    return (
        rows.select_related(None)
        .select_related("submission__submitter", "version__dataset", "grant__unit__organisation")
        .only(
            *("state", "reason", "created_at", "ended_at", "wall_seconds"),
            *("submission__name", "submission__submitter__name", "version__number"),
            *(f"version__dataset__{name}" for name in ("slug", "title", "title_ko")),
            "grant__unit__organisation__name",
        )
    )


def surround(job: Job) -> Job:
    """Fetch at once what a job's page asks for again and again: who and what is around it.

    For showing only: what an action decides by is read in its own transaction.
    """
    prefetch_related_objects([job], *AROUND)
    return job


def is_insider(job: Job, person: Person) -> bool:
    """Whether a person works under the job's grant."""
    return job.grant.holder_id == person.pk or person in job.grant.analysts.all()


def case_of_job(job: Job, *, bound_to: str = "-", conflict: bool = False) -> Case:
    """Return the people around a job as the voting rules see them."""
    return Case(
        applicant=party(job.submission.submitter),
        owner=party(job.version.dataset.steward),
        analysts=frozenset(str(person.pk) for person in job.grant.analysts.all()),
        conflict_declared=conflict,
        bound_to=bound_to,
        named=named_of(job),
    )


def named_of(job: Job) -> frozenset[str] | None:
    """Return the reviewers named for a proprietary network, None where the network is not one."""
    secret = [release for release in job.releases.all() if release.proprietary]
    if not secret:
        return None
    return frozenset(str(row.person_id) for release in secret for row in release.named.all())


def is_kept_from(job: Job, person: Person) -> bool:
    """Whether a job's network is a secret and a person was not named to see it.

    The steward and auditors read its findings and its log, not the network.
    """
    named = named_of(job)
    return named is not None and str(person.pk) not in named


def check_may_examine(job: Job, person: Person) -> None:
    """Raise Denied unless a person may read what only reviewers see: code, log, internal findings.

    Reviewers who are independent of the applicant, once a release was proposed, and the dataset's
    steward; auditors read everything.
    """
    roles = roles_of(person)
    if "auditor" in roles:
        return
    steward = "steward" in roles and job.version.dataset.steward_id == person.pk
    # Whether to lift a soft block is the steward's to judge, before anything is proposed.
    if not job.releases.all() and not (steward and is_softly_blocked(job)):
        raise Denied(_("This is open to reviewers once a release is proposed."), code="job.closed")
    if steward:
        if is_insider(job, person):
            raise Denied(_("You work under this grant yourself."), code="review.own")
        return
    case = case_of_job(job, conflict=True)
    check_can_vote(case, party(person), [], policy_of(job.version.dataset), "release")


def is_independent_steward(job: Job, person: Person) -> bool:
    """Whether a person owns the job's dataset and does not work under its grant."""
    owns = job.version.dataset.steward_id == person.pk and "steward" in roles_of(person)
    return owns and not is_insider(job, person)


def may_examine(job: Job, person: Person) -> bool:
    """Whether :func:`check_may_examine` holds."""
    try:
        check_may_examine(job, person)
    except Denied:
        return False
    return True


def may_see_figures(job: Job, person: Person | None) -> bool:
    """Whether a person may read a job's own figures and sizes: who examines, or once released.

    Until reviewers have let them out the applicant sees the verdict and the public findings only:
    everything that a job could choose freely waits for the release.
    """
    if any(release.state == "released" for release in job.releases.all()):
        return True
    return person is not None and may_examine(job, person)


def may_read_numbers(job: Job, person: Person) -> bool:
    """Whether a person may read a job's curves and the public part of its inspection."""
    return is_insider(job, person) or may_examine(job, person)


def waiting_of(job: Job) -> tuple[str, dict[str, Any]]:
    """Return why a job waits: a code of ``WAITING`` and its figures; "" when it does not."""
    if job.state not in LIVE:
        return "", {}
    if job.stop_requested:
        return "stopping", {}
    if job.waiting == "retry" and job.lease_until and job.lease_until > timezone.now():
        return "", {}  # it is being tried now
    if job.waiting == "queue":
        return "queue", {"ahead": ahead_of(job).count()}
    return job.waiting, dict(job.waiting_facts)


def likely_start(job: Job) -> datetime | None:
    """Return when a queued job will likely start, up to the next ten minutes; None if unknown."""
    if job.state != "queued" or job.stop_requested or job.starts_at is None:
        return None
    return rounded_minute(max(job.starts_at, timezone.now()), minutes=10)


def curves(job: Job) -> list[Tick]:
    """Return the ticks of the newest run, in order."""
    newest = job.ticks.order_by("-attempt").values_list("attempt", flat=True).first()
    return list(job.ticks.filter(attempt=newest).order_by("sequence")) if newest else []


def actions_for(job: Job, viewer: Person) -> tuple[str, ...]:
    """Return what a viewer may do with a job now, for buttons."""
    found = []
    if not job.stop_requested:
        if viewer.pk in (job.submission.submitter_id, job.grant.holder_id):
            found += list(JOB.actions(job.state, APPLICANT))
        elif job.state in LIVE and (
            job.version.dataset.steward_id == viewer.pk or "administrator" in roles_of(viewer)
        ):
            found.append("cancel")
    if is_insider(job, viewer) and job.state == "finished" and propose_block(job) is None:
        found.append("propose")
    if may_examine(job, viewer):
        found.append("examine")
    if is_softly_blocked(job) and lift_of(job) is None and is_independent_steward(job, viewer):
        found.append("lift")
    return tuple(found)


def propose_block(job: Job) -> str | None:
    """Return why no release of a finished job may be proposed, or None where one may be."""
    inspection = getattr(job, "inspection", None)
    if inspection is None:
        return _("The job has no inspection.")
    if any(finding.hard for finding in inspection.findings.all()):
        return _("The inspection found what is never released; see the findings marked block.")
    if inspection.verdict == "block" and lift_of(job) is None:
        return _(
            "The inspection blocks this; see the findings marked block. Only the dataset's steward "
            "together with two reviewers may lift it."
        )
    policy = policy_of(job.version.dataset)
    if (
        policy.release.sanitise
        and can_get(job.grant.purpose, "weights", policy)
        and unwritten([a for a in job.artefacts.all() if a.kind == "weights"])
    ):
        return _(
            "The dataset asks for rewritten weights now, and did not when this job was inspected. "
            "Run it again."
        )
    if stricter_since(policy, inspection.policy) is not None:
        return _(
            "The dataset's policy asks for more now than when this job was inspected. Run it again."
        )
    return None


def unwritten(artefacts: Iterable[Artefact]) -> list[Artefact]:
    """Return the artefacts of the job's own that were not rewritten under the same name."""
    rows = list(artefacts)
    anew = {row.path for row in rows if row.origin == "sanitised"}
    return [row for row in rows if row.origin == "job" and row.path not in anew]


def blocking(inspection: Inspection) -> list[Finding]:
    """Return the findings that block, hard and soft."""
    return [row for row in inspection.findings.all() if row.severity == "block"]


def blocks_digest(inspection: Inspection) -> str:
    """Return the SHA-256 of what blocks: a lift of it is void when anything of it changes."""
    rows = [[f.rule, f.hard, f.artefact, f.message, f.evidence] for f in blocking(inspection)]
    value = {"report": inspection.report_sha256, "blocks": rows}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def lift_of(job: Job) -> Any:
    """Return the lift of exactly what blocks a job now, or None; a hard block has none."""
    inspection = getattr(job, "inspection", None)
    if inspection is None or any(row.hard for row in blocking(inspection)):
        return None
    now = blocks_digest(inspection)
    return next((row for row in job.lifts.all() if row.bound_to == now), None)


def is_softly_blocked(job: Job) -> bool:
    """Whether a job has finished and only soft findings block it."""
    inspection = getattr(job, "inspection", None)
    if job.state != "finished" or inspection is None:
        return False
    found = blocking(inspection)
    return bool(found) and not any(row.hard for row in found)


def inert(text: str) -> str:
    """Return text in which nothing acts: control, format and direction marks become visible."""
    return "".join(
        c
        if c in "\n\t" or unicodedata.category(c)[0] != "C"
        # The control pictures of Unicode stand for the controls they show.
        else chr(0x2400 + ord(c))
        if ord(c) < 0x20
        else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )


def read_log(*, by: Person, job: Job) -> str:
    """Return a job's log as inert text for who may examine it; each reading is recorded."""
    _examined("job.log.read", by=by, job=job)
    return inert(storage.read_log(job))


def may_read_code(submission: Submission, person: Person) -> bool:
    """Whether a person may read a submission: the grant's analysts, who may examine a job of it."""
    jobs = list(submission.jobs.all())
    if any(is_insider(job, person) for job in jobs[:1]):
        return True
    if any(is_kept_from(job, person) for job in jobs):
        return False
    return any(may_examine(job, person) for job in jobs)


def open_code(*, by: Person, submission: Submission) -> BinaryIO:
    """Open a submission's archive: the grant's analysts, and who may examine one of its jobs."""
    jobs = submission.jobs.order_by("-pk")
    with refusals_recorded("submission.read", by=by, about=submission):
        first = jobs.first()
        if first is None:
            raise Denied(_("You may not read this submission."), code="submission.read")
        if not may_read_code(submission, by):
            if any(is_kept_from(job, by) for job in jobs):
                raise Denied(
                    _(
                        "The network is a secret of its owner: only the reviewers named for it see "
                        "it."
                    ),
                    code="review.named",
                )
            check_may_examine(first, by)
    with transaction.atomic():
        details = {"sha256": submission.archive_sha256}
        record("submission.read", by=by, about=submission, details=details)
    return storage.open_archive(submission)


def released_before(submission: Submission) -> Submission | None:
    """Return the last submission of the same organisation on this dataset that was released."""
    return (
        Submission.objects.filter(
            pk__lt=submission.pk,
            grant__version__dataset=submission.grant.version.dataset_id,
            grant__unit__organisation=submission.grant.unit.organisation_id,
            jobs__releases__state__in=("released", "revoked"),
        )
        .select_related("grant__version__dataset")
        .order_by("-pk")
        .first()
    )


def internal_findings(*, by: Person, job: Job) -> bytes:
    """Return the internal part of an inspection (JSON) for who may examine it; recorded."""
    _examined("inspection.internal.read", by=by, job=job)
    inspection = getattr(job, "inspection", None)
    stream = storage.open_internal_report(inspection) if inspection is not None else None
    if stream is None:
        return b"[]"
    with stream:
        return stream.read()


def _examined(action: str, *, by: Person, job: Job) -> None:
    with refusals_recorded(action, by=by, about=job):
        check_may_examine(job, by)
    with transaction.atomic():
        record(action, by=by, about=job)
