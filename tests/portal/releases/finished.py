"""A finished job as the engine leaves it, with real encrypted artefacts, without running it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from safetensors.numpy import save

from policies.document import default_policy, inspected_under
from portal.access.models import Grant
from portal.catalog.queries import policy_of
from portal.jobs import actions, storage
from portal.jobs.models import Artefact, Finding, Inspection, Job
from portal.releases import actions as releases
from portal.releases import queries
from portal.releases.models import Release
from tests.portal.cast import Cast
from tests.portal.jobs.material import training

ALL = default_policy().review.checklist  # what an approving reviewer ticks
WEIGHTS = save({"0.weight": np.ones((4, 1, 3, 3), np.float32)}, metadata={"format": "pt"})


def finish(job: Job, *findings: dict[str, Any]) -> Job:
    """Give a job its artefacts and an inspection with these findings."""
    content = {
        "model.safetensors": (WEIGHTS, "weights"),
        "metrics.json": (b'{"loss": 0.1}', "metrics"),
    }
    for path, (data, kind) in content.items():
        kept = storage.keep(io.BytesIO(data), context=storage.artefact_context(job.pk))
        Artefact.objects.create(
            job=job,
            path=path,
            kind=kind,
            bytes=kept.bytes,
            sha256=kept.sha256,
            object_name=kept.object_name,
            wrapped_key=kept.wrapped_key,
        )
    severities = {finding["severity"] for finding in findings}
    verdict = next((word for word in ("block", "review") if word in severities), "pass")
    inspection = Inspection.objects.create(
        job=job,
        verdict=verdict,
        official={"patient": {"auc": {"value": 0.9, "low": 0.8, "high": 0.95}}},
        metrics={"loss": 0.1},
        policy=inspected_under(policy_of(job.version.dataset)),
        report_sha256="a" * 64,
    )
    for number, finding in enumerate(findings, start=1):
        Finding.objects.create(inspection=inspection, number=number, **finding)
    Job.objects.filter(pk=job.pk).update(
        state="finished", reason="exit", backend="bubblewrap", backend_version="0.8.0",
        wall_seconds=12.3,
    )  # fmt: skip
    job.refresh_from_db()
    return job


def finished_job(cast: Cast, *findings: dict[str, Any], grant: Grant | None = None) -> Job:
    """Return a finished job of the applicant."""
    grant = grant or cast.granted()
    job = actions.submit(by=cast.applicant, grant=grant, stream=training())
    return finish(job, *findings)


def blocked(hard: bool = False) -> dict[str, Any]:
    """Return a finding that blocks."""
    return {
        "rule": "samples.stored",
        "severity": "block",
        "hard": hard,
        "artefact": "model.safetensors",
        "message": "The weights hold training pictures.",
        "evidence": {"count": 3},
    }


def approve(cast: Cast, release: Release) -> Release:
    """Let two reviewers approve what is proposed."""
    for reviewer in cast.reviewers[:2]:
        releases.cast_vote(
            by=reviewer,
            release=release,
            choice="approve",
            bound_to=queries.digest_of(release),
            looked_at=ALL,
        )
    release.refresh_from_db()
    return release
