"""What the earlier releases of a dataset say of a new one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from policies import history
from portal.jobs.models import LedgerEntry
from portal.releases import queries
from portal.releases.evidence import bits_of
from portal.releases.models import Release

# The newest so many are compared.
MOST = 500
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
COUNTED = ("in_review", "returned", "approved", "released", "revoked")


def notices_for(release: Release) -> list[dict[str, Any]]:
    """Return the notices on a release: what policies.history finds among the dataset's others."""
    others = list(
        Release.objects.filter(
            job__version__dataset=release.job.version.dataset_id, state__in=COUNTED
        )
        .exclude(pk=release.pk)
        .select_related("job__inspection", "job__submission", "job__version", "job__grant__unit")
        .prefetch_related("artefacts")
        .order_by("-pk")[:MOST]
    )
    charged = dict(
        LedgerEntry.objects.filter(
            kind=LedgerEntry.Kind.RELEASE, job__in=[r.job_id for r in others]
        )
        .order_by("pk")
        .values_list("job", "bits")
    )
    past = [
        _model(row, charged[row.job_id] if row.job_id in charged else bits_of(row))
        for row in others
    ]
    found = history.notices(
        _model(release, bits_of(release)), past, queries.policy_for(release).history
    )
    return [notice.as_mapping() for notice in found]


def _model(release: Release, bits: float) -> history.Model:
    job = release.job
    leaves = any(artefact.kind == "weights" for artefact in release.artefacts.all())
    told = job.inspection.sketch if leaves else {}
    return history.Model(
        release=release.pk,
        organisation=str(job.grant.unit.organisation_id),
        version=job.version.number,
        architecture=told.get("architecture", ""),
        code=job.submission.archive_sha256,
        sketch=tuple(told.get("sums", ())),
        bits=bits,
        day=(release.created_at - BEGIN).total_seconds() / 86400,
    )
