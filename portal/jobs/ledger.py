"""What has become known, to whom, of which dataset: charges and balances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db.models import Count, Q, Sum

from policies.document import Policy
from policies.errors import Denied, _
from policies.ledger import Balance, can_charge, check_charge
from policies.privacy import figures
from portal.access.models import Grant
from portal.catalog.models import Dataset
from portal.jobs.models import Job, LedgerEntry

Kind = LedgerEntry.Kind
# What a running or ended job tells the applicant by itself, without a reviewer in between.
LIVE_KINDS = (Kind.TICK, Kind.FAULT, Kind.FIGURE)


def balances(job: Job, policy: Policy) -> dict[str, Balance]:
    """Return what a job, its grant, its organisation and the dataset have spent, in bits."""
    limits = policy.ledger
    rows = LedgerEntry.objects.filter(dataset=job.version.dataset_id, kind__in=LIVE_KINDS)
    bits = rows.aggregate(
        job=Sum("bits", filter=Q(job=job)),
        grant=Sum("bits", filter=Q(grant=job.grant_id)),
        organisation=Sum("bits", filter=Q(organisation=job.grant.unit.organisation_id)),
        dataset=Sum("bits"),
    )
    return {
        "job": Balance(bits["job"] or 0.0, limits.job_bits),
        "grant": Balance(bits["grant"] or 0.0, limits.grant_bits),
        "organisation": Balance(bits["organisation"] or 0.0, limits.organisation_bits),
        "dataset": Balance(bits["dataset"] or 0.0, limits.dataset_bits),
    }


def lock(job: Job) -> None:
    """Let nobody else charge this dataset until the transaction ends."""
    Dataset.objects.select_for_update().get(pk=job.version.dataset_id)


def charge(job: Job, kind: LedgerEntry.Kind, policy: Policy, *, bits: float) -> bool:
    """Charge bits if every balance has room; False (and nothing charged) where one has not.

    Inside the caller's transaction, with what is paid for.
    """
    lock(job)
    if not can_charge(balances(job, policy), bits):
        return False
    _add(job, kind, bits=bits)
    return True


def _add(
    job: Job, kind: LedgerEntry.Kind, *, bits: float = 0, epsilon: float = 0, delta: float = 0
) -> None:
    LedgerEntry.objects.create(
        kind=kind,
        dataset_id=job.version.dataset_id,
        organisation_id=job.grant.unit.organisation_id,
        grant_id=job.grant_id,
        job=job,
        bits=bits,
        epsilon=epsilon,
        delta=delta,
    )


def sealed_balance(grant: Grant, policy: Policy) -> Balance:
    """Return how often the sealed split was asked under a grant."""
    asked = LedgerEntry.objects.filter(grant=grant, kind=Kind.SEALED)
    return Balance(asked.values("job").distinct().count(), policy.release.sealed_evaluations)


def check_may_ask_sealed(grant: Grant, policy: Policy) -> None:
    """Raise Denied when no further job of a grant may be measured on the sealed split."""
    balance = sealed_balance(grant, policy)
    waiting = Job.objects.filter(grant=grant).exclude(
        state__in=("finished", "failed", "stopped", "refused")
    )
    # Jobs on their way will ask once each.
    will = waiting.exclude(ledger__kind=Kind.SEALED).count()
    if balance.spent + will + 1 > balance.limit:
        raise Denied(
            _("The sealed split may not be asked again under this grant ({limit} times in all)."),
            code="ledger.sealed",
            limit=int(balance.limit),
        )


def charge_sealed(job: Job) -> None:
    """Note that a job's network is measured on the sealed split; once a job, however often."""
    lock(job)
    if not LedgerEntry.objects.filter(job=job, kind=Kind.SEALED).exists():
        _add(job, Kind.SEALED)


def privacy_of(job: Job) -> tuple[float, float]:
    """Return what a job's release spends: epsilon and delta of a private training, else zeros.

    From the inspection's own finding, which believes the runner's record and nothing else.
    """
    if job.privacy is None:
        return 0.0, 0.0
    rows = [row for row in job.inspection.findings.all() if row.rule == "privacy.epsilon"]
    return (figures(rows[0].evidence) if rows else None) or (0.0, 0.0)


def charge_release(job: Job, *, bits: float) -> None:
    """Note a release: reviewers let it out, so it is counted and not held back here."""
    lock(job)
    epsilon, delta = privacy_of(job)
    _add(job, Kind.RELEASE, bits=bits, epsilon=epsilon, delta=delta)


def check_may_release(
    grant: Grant, policy: Policy, *, epsilon: float = 0, waiting: Iterable[Job] = ()
) -> None:
    """Raise Denied when a grant has had its number of releases, or somebody's epsilon is spent.

    ``waiting`` are other jobs whose release was proposed and is not decided: theirs counts too.
    """
    waiting = list(waiting)
    released = LedgerEntry.objects.filter(kind=Kind.RELEASE, grant=grant).count()
    released += sum(job.grant_id == grant.pk for job in waiting)
    check_charge({"grant": Balance(released, policy.ledger.grant_releases)}, 1)
    if not epsilon:
        return
    spent = _spent(grant, grant.version.dataset_id)
    limits = epsilon_limits(policy)
    for job in waiting:
        asked = privacy_of(job)[0]
        spent["dataset"] += asked
        if job.grant.unit.organisation_id == grant.unit.organisation_id:
            spent["organisation"] += asked
        if job.grant_id == grant.pk:
            spent["grant"] += asked
    check_charge({name: Balance(spent[name], limits[name]) for name in limits}, epsilon)


def epsilon_limits(policy: Policy) -> dict[str, float]:
    """Return how much epsilon may be released in all, by whose it is; sums of single releases."""
    return {
        "grant": policy.ledger.grant_epsilon,
        "organisation": policy.ledger.organisation_epsilon,
        "dataset": policy.ledger.dataset_epsilon,
    }


def _spent(grant: Grant, dataset_id: int) -> dict[str, float]:
    """Return what a dataset's releases have spent: epsilon by owner, bits, delta, and how many."""
    rows = LedgerEntry.objects.filter(kind=Kind.RELEASE, dataset=dataset_id)
    found = rows.aggregate(
        grant=Sum("epsilon", filter=Q(grant=grant)),
        organisation=Sum("epsilon", filter=Q(organisation=grant.unit.organisation_id)),
        dataset=Sum("epsilon"),
        delta=Sum("delta"),
        bits=Sum("bits"),
        count=Count("id"),
    )
    return {name: value or 0 for name, value in found.items()}


def summary(job: Job, policy: Policy) -> dict[str, Any]:
    """Return the ledger around a job as plain figures, for reviewers and for the evidence."""
    of_grant = LedgerEntry.objects.filter(kind=Kind.RELEASE, grant=job.grant_id).count()
    sealed = sealed_balance(job.grant, policy)
    spent, limits = _spent(job.grant, job.version.dataset_id), epsilon_limits(policy)
    return {
        "live_bits": _plain(balances(job, policy)),
        "sealed_evaluations": {"spent": sealed.spent, "limit": sealed.limit},
        "releases_of_grant": {"spent": of_grant, "limit": policy.ledger.grant_releases},
        "releases_of_dataset": spent["count"],
        "released_bits_of_dataset": float(spent["bits"]),
        **{
            f"epsilon_of_{name}": {"spent": float(spent[name]), "limit": limits[name]}
            for name in limits
        },
        "delta_of_dataset": float(spent["delta"]),
    }


def _plain(named: Mapping[str, Balance]) -> dict[str, Any]:
    return {
        name: {"spent": balance.spent, "limit": balance.limit} for name, balance in named.items()
    }
