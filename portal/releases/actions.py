"""Writes of releases by people: proposing, voting, withdrawing, revoking."""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from bundle.members import is_artefact_name
from policies.access import can_get, check_can_get
from policies.errors import Conflict, Denied, Invalid, _
from policies.review import APPROVE, check_can_vote, check_choice, has_conflict
from policies.workflow import APPLICANT, RELEASE, REVIEWER, STEWARD, SYSTEM
from portal.access.decisions import MOST_COMMENT, check_comment
from portal.access.parties import party
from portal.access.queries import check_usable
from portal.access.refusals import refusals_recorded
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.audit.record import record
from portal.catalog.queries import policy_of
from portal.jobs import ledger
from portal.jobs.models import Job
from portal.jobs.queries import is_insider, propose_block
from portal.releases import queries
from portal.releases.models import Release, ReleaseRecusal, ReleaseStep, ReleaseVote
from portal.tasking import hint

_ACTION_OF = {"approved": "approve", "rejected": "reject", "returned": "return"}
MOST_NOTE = 5000


def locked(release: Release) -> Release:
    """Return the row as it is now, locked until the transaction ends."""
    return (
        Release.objects.select_for_update(of=("self",))
        .select_related(
            "proposer__unit__organisation",
            "job__submission__submitter__unit__organisation",
            "job__grant__unit__organisation",
            "job__version__dataset__steward",
            "job__inspection",
        )
        .get(pk=release.pk)
    )


def move(release: Release, action: str, actor: str, *, by: Person | None, **changes: Any) -> None:
    """Move a locked release by the state machine, note when, and record it."""
    before = release.state
    release.state = RELEASE.next_state(before, action, actor)
    for name, value in changes.items():
        setattr(release, name, value)
    release.save(update_fields=["state", *changes])
    now = timezone.now()
    ReleaseStep.objects.filter(release=release, left_at=None).update(left_at=now)
    ReleaseStep.objects.create(release=release, state=release.state, entered_at=now)
    details = {"from": before, "to": release.state, "round": release.round}
    record(f"release.{action}", by=by, about=release, details=details)


def _note(note: str) -> str:
    note = note.strip()
    if len(note) > MOST_NOTE:
        raise Invalid(
            _("At most {most} characters."), field="note", code="release.note", most=MOST_NOTE
        )
    return note


def propose(*, by: Person, job: Job, note: str = "", conflict: bool = False) -> Release:
    """Propose that what a finished job left may leave; goes to the reviewers at once.

    Raises Denied (recorded) for anybody but the grant's analysts or with a spent budget, Conflict
    for a job that has not finished, that the inspection blocks, or that has a release already.
    """
    with refusals_recorded("release.propose", by=by, about=job):
        check_usable(job.grant, by)
        try:
            return _propose(by, job, _note(note), conflict)
        except IntegrityError:
            raise Conflict(
                _("A release of this job was proposed already."), code="release.twice"
            ) from None


@transaction.atomic
def _propose(by: Person, job: Job, note: str, conflict: bool) -> Release:
    job = Job.objects.select_for_update(of=("self",)).get(pk=job.pk)
    policy = policy_of(job.version.dataset)
    if job.state != "finished":
        raise Conflict(
            _("Only a finished job has something to release; this one is {state}."),
            code="release.job-state",
            state=job.state,
        )
    blocked = propose_block(job)
    if blocked is not None:
        raise Conflict(blocked, code="release.blocked")
    check_can_get(job.grant.purpose, "metrics", policy)
    ledger.check_may_release(job.grant, policy)
    artefacts = queries.leaving(job, weights=can_get(job.grant.purpose, "weights", policy))
    for artefact in artefacts:
        if not is_artefact_name(artefact.path):
            raise Conflict(
                _("A bundle cannot hold an artefact of this name; declare another in [outputs]."),
                field=artefact.path,
                code="release.name",
            )
    if not artefacts and not job.inspection.metrics:
        raise Conflict(_("The job left nothing that may leave."), code="release.empty")
    release = Release.objects.create(
        job=job,
        proposer=by,
        state=RELEASE.initial,
        note=note,
        conflict_declared=conflict,
        ledger_before=ledger.summary(job, policy),
    )
    release.artefacts.set(artefacts)
    ReleaseStep.objects.create(release=release, state=release.state)
    details = {
        "job": job.pk,
        "artefacts": {artefact.path: artefact.sha256 for artefact in artefacts},
    }
    record("release.propose", by=by, about=release, details=details)
    _open(locked(release))
    release.refresh_from_db()
    return release


def _open(release: Release) -> None:
    """Hand a proposed release to the reviewers, bound to exactly what it now holds."""
    if has_conflict(queries.case_of(release)) and not release.conflict_declared:
        raise Invalid(
            _("You and the owner share an organisation: declare the conflict of interest."),
            field="conflict_declared",
            code="release.conflict",
        )
    move(release, "open", SYSTEM, by=None, bound_to=queries.digest_of(release))


def propose_again(
    *, by: Person, release: Release, note: str, conflict: bool | None = None
) -> Release:
    """Answer the reviewers who returned a release; every vote is asked anew."""
    with refusals_recorded("release.propose", by=by, about=release), transaction.atomic():
        release = locked(release)
        check_usable(release.job.grant, by)
        ledger.check_may_release(release.job.grant, queries.policy_for(release))
        if conflict is not None:
            release.conflict_declared = conflict
            release.save(update_fields=["conflict_declared"])
        changes = {"note": _note(note), "round": release.round + 1, "reason": ""}
        move(release, "propose", APPLICANT, by=by, **changes)
        _open(release)
    return release


