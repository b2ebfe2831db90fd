"""Writes of releases by people: proposing, voting, withdrawing, revoking."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from bundle.members import is_artefact_name
from policies.access import can_get, check_can_get
from policies.checklist import check_looked_at
from policies.document import Policy
from policies.errors import Conflict, Denied, Invalid, _
from policies.review import ACTION_OF, APPROVE, check_can_be_named, check_choice, has_conflict
from policies.workflow import APPLICANT, RELEASE, REVIEWER, STEWARD, SYSTEM
from portal.access.queries import check_usable
from portal.access.refusals import refusals_recorded
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.audit.record import record
from portal.catalog.queries import policy_of
from portal.jobs import ledger
from portal.jobs.models import Job
from portal.jobs.queries import is_independent_steward, is_insider, propose_block
from portal.releases import queries
from portal.releases.history import notices_for
from portal.releases.models import Release, ReleaseRecusal, ReleaseStep, ReleaseVote
from portal.tasking import hint
from portal.voting import casting
from portal.voting.parties import party

MOST_NOTE = 5000


def locked(release: Release) -> Release:
    """Return the row as it is now, locked until the transaction ends."""
    return (
        Release.objects.select_for_update(of=("self",))
        .select_related(
            "proposer__unit__organisation",
            "job__submission__submitter__unit__organisation",
            "job__grant__unit__organisation",
            "job__version__dataset__steward__unit__organisation",
            "job__inspection",
        )
        .get(pk=release.pk)
    )


def move(release: Release, action: str, actor: str, *, by: Person | None, **changes: Any) -> None:
    """Move a locked release by the state machine, note when, and record it."""
    casting.move(release, RELEASE, "release", action, actor, by=by, **changes)


def _note(note: str) -> str:
    note = note.strip()
    if len(note) > MOST_NOTE:
        raise Invalid(
            _("At most {most} characters."), field="note", code="release.note", most=MOST_NOTE
        )
    return note


def propose(
    *, by: Person, job: Job, note: str = "", conflict: bool = False, proprietary: bool = False
) -> Release:
    """Propose that what a finished job left may leave; goes to the reviewers at once.

    ``proprietary``: only the reviewers that the steward names see the network and vote.

    Raises Denied (recorded) for anybody but the grant's analysts or with a spent budget, Conflict
    for a job that has not finished, that the inspection blocks, or that has a release already.
    """
    with refusals_recorded("release.propose", by=by, about=job):
        check_usable(job.grant, by)
        try:
            return _propose(by, job, _note(note), conflict, proprietary)
        except IntegrityError:
            raise Conflict(
                _("A release of this job was proposed already."), code="release.twice"
            ) from None


@transaction.atomic
def _propose(by: Person, job: Job, note: str, conflict: bool, proprietary: bool) -> Release:
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
    ledger.lock(job)
    _check_budget(job, policy)
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
        proprietary=proprietary,
        ledger_before=ledger.summary(job, policy),
    )
    release.artefacts.set(artefacts)
    release.notices = notices_for(release)
    release.save(update_fields=["notices"])
    ReleaseStep.objects.create(release=release, state=release.state)
    details = {
        "job": job.pk,
        "artefacts": {artefact.path: artefact.sha256 for artefact in artefacts},
        "proprietary": proprietary,
        "notices": [notice["rule"] for notice in release.notices],
    }
    record("release.propose", by=by, about=release, details=details)
    _open(locked(release))
    release.refresh_from_db()
    return release


def _check_budget(job: Job, policy: Policy) -> None:
    """Raise Denied where this release's epsilon, with those that wait, is more than may leave."""
    undecided = queries.undecided(job.version.dataset_id).exclude(job=job)
    ledger.check_may_release(
        job.grant,
        policy,
        epsilon=ledger.privacy_of(job)[0],
        waiting=[row.job for row in undecided],
    )


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
        ledger.lock(release.job)
        _check_budget(release.job, queries.policy_for(release))
        if conflict is not None:
            release.conflict_declared = conflict
            release.save(update_fields=["conflict_declared"])
        changes = {
            "note": _note(note),
            "round": release.round + 1,
            "reason": "",
            "notices": notices_for(release),
        }
        move(release, "propose", APPLICANT, by=by, **changes)
        _open(release)
    return release


