"""Reads of releases with a rule in them."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet, prefetch_related_objects

from policies.document import Policy, as_mapping
from policies.errors import UserError
from policies.lifting import lifted
from policies.review import Case, Decision, check_can_be_named
from policies.workflow import APPLICANT, RELEASE, STEWARD
from portal.accounts.models import Person
from portal.accounts.queries import roles_in_force, roles_of
from portal.audit.record import record_view
from portal.catalog.queries import policy_of
from portal.jobs import queries as jobs
from portal.jobs.examination import canonical
from portal.jobs.models import Artefact, Job
from portal.jobs.queries import case_of_job, is_insider, may_examine
from portal.releases.models import Release, ReleaseVote, RevocationList
from portal.voting.ballots import Ballot, VotingView, ballot_of, seen_by
from portal.voting.parties import party


def releases_visible_to(person: Person) -> QuerySet[Release]:
    """Return the releases a person may read: analysts, holder, steward, reviewers, auditors."""
    rows = Release.objects.select_related(
        "proposer__unit__organisation",
        "job__submission__submitter__unit__organisation",
        "job__grant__unit__organisation",
        "job__version__dataset__steward__unit__organisation",
    ).order_by("-pk")
    if roles_of(person) & {"reviewer", "auditor"}:
        return rows
    seen = (
        Q(job__grant__analysts=person)
        | Q(job__grant__holder=person)
        | Q(job__version__dataset__steward=person)
    )
    return rows.filter(seen).distinct()


def may_be_bundled() -> QuerySet[Release]:
    """Return the releases that were approved and may leave; those of a stopped grant wait."""
    stopped = Q(job__grant__state__in=("suspended", "revoked"))
    return Release.objects.filter(state="approved").exclude(stopped)


def listed(rows: QuerySet[Release]) -> QuerySet[Release]:
    """Return the same releases with what a list shows of each, and no more."""
    return (
        rows.select_related(None)
        .select_related(
            "job__submission", "job__version__dataset", "job__grant__unit__organisation"
        )
        .only(
            *("state", "created_at", "released_at"),
            *("job__submission__name", "job__version__number"),
            *(f"job__version__dataset__{name}" for name in ("slug", "title", "title_ko")),
            "job__grant__unit__organisation__name",
        )
    )


# What the voting on a release asks for, and with the job's own surroundings its page.
VOTING = (
    "artefacts",
    "recusals",
    "votes",
    "named",
    "job__grant__analysts",
    "job__inspection__findings",
    "job__lifts__steward",
    "job__releases__named",
)
AROUND = (*VOTING, "copies", *(f"job__{name}" for name in jobs.AROUND))


def surround(release: Release) -> Release:
    """Fetch at once what a release's page asks for again and again.

    For showing only: what an action decides by is read in its own transaction.
    """
    prefetch_related_objects([release], *AROUND)
    return release


def may_vote_on(person: Person, *, most: int) -> list[Release]:
    """Return releases that wait for a person's vote; looks at ``most`` in review.

    Those without a vote of theirs come first: another falls where something has changed since.
    """
    own = ReleaseVote.objects.filter(release=OuterRef("pk"), voter=person)
    rows = releases_visible_to(person).filter(state="in_review").exclude(recusals__person=person)
    rows = rows.order_by(Exists(own), "-pk").prefetch_related(*VOTING)
    return [row for row in rows[:most] if voting_for(row, person).may_vote]


def policy_for(release: Release) -> Policy:
    """Return the policy under which a release is judged."""
    return policy_of(release.job.version.dataset)


def policy_digest(policy: Policy) -> str:
    """Return the SHA-256 of a policy, as the evidence names it."""
    return hashlib.sha256(canonical(as_mapping(policy))).hexdigest()


def voting_policy(release: Release) -> Policy:
    """Return the policy under which a release is voted on: stricter where a block was lifted."""
    policy = policy_for(release)
    return lifted(policy) if jobs.blocking(release.job.inspection) else policy


def leaving(job: Job, *, weights: bool) -> list[Artefact]:
    """Return the artefacts of a job that may leave: sanitised ones instead of the job's own.

    Metrics leave as the inspection rounded them, never as the job's file; weights only where the
    grant's purpose includes them, and only rewritten where the dataset's policy asks for that.
    """
    kinds = {"weights", "config"} if weights else {"config"}
    rewritten_only = policy_of(job.version.dataset).release.sanitise
    chosen: dict[str, Artefact] = {}
    for artefact in job.artefacts.filter(kind__in=kinds).order_by("pk"):
        if artefact.origin == "sanitised" or artefact.path not in chosen:
            chosen[artefact.path] = artefact
    return [
        chosen[path]
        for path in sorted(chosen)
        if not (rewritten_only and chosen[path].kind == "weights" and chosen[path].origin == "job")
    ]


def digest_of(release: Release) -> str:
    """Return the SHA-256 of all that reviewers look at, computed from the rows as they are now.

    Artefacts, the inspection's report with every figure that the evidence repeats, the code, the
    data, the applicant's words, the policy and the round: when any of them changes, votes that
    were bound to the old digest no longer count.
    """
    job = release.job
    # In the order of code points: a database's own order of texts may be another.
    artefacts = sorted(release.artefacts.all(), key=lambda artefact: artefact.path)
    value: dict[str, Any] = {
        "release": release.pk,
        "round": release.round,
        "note": release.note,
        "job": job.pk,
        "artefacts": [[a.path, a.kind, a.origin, a.bytes, a.sha256] for a in artefacts],
        "report": job.inspection.report_sha256,
        "official": job.inspection.official,
        "metrics": job.inspection.metrics,
        "findings": [
            [f.rule, f.severity, f.hard, f.artefact, f.message, f.evidence]
            for f in job.inspection.findings.all()
        ],
        "code": job.submission.archive_sha256,
        "data": job.version.manifest_sha256,
        "backend": [job.backend, job.backend_version],
        "policy": policy_digest(policy_for(release)),
    }
    if job.inspection.sanitising:
        value["sanitising"] = job.inspection.sanitising
    if job.privacy is not None:
        value["privacy"] = job.privacy
    if release.notices:
        value["notices"] = release.notices
    lift = jobs.lift_of(job)
    if lift is not None:
        value["lift"] = [lift.steward_id, lift.reason, lift.bound_to]
    return hashlib.sha256(canonical(value)).hexdigest()


def case_of(release: Release) -> Case:
    """Return what is voted on now, with everybody who is barred from voting on it."""
    case = case_of_job(
        release.job,
        bound_to=digest_of(release),
        conflict=release.conflict_declared,
    )
    recused = frozenset(str(row.person_id) for row in release.recusals.all())
    proposer = frozenset({str(release.proposer_id)})
    return Case(
        applicant=case.applicant,
        owner=case.owner,
        analysts=case.analysts | proposer,
        conflict_declared=case.conflict_declared,
        bound_to=case.bound_to,
        recused=recused,
        named=case.named,
    )


def ballot_on(release: Release) -> Ballot[ReleaseVote]:
    """Return the voting on a release as it stands."""
    return ballot_of("release", case_of(release), voting_policy(release), release.votes.all())


def decision_on(release: Release) -> Decision:
    """Return what the votes say now."""
    return ballot_on(release).decision


def voting_for(release: Release, viewer: Person) -> VotingView[ReleaseVote]:
    """Return the voting as ``viewer`` may see it."""
    return seen_by(ballot_on(release), viewer, is_open=release.state == "in_review")


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
        if release.proprietary and release.state == "in_review":
            found.append("name")
    if voting_for(release, viewer).may_vote:
        found += ["vote", "recuse"]
    if may_examine(release.job, viewer):
        found.append("examine")
    return tuple(found)


def may_be_named(release: Release) -> QuerySet[Person]:
    """Return the reviewers whom the steward may still name for a proprietary network."""
    named = release.named.values("person")
    fit = []
    reviewers = roles_in_force().filter(role="reviewer").values("person")
    for person in Person.objects.filter(pk__in=reviewers).exclude(pk__in=named):
        try:
            check_can_be_named(case_of(release), party(person), voting_policy(release))
        except UserError:
            continue
        fit.append(person.pk)
    return Person.objects.filter(pk__in=fit).order_by("name")


def note_view(release: Release, viewer: Person) -> None:
    """Record that somebody who examines looked at a proprietary release, before it is shown."""
    if release.proprietary and may_examine(release.job, viewer):
        record_view("release.read", by=viewer, about=release)


def undecided(dataset_id: int) -> QuerySet[Release]:
    """Return a dataset's releases that are neither out nor refused: each may still leave."""
    return Release.objects.filter(
        job__version__dataset=dataset_id, state__in=("proposed", "in_review", "approved")
    ).select_related("job__grant__unit", "job__inspection")


def history_of(release: Release) -> QuerySet[Release]:
    """Return the earlier releases of the same organisation on the same dataset, newest first."""
    return (
        Release.objects.filter(
            job__version__dataset=release.job.version.dataset_id,
            job__grant__unit__organisation=release.job.grant.unit.organisation_id,
            pk__lt=release.pk,
        )
        .select_related(
            "proposer",
            "job__submission",
            "job__version__dataset",
            "job__grant__unit__organisation",
        )
        .order_by("-pk")
    )


def revocation_list() -> RevocationList | None:
    """Return the newest signed list of revoked bundles, None while nothing was ever revoked."""
    return RevocationList.objects.order_by("-number").first()


def entries_of(signed: RevocationList) -> list[dict[str, str]]:
    """Return the entries of a list that we signed ourselves."""
    payload = json.loads(base64.b64decode(json.loads(signed.document)["payload"]))
    entries: list[dict[str, str]] = payload["revoked"]
    return entries