def cast_vote(
    *, by: Person, release: Release, choice: str, bound_to: str, comment: str = ""
) -> ReleaseVote:
    """Vote on exactly what ``bound_to`` names; decides the release when the votes suffice.

    Raises Denied with the rule's sentence (and the attempt is recorded), Conflict for a second
    vote, a decided release, or one that has changed since it was read.
    """
    with refusals_recorded("release.vote", by=by, about=release):
        return _cast_vote(by, release, check_choice(choice), bound_to, comment)


@transaction.atomic
def _cast_vote(
    by: Person, release: Release, choice: str, bound_to: str, comment: str
) -> ReleaseVote:
    release = locked(release)
    case, policy = queries.case_of(release), queries.policy_for(release)
    votes = [vote for _row, vote in queries.votes_on(release, case.bound_to)]
    if not RELEASE.allows(release.state, choice, REVIEWER):
        # Who may not vote at all hears that first, whatever the state.
        check_can_vote(case, party(by), [], policy, "release")
        RELEASE.next_state(release.state, choice, REVIEWER)
    check_can_vote(case, party(by), votes, policy, "release", bound_to=bound_to)
    blocked = propose_block(release.job)
    if choice == APPROVE and blocked is not None:
        raise Conflict(blocked, code="release.blocked")
    if release.bound_to != case.bound_to:
        # Something behind the release has changed: what was voted before has fallen.
        fallen = release.votes.filter(bound_to=release.bound_to).count()
        details = {"from": release.bound_to, "to": case.bound_to, "votes_fallen": fallen}
        release.bound_to = case.bound_to
        release.save(update_fields=["bound_to"])
        record("release.changed", by=None, about=release, details=details)
    vote = ReleaseVote.objects.create(
        release=release,
        voter=by,
        choice=choice,
        comment=check_comment(comment, choice),
        bound_to=case.bound_to,
    )
    details = {"choice": choice, "bound_to": case.bound_to, "round": release.round}
    record("release.vote", by=by, about=release, details=details)
    decision = queries.decision_on(release)
    if decision.state in _ACTION_OF:
        action = _ACTION_OF[decision.state]
        changes: dict[str, Any] = {"reason": _reasons(release, action)}
        if decision.state == "approved":
            changes["approved_at"] = timezone.now()
        move(release, action, REVIEWER, by=None, **changes)
        if decision.state == "approved":
            hint("releases.build", release.pk)
    return vote


def _reasons(release: Release, choice: str) -> str:
    """Return the comments that the applicant reads: those of the side that decided, unnamed.

    Comments with an approval stay among the reviewers.
    """
    if choice == "approve":
        return ""
    rows = release.votes.filter(bound_to=release.bound_to, choice=choice).exclude(comment="")
    return "\n\n".join(rows.order_by("pk").values_list("comment", flat=True))


def recuse(*, by: Person, release: Release, reason: str = "") -> ReleaseRecusal:
    """Say that one is too close to this release to judge it; it cannot be taken back."""
    with refusals_recorded("release.recuse", by=by, about=release), transaction.atomic():
        release = locked(release)
        if not party(by).roles & {"reviewer", "steward"}:
            raise Denied(
                _("Only people with the role {role} vote on this."),
                code="review.role",
                role="reviewer",
            )
        if release.state != "in_review":
            raise Conflict(_("Nobody votes on this release now."), code="release.closed")
        if release.votes.filter(voter=by, bound_to=queries.digest_of(release)).exists():
            raise Conflict(_("You have voted on this already."), code="review.twice")
        recusal, created = ReleaseRecusal.objects.get_or_create(
            release=release, person=by, defaults={"reason": reason.strip()[:MOST_COMMENT]}
        )
        if created:
            record("release.recuse", by=by, about=release)
        return recusal


def withdraw(*, by: Person, release: Release) -> Release:
    """Take a proposal back for good, before it has left."""
    with refusals_recorded("release.withdraw", by=by, about=release), transaction.atomic():
        release = locked(release)
        if not is_insider(release.job, by):
            raise Denied(_("Only the analysts of the grant may do this."), code="release.analyst")
        move(release, "withdraw", APPLICANT, by=by)
    return release


def revoke(*, by: Person, release: Release, reason: str) -> Release:
    """Revoke what has left: links die at once, the signed list names the bundle.

    Raises Denied (recorded) for anybody but the dataset's steward, Invalid without a reason.
    """
    reason = reason.strip()
    if not reason or len(reason) > MOST_COMMENT:
        raise Invalid(_("Say why; it stands in the published list."), field="reason")
    with refusals_recorded("release.revoke", by=by, about=release), transaction.atomic():
        release = locked(release)
        steward = release.job.version.dataset.steward_id == by.pk and "steward" in roles_of(by)
        if not steward:
            raise Denied(_("Only the dataset's steward may revoke a release."), code="release.own")
        move(release, "revoke", STEWARD, by=by, reason=reason, revoked_at=timezone.now())
        hint("releases.sign_revocations")
    return release
