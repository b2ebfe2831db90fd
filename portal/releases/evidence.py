"""What is said, and signed, of a release: plain values with people by pseudonym only."""

from __future__ import annotations

import math
from typing import Any

from django.utils.translation import override

from bundle.pictures import Curve, Interval
from policies.privacy import NOT_GUARANTEED, figures
from portal.jobs import ledger
from portal.jobs.figures import kind_of, official_figures, rewritten
from portal.jobs.queries import blocking, lift_of
from portal.jobs.rounding import rounded_seconds
from portal.jobs.serializers import FindingSerializer
from portal.releases import queries
from portal.releases.models import Release

_ORIGINS = {
    "job": "as the job wrote it",
    "sanitised": "rewritten by the platform with noise before it left",
}


def evidence_of(release: Release) -> dict[str, Any]:
    """Return the evidence of an approved release."""
    job = release.job
    submission, grant, version = job.submission, job.grant, job.version
    policy = queries.policy_for(release)
    signature = grant.request.signature
    votes = release.votes.filter(bound_to=release.bound_to).order_by("pk")
    return {
        "release": release.pk,
        "bound_to": release.bound_to,
        "dataset": {
            "slug": version.dataset.slug,
            "version": version.number,
            "manifest_sha256": version.manifest_sha256,
        },
        "job": {
            "id": job.pk,
            "state": job.state,
            "rounded_seconds": rounded_seconds(job.wall_seconds),
            "image": submission.manifest["job"]["image"],
            "isolation": {
                "backend": job.backend,
                "version": job.backend_version,
                "minimum": policy.isolation.minimum,
            },
        },
        "code": {"archive_sha256": submission.archive_sha256, "manifest": submission.manifest},
        "inspection": _inspection(release),
        "artefacts": [
            {"path": a.path, "kind": a.kind, "origin": a.origin, "sha256": a.sha256}
            for a in release.artefacts.order_by("path")
        ],
        "review": [
            {
                "reviewer": vote.voter.pseudonym,
                "choice": vote.choice,
                "looked_at": vote.looked_at,
                "at": vote.cast_at.isoformat(timespec="seconds"),
            }
            for vote in votes.select_related("voter")
        ],
        "lifted": _lifted(release),
        # Which releases and whose they were stays among the reviewers.
        "history": [{"rule": row["rule"], "message": row["message"]} for row in release.notices],
        "access": {
            "grant": grant.pk,
            "purpose": grant.purpose,
            "ends": grant.ends_at.isoformat(timespec="seconds"),
            "agreement": str(signature.agreement),
            "agreement_sha256": signature.agreement_sha256,
        },
        "ledger": {"before": release.ledger_before, "after": ledger_after(release)},
        "differential_privacy": privacy_of(release),
        "policy_sha256": queries.policy_digest(policy),
    }


def privacy_of(release: Release) -> dict[str, Any]:
    """Return what is guaranteed by differential privacy, and by which record.

    Ordinary trainings say of themselves what they like: of these nothing is guaranteed.
    """
    found = release.job.inspection.findings.filter(rule="privacy.epsilon").first()
    if found is None or figures(found.evidence) is None or release.job.privacy is None:
        return {"epsilon": NOT_GUARANTEED}
    record = release.job.privacy
    return dict(found.evidence) | {
        "neighbours": "one subject's data added or removed",
        "covers": "weights, and what is computed from them, for subjects of the split train",
        "accountant": record["accountant"],
        "trainer_sha256": record["trainer"],
        "graph_sha256": record["graph"],
        "trained_weights_sha256": record["weights"],
    }


def _card_privacy(release: Release) -> dict[str, Any]:
    said = privacy_of(release)
    return {
        name: value
        for name, value in said.items()
        if name not in ("trainer_sha256", "graph_sha256", "trained_weights_sha256")
    }


def _inspection(release: Release) -> dict[str, Any]:
    inspection = release.job.inspection
    return {
        "verdict": inspection.verdict,
        "report_sha256": inspection.report_sha256,
        "policy": inspection.policy or None,
        "findings": [dict(row) for row in FindingSerializer(inspection.findings, many=True).data],
        "official": inspection.official,
        "sanitising": inspection.sanitising or None,
    }


def _lifted(release: Release) -> dict[str, Any] | None:
    """Return who lifted which soft blocks and why, None where nothing was blocked."""
    lift = lift_of(release.job)
    if lift is None:
        return None
    return {
        "steward": lift.steward.pseudonym,
        "reason": lift.reason,
        "at": lift.at.isoformat(timespec="seconds"),
        "rules": [finding.rule for finding in blocking(release.job.inspection)],
    }


