"""The last step of a job: its artefacts are inspected, and the report is kept in two parts."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

from django.db import transaction

from policies.document import Policy, inspected_under
from portal.jobs import admission, ledger, staging, storage, workdir
from portal.jobs.models import Artefact, Finding, Inspection, Job, Node
from portal.jobs.transitions import move
from portal.jobs.watch import Watch
from portal.leases import Lease
from portal.workplace import temporary
from sandbox_runner.inspection import Report
from sandbox_runner.inspection import inspect as examine
from sandbox_runner.inspection.sketch import Sketch, sketch
from sandbox_runner.stage import DataFault


def canonical(value: Any) -> bytes:
    """Return JSON whose bytes depend on the value alone."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def inspect(job: Job, lease: Lease, node: Node) -> None:
    """Examine a job's artefacts, on the sealed split too; the job then is finished."""
    policy = admission.machine_policy(job.version.dataset)
    try:
        with Watch(job, lease) as watch:
            data = staging.use(job, node, sealed=True, lease=lease, cancel=watch.cancel)
    except (*staging.DATA_FAULTS, staging.TooLarge):
        move(job, "fail", lease=lease, reason="data")
        return
    with transaction.atomic():
        lease.check()
        ledger.charge_sealed(job)
    with temporary(workdir.temporary_name(job, "inspect")) as folder:
        report = _examine(job, lease, policy, data, folder)
        drawn = _sketch(job, policy, folder / "artefacts")
        rewritten = _keep_sanitised(job, report)
        _finish(job, lease, policy, report, rewritten, drawn)
    staging.leave(job)


def _examine(job: Job, lease: Lease, policy: Policy, data: Path, folder: Path) -> Report:
    artefacts = list(Artefact.objects.filter(job=job, origin="job"))
    manifest = storage.manifest_of(job.submission)
    inside = folder / "work"
    inside.mkdir(mode=0o700)
    with Watch(job, lease) as watch:
        report = examine(
            workdir.write_artefacts(artefacts, folder / "artefacts"),
            submission=workdir.unpack(job, policy, folder),
            manifest=manifest,
            datasets={job.version.dataset.slug: data},
            policy=policy,
            workdir=inside,
            minimum_isolation=policy.isolation.minimum,
            cancel=watch.cancel,
            privacy=job.privacy,
        )
    watch.check()
    if {each.path: each.sha256 for each in artefacts} != dict(report.digests):
        raise DataFault("what was inspected is not what was collected")
    return report


def _sketch(job: Job, policy: Policy, folder: Path) -> Sketch:
    """Return the projection of the job's own weights, which earlier releases are compared with."""
    rows = Artefact.objects.filter(job=job, origin="job", kind="weights")
    return sketch({row.path: folder / row.path for row in rows}, policy.release)


def _keep_sanitised(job: Job, report: Report) -> list[Artefact]:
    """Keep the weights that the inspection rewrote: they leave instead of the job's own."""
    if report.sanitised is None:
        return []
    kinds = storage.manifest_of(job.submission).outputs.names
    rows = []
    for name, kind in kinds.items():
        path = report.sanitised / name
        if not path.is_file() or path.is_symlink():
            continue
        with path.open("rb") as stream:
            kept = storage.keep(stream, context=storage.artefact_context(job.pk))
        rows.append(
            Artefact(
                job=job,
                path=name,
                kind=kind,
                origin="sanitised",
                bytes=kept.bytes,
                sha256=kept.sha256,
                object_name=kept.object_name,
                wrapped_key=kept.wrapped_key,
            )
        )
    return rows


def _finish(
    job: Job,
    lease: Lease,
    policy: Policy,
    report: Report,
    rewritten: list[Artefact],
    drawn: Sketch,
) -> None:
    public = [finding.public() for finding in report.findings]
    whole = canonical([finding.as_mapping() for finding in report.findings])
    official = json.loads(canonical(dict(report.official)))
    metrics = json.loads(canonical(dict(report.metrics)))
    sanitising = json.loads(canonical(dict(report.sanitising)))
    kept = storage.keep(io.BytesIO(whole), context=storage.report_context(job.pk))
    under = inspected_under(policy)
    digest = hashlib.sha256(
        canonical(
            {
                "verdict": report.verdict,
                "findings": public,
                "official": official,
                "metrics": metrics,
                "sanitising": sanitising,
                "digests": dict(report.digests),
                "policy": under,
                "internal": kept.sha256,
            }
        )
    ).hexdigest()
    with transaction.atomic():
        lease.check()
        Artefact.objects.filter(job=job, origin="sanitised").delete()
        Artefact.objects.bulk_create(rewritten)
        inspection = Inspection.objects.create(
            job=job,
            verdict=report.verdict,
            official=official,
            metrics=metrics,
            sanitising=sanitising,
            sketch=drawn.as_mapping(),
            policy=under,
            report_sha256=digest,
            internal_object=kept.object_name,
            internal_key=kept.wrapped_key,
        )
        Finding.objects.bulk_create(
            Finding(inspection=inspection, number=number, **finding)
            for number, finding in enumerate(public, start=1)
        )
        move(job, "finish", lease=lease, reason="exit")