def cast_vote(
    *,
    by: Person,
    release: Release,
    choice: str,
    bound_to: str,
    comment: str = "",
    looked_at: Iterable[str] = (),
) -> ReleaseVote:
    """Vote on exactly what ``bound_to`` names; decides the release when the votes suffice.

    ``looked_at`` are the lines of the policy's checklist that were ticked: all, for an approval.
    Raises Denied with the rule's sentence (and the attempt is recorded), Conflict for a second
    vote, a decided release, or one that has changed since it was read.
    """
    with refusals_recorded("release.vote", by=by, about=release):
        return _cast_vote(by, release, check_choice(choice), bound_to, comment, looked_at)


@transaction.atomic
def _cast_vote(
    by: Person,
    release: Release,
    choice: str,
    bound_to: str,
    comment: str,
    looked_at: Iterable[str],
) -> ReleaseVote:
    release = locked(release)
    ballot = queries.ballot_on(release)
    casting.check_may_cast(ballot, by, RELEASE, release.state, choice=choice, bound_to=bound_to)
    blocked = propose_block(release.job)
    if choice == APPROVE and blocked is not None:
        raise Conflict(blocked, code="release.blocked")
    ticked = check_looked_at(ballot.policy.review.checklist, choice, looked_at)
    current = ballot.case.bound_to
    if release.bound_to != current:
        # Something behind the release has changed: what was voted before has fallen.
        fallen = release.votes.filter(bound_to=release.bound_to).count()
        details = {"from": release.bound_to, "to": current, "votes_fallen": fallen}
        release.bound_to = current
        release.save(update_fields=["bound_to"])
        record("release.changed", by=None, about=release, details=details)
    vote = ReleaseVote.objects.create(
        release=release,
        voter=by,
        choice=choice,
        comment=casting.check_comment(comment, choice),
        bound_to=current,
        looked_at=list(ticked),
    )
    details = {
        "choice": choice,
        "bound_to": current,
        "round": release.round,
        "looked_at": list(ticked),
    }
    record("release.vote", by=by, about=release, details=details)
    decision = queries.decision_on(release).state
    if decision == "approved":
        # Comments with an approval stay among the reviewers.
        move(release, APPROVE, REVIEWER, by=None, reason="", approved_at=timezone.now())
        hint("releases.build", release.pk)
    elif decision in ACTION_OF:
        action = ACTION_OF[decision]
        said = casting.comments(release.votes, bound_to=current, choice=action)
        move(release, action, REVIEWER, by=None, reason=said)
    return vote


def recuse(*, by: Person, release: Release, reason: str = "") -> ReleaseRecusal:
    """Say that one is too close to this release to judge it; it cannot be taken back."""
    with refusals_recorded("release.recuse", by=by, about=release), transaction.atomic():
        release = locked(release)
        is_open, ballot = release.state == "in_review", queries.ballot_on(release)
        recusal, created = casting.recuse(
            release.recusals, ballot, by, is_open=is_open, reason=reason
        )
        if created:
            record("release.recuse", by=by, about=release)
        return recusal


def name_reviewers(*, by: Person, release: Release, people: Iterable[Person]) -> Release:
    """Name who may see a proprietary network and judge it; whoever was named stays named.

    Raises Denied (recorded) for anybody but the dataset's independent steward, Invalid for a
    person who could not review it.
    """
    with refusals_recorded("release.name", by=by, about=release), transaction.atomic():
        release = locked(release)
        if not is_independent_steward(release.job, by):
            raise Denied(_("Only the dataset's steward names reviewers."), code="release.own")
        if not release.proprietary or release.state != "in_review":
            raise Conflict(
                _("Reviewers are named for a proprietary network while it is in review."),
                code="release.name",
            )
        policy, case = queries.voting_policy(release), queries.case_of(release)
        for person in people:
            check_can_be_named(case, party(person), policy)
            row, created = release.named.get_or_create(person=person, defaults={"by": by})
            if created:
                details = {"reviewer": person.pseudonym, "named": row.pk}
                record("release.name", by=by, about=release, details=details)
    return release


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
    if not reason or len(reason) > casting.MOST_COMMENT:
        raise Invalid(_("Say why; it stands in the published list."), field="reason")
    with refusals_recorded("release.revoke", by=by, about=release), transaction.atomic():
        release = locked(release)
        steward = release.job.version.dataset.steward_id == by.pk and "steward" in roles_of(by)
        if not steward:
            raise Denied(_("Only the dataset's steward may revoke a release."), code="release.own")
        move(release, "revoke", STEWARD, by=by, reason=reason, revoked_at=timezone.now())
        hint("releases.sign_revocations")
    return release