def ledger_after(release: Release) -> dict[str, Any]:
    """Return the ledger as it will be once this release has left."""
    after = ledger.summary(release.job, queries.policy_for(release))
    after["releases_of_grant"]["spent"] += 1
    after["releases_of_dataset"] += 1
    after["released_bits_of_dataset"] += bits_of(release)
    epsilon, delta = ledger.privacy_of(release.job)
    for name in ("grant", "organisation", "dataset"):
        after[f"epsilon_of_{name}"]["spent"] += epsilon
    after["delta_of_dataset"] += delta
    return after


def bits_of(release: Release) -> float:
    """Return how many bits leave at most: those of the weights' files and of the metrics.

    Of rewritten weights it is what they can carry of anybody's choosing; the rest is our noise.
    """
    capacity = release.job.inspection.sanitising.get("files", {})
    weights = sum(
        min(a.bytes * 8, capacity.get(a.path, math.inf)) if a.origin == "sanitised" else a.bytes * 8
        for a in release.artefacts.filter(kind="weights")
    )
    found = release.job.inspection.findings.filter(rule="metrics.budget").first()
    metrics = found.evidence.get("bits", 0) if found is not None else 0
    return float(weights + metrics)


def metrics_of(release: Release) -> dict[str, Any]:
    """Return the released figures: ours from the sealed split, and the job's as rounded."""
    inspection = release.job.inspection
    return {"official": inspection.official, "reported": inspection.metrics}


def _card_weights(release: Release) -> dict[str, Any]:
    """Return which files leave, and what the platform did to them; empty without weights."""
    rows = release.artefacts.filter(kind="weights").order_by("path")
    files = {a.path: _ORIGINS[a.origin] for a in rows}
    inspection = release.job.inspection
    done = rewritten(inspection.sanitising, inspection.official)
    if done is None or not files:
        return files
    return files | {
        "type": inspection.sanitising["type"],
        "noise": done.noise,
        "random lowest bits": done.lowest_bits,
        "hidden bits, at most": done.capacity,
        "read back by our decoder, bits": done.read_back,
        "as trained, as released": [
            f"{f.name} {f.level} {_shown(f.before)}, {_shown(f.after)}" for f in done.figures
        ],
    }


def _shown(value: float | None) -> str:
    return "suppressed" if value is None else f"{value:.3f}"


def _card_lift(release: Release) -> list[dict[str, str]]:
    lift = lift_of(release.job)
    if lift is None:
        return []
    said = f"The steward and two reviewers let it out nevertheless: {lift.reason}"
    return [{"rule": "lifted", "verdict": "block", "finding": said}]


def intervals_of(release: Release) -> list[Interval]:
    """Return the official figures that the card draws: those with an interval."""
    with override("en"):
        return [
            Interval(f"{f.name} {f.level}", f.value, f.low, f.high, f.target)
            for f in official_figures(release.job.inspection.official)
            if f.value is not None and f.low is not None and f.high is not None
        ]


def curves_of(release: Release) -> list[Curve]:
    """Return the reported curves that the card draws, as they leave in the metrics."""
    reported = release.job.inspection.metrics
    return [
        Curve(name, tuple(float(value) for value in values))
        for name, values in sorted(reported.items())
        if kind_of(values) == "curve" and all(isinstance(v, int | float) for v in values)
    ]


def card_of(release: Release) -> dict[str, Any]:
    """Return the facts of the model card."""
    job = release.job
    dataset, request = job.version.dataset, job.grant.request
    resources = job.submission.manifest["resources"]
    findings = job.inspection.findings.exclude(severity="info")
    return {
        "title": job.submission.name,
        "summary": f"Trained in Glovebox on {dataset.title}, version {job.version.number}, "
        "which never left it.",
        "intended_use": {"purpose": job.grant.purpose, "title": request.title},
        "out_of_scope": [
            "Recognising any subject, or rebuilding training data.",
            "Diagnosis or any decision about a person without further validation.",
        ],
        "data": {
            "dataset": dataset.slug,
            "version": job.version.number,
            "subjects": job.version.subjects,
            "training_samples": job.version.training_samples,
        },
        "training": {
            "image": job.submission.manifest["job"]["image"],
            "cores": resources["cpus"],
            "memory": resources["memory"],
            "isolation": f"{job.backend} {job.backend_version}".strip(),
        },
        "evaluation": job.inspection.official or "Not measured.",
        "weights": _card_weights(release),
        "metrics": job.inspection.metrics or "None declared.",
        "findings": [
            {"rule": f.rule, "verdict": f.severity, "finding": f.message} for f in findings
        ]
        + _card_lift(release)
        or "Nothing beyond information.",
        "privacy": _card_privacy(release),
        "licence": dataset.licence,
    }
