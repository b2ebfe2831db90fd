"""Reads of releases with a rule in them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

from policies.document import Policy
from policies.errors import UserError
from policies.review import Case, Decision, Vote, check_can_vote, decide, visible_votes
from policies.workflow import APPLICANT, RELEASE, STEWARD
from portal.access.parties import party
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.catalog.queries import policy_of
from portal.jobs.examination import canonical
from portal.jobs.models import Artefact, Job
from portal.jobs.queries import case_of_job, is_insider, may_examine
from portal.releases.models import Release, ReleaseVote, RevocationList


def releases_visible_to(person: Person) -> QuerySet[Release]:
    """Return the releases a person may read: analysts, holder, steward, reviewers, auditors."""
    rows = Release.objects.select_related(
        "proposer__unit__organisation",
        "job__submission__submitter__unit__organisation",
        "job__grant__unit__organisation",
        "job__version__dataset__steward",
    ).order_by("-pk")
    if roles_of(person) & {"reviewer", "auditor"}:
        return rows
    seen = (
        Q(job__grant__analysts=person)
        | Q(job__grant__holder=person)
        | Q(job__version__dataset__steward=person)
    )
    return rows.filter(seen).distinct()


def policy_for(release: Release) -> Policy:
    """Return the policy under which a release is judged."""
    return policy_of(release.job.version.dataset)


def leaving(job: Job, *, weights: bool) -> list[Artefact]:
    """Return the artefacts of a job that may leave: sanitised ones instead of the job's own.

    Metrics leave as the inspection rounded them, never as the job's file; weights only where the
    grant's purpose includes them.
    """
    kinds = {"weights", "config"} if weights else {"config"}
    chosen: dict[str, Artefact] = {}
    for artefact in job.artefacts.filter(kind__in=kinds).order_by("pk"):
        if artefact.origin == "sanitised" or artefact.path not in chosen:
            chosen[artefact.path] = artefact
    return [chosen[path] for path in sorted(chosen)]


def digest_of(release: Release) -> str:
    """Return the SHA-256 of all that reviewers look at, computed from the rows as they are now.

    Artefacts, the inspection's report, the code, the data, the applicant's words and the round:
    when any of them changes, votes that were bound to the old digest no longer count.
    """
    job = release.job
    artefacts = release.artefacts.order_by("path")
    value: dict[str, Any] = {
        "release": release.pk,
        "round": release.round,
        "note": release.note,
        "job": job.pk,
        "artefacts": [[a.path, a.kind, a.origin, a.bytes, a.sha256] for a in artefacts],
        "report": job.inspection.report_sha256,
        "official": job.inspection.official,
        "metrics": job.inspection.metrics,
        "findings": list(
            job.inspection.findings.values_list("rule", "severity", "artefact", "message")
        ),
        "code": job.submission.archive_sha256,
        "data": job.version.manifest_sha256,
        "backend": [job.backend, job.backend_version],
    }
    return hashlib.sha256(canonical(value)).hexdigest()


def case_of(release: Release) -> Case:
    """Return what is voted on now, with everybody who is barred from voting on it."""
    case = case_of_job(
        release.job,
        bound_to=digest_of(release),
        conflict=release.conflict_declared,
    )
    recused = frozenset(str(pk) for pk in release.recusals.values_list("person", flat=True))
    proposer = frozenset({str(release.proposer_id)})
    return Case(
        applicant=case.applicant,
        owner=case.owner,
        analysts=case.analysts | proposer,
        conflict_declared=case.conflict_declared,
        bound_to=case.bound_to,
        recused=recused,
    )


def votes_on(release: Release, bound_to: str) -> list[tuple[ReleaseVote, Vote]]:
    """Return the votes bound to a digest, in the order in which they were cast."""
    rows = release.votes.filter(bound_to=bound_to).select_related("voter__unit__organisation")
    return [(row, Vote(party(row.voter), row.choice, row.bound_to)) for row in rows.order_by("pk")]


def decision_on(release: Release) -> Decision:
    """Return what the votes say now."""
    case = case_of(release)
    votes = [vote for _row, vote in votes_on(release, case.bound_to)]
    return decide(case, votes, policy_for(release), "release")


@dataclass(frozen=True)
class VotingView:
    """What one person may know of the voting on a release."""

    bound_to: str
    decision: Decision
    votes: tuple[ReleaseVote, ...]
    may_vote: bool
    why_not: UserError | None


def voting_for(release: Release, viewer: Person) -> VotingView:
    """Return the voting as ``viewer`` may see it: blind until the quorum has voted."""
    case, policy = case_of(release), policy_for(release)
    pairs = votes_on(release, case.bound_to)
    votes = [vote for _row, vote in pairs]
    decision = decide(case, votes, policy, "release")
    me = party(viewer)
    seen = visible_votes(me, votes, decision)
    why_not: UserError | None = None
    may_vote = release.state == "in_review"
    if may_vote:
        try:
            check_can_vote(case, me, votes, policy, "release")
        except UserError as error:
            may_vote, why_not = False, error
    return VotingView(
        bound_to=case.bound_to,
        decision=decision,
        votes=tuple(row for row, vote in pairs if vote in seen),
        may_vote=may_vote,
        why_not=why_not,
    )


def actions_for(release: Release, viewer: Person) -> tuple[str, ...]:
    """Return what a viewer may do with a release now, for buttons."""
    found: list[str] = []
    insider = is_insider(release.job, viewer)
    if insider:
        found += RELEASE.actions(release.state, APPLICANT)
        if release.state == "released":
            found.append("link")
    if release.job.version.dataset.steward_id == viewer.pk and "steward" in roles_of(viewer):
        found += RELEASE.actions(release.state, STEWARD)
    if voting_for(release, viewer).may_vote:
        found += ["vote", "recuse"]
    if may_examine(release.job, viewer):
        found.append("examine")
    return tuple(found)


def history_of(release: Release) -> QuerySet[Release]:
    """Return the earlier releases of the same organisation on the same dataset, newest first."""
    return (
        Release.objects.filter(
            job__version__dataset=release.job.version.dataset_id,
            job__grant__unit__organisation=release.job.grant.unit.organisation_id,
            pk__lt=release.pk,
        )
        .select_related("proposer", "job__submission")
        .order_by("-pk")
    )


def revocation_list() -> RevocationList | None:
    """Return the newest signed list of revoked bundles, None while nothing was ever revoked."""
    return RevocationList.objects.order_by("-number").first()
