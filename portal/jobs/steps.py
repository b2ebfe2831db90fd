"""What each state of a job asks a worker to do. Every step may be done again by another worker.

A step does its work, then moves the job in one transaction together with what it found. Until
that transaction nothing of the attempt counts, whoever dies.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.db import transaction
from django.db.models import F

from policies.document import Policy
from policies.errors import CannotRun, Conflict, Invalid, UserError
from policies.ledger import bits_of_fault, bits_of_shares, round_share
from policies.submission import manifest_from_mapping
from portal.jobs import admission, checkpoints, ledger, staging, storage, workdir
from portal.jobs.models import Artefact, Job, LedgerEntry, Node
from portal.jobs.progress import Curves
from portal.jobs.transitions import move
from portal.jobs.watch import Watch
from portal.leases import Lease
from portal.tasking import TryAgain
from portal.workplace import mark, temporary
from sandbox_runner import cancelling, lifecycle
from sandbox_runner.collect import collect as take_out
from sandbox_runner.spec import JobSpec, SandboxResult
from sandbox_runner.stage import DataFault

_ACTION_OF = {"finished": "collect", "failed": "fail", "stopped": "stop", "refused": "refuse"}


def refuse(job: Job, lease: Lease, reason: str, error: UserError) -> None:
    """End a job by a rule; the applicant reads the sentence and the field."""
    move(
        job,
        "refuse",
        lease=lease,
        reason=reason,
        message=str(error)[:300],
        field=error.field[:100],
    )


def check(job: Job, lease: Lease, node: Node) -> None:
    """Read the submission again under the policy of today, and let the static scan advise."""
    policy = admission.machine_policy(job.version.dataset)
    with temporary(workdir.temporary_name(job, "check")) as folder:
        try:
            manifest_from_mapping(job.submission.manifest, policy)
            code = workdir.unpack(job, policy, folder)
        except UserError as error:
            refuse(job, lease, "manifest", error)
            return
        advice = workdir.scan(code)
    with transaction.atomic():
        type(job.submission).objects.filter(pk=job.submission_id).update(advice=advice)
        move(job, "check", lease=lease, waiting="queue", waiting_facts={})


def queue(job: Job, lease: Lease, node: Node) -> None:
    """Put the job in line, unless this machine can never give what it asks for."""
    short = admission.never_fits(job, node)
    if short:
        error = CannotRun(
            "This machine has less of this resource than the job asks for.",
            field=f"resources.{short}",
        )
        refuse(job, lease, "resources", error)
        return
    move(job, "queue", lease=lease, waiting="queue", waiting_facts={})


def stage(job: Job, lease: Lease, node: Node) -> None:
    """Stage the version without its sealed split."""
    try:
        with Watch(job, lease) as watch:
            staging.use(job, node, sealed=False, lease=lease, cancel=watch.cancel)
    except staging.DATA_FAULTS:
        move(job, "fail", lease=lease, reason="data")
        return
    except CannotRun as error:
        _not_run(job, lease, error)
        return
    move(job, "run", lease=lease, waiting="", waiting_facts={})


def sandbox_name(job: Job) -> str:
    """Return the name of a job's sandbox: this machine runs one of a name at a time.

    The job's, not the run's; and this portal's, for another's job may have the same number.
    """
    return f"job-{mark()}-{job.pk}"


def _spec(job: Job, submission: Path, output: Path, data: Path, policy: Policy) -> JobSpec:
    manifest = storage.manifest_of(job.submission)
    return JobSpec(
        id=sandbox_name(job),
        submission=submission,
        manifest=manifest,
        datasets={job.version.dataset.slug: data},
        output=output,
        limits=lifecycle.limits_of(manifest.resources, policy),
        minimum_isolation=policy.isolation.minimum,
    )


def run(job: Job, lease: Lease, node: Node) -> None:
    """Train in the sandbox, watched. The log is kept encrypted; what is told of it is charged."""
    policy = admission.machine_policy(job.version.dataset)
    with transaction.atomic():
        lease.check()
        Job.objects.filter(pk=job.pk).update(runs=F("runs") + 1)
    job.refresh_from_db()
    folder = workdir.of_run(job)
    try:
        with Watch(job, lease) as watch:
            # Staged already as a rule; where it is not, that takes long.
            data = staging.use(job, node, sealed=False, lease=lease, cancel=watch.cancel)
            code = workdir.unpack(job, policy, folder)
            spec = _spec(job, code, folder / "artefacts", data, policy)
            lifecycle.prepare(spec, policy, folder)
            if source := spec.manifest.checkpoint.source:
                earlier = checkpoints.unpack(job, source, folder / "earlier")
                spec = dataclasses.replace(spec, checkpoint=earlier)
        watch.check()
        shutil.rmtree(code)  # prepare has made its own copy
        with _memory_file() as log:
            result, reason = _train(job, lease, spec, policy, folder, log)
            kept = _keep_log(job, log)
        packed = None
        if spec.manifest.checkpoint.keep and reason != "lapsed":
            packed = checkpoints.pack(job, folder / lifecycle.RAW, policy)
    except staging.DATA_FAULTS:
        move(job, "fail", lease=lease, reason="data")
    except Invalid as error:
        if error.code != "checkpoint.missing" and not error.code.startswith("private."):
            raise
        refuse(job, lease, "manifest", error)
    except Conflict as error:
        if error.code == "sandbox.busy":
            raise TryAgain("the sandbox of an earlier worker is still ending") from None
        raise
    except CannotRun as error:
        _not_run(job, lease, error)
    else:
        shares = lifecycle.utilisation(result, spec.limits)
        _ended(job, lease, result, reason, policy, folder, shares, kept, packed)


def _memory_file() -> BinaryIO:
    """Return a file that no disk and no other process ever sees, and that goes with this one."""
    return cast(BinaryIO, os.fdopen(os.memfd_create("log", os.MFD_CLOEXEC), "w+b", buffering=0))


def _keep_log(job: Job, log: BinaryIO) -> dict[str, Any]:
    """Store what a job said, encrypted; return what its row keeps of that."""
    log.seek(0)
    kept = storage.keep(log, context=storage.log_context(job.pk))
    return {
        "log_object": kept.object_name,
        "log_key": kept.wrapped_key,
        "log_bytes": kept.bytes,
    }


def _not_run(job: Job, lease: Lease, error: CannotRun) -> None:
    failed = {"sandbox.image": "image", "stage.room": "data"}
    if error.code in failed:
        move(
            job,
            "fail",
            lease=lease,
            reason=failed[error.code],
            message=str(error)[:300],
            field=error.field,
        )
    elif error.code.startswith("sandbox."):
        refuse(job, lease, "resources" if error.code == "sandbox.resources" else "isolation", error)
    else:
        raise TryAgain("the machine cannot do this now") from error


def _train(
    job: Job, lease: Lease, spec: JobSpec, policy: Policy, folder: Path, log: BinaryIO
) -> tuple[SandboxResult, str]:
    """Return how the sandbox ended, and why we ended it if we did."""
    curves = Curves(job, lease, spec.manifest.metrics, policy)
    with Watch(job, lease, each=curves.flush) as watch:
        result = lifecycle.train(
            spec, policy, folder, progress=curves.take, cancel=watch.cancel, log=log
        )
    if watch.reason == "lost":
        watch.check()
    curves.flush()
    if result.state == "stopped" and result.reason == "cancelled":
        return result, watch.reason or "evicted"
    return result, result.reason


def _ended(
    job: Job,
    lease: Lease,
    result: SandboxResult,
    reason: str,
    policy: Policy,
    folder: Path,
    shares: Mapping[str, float],
    kept: Mapping[str, Any],
    packed: checkpoints.Packed | None,
) -> None:
    facts: dict[str, Any] = {
        "exit_code": lifecycle.zero_or_not(result.exit_code),
        "wall_seconds": result.wall_seconds,
        "cpu_seconds": result.cpu_seconds,
        "peak_memory_bytes": result.peak_memory_bytes,
        "backend": result.backend,
        "backend_version": result.backend_version[:100],
        "rejected": [vars(row) for row in result.left_behind],
        "privacy": lifecycle.read_record(folder, storage.manifest_of(job.submission)),
        **kept,
    }
    lines = list(lifecycle.code_lines(folder / lifecycle.CODE).values())
    action = _ACTION_OF[result.state]
    with transaction.atomic():
        lease.check()
        if packed is not None:
            facts["checkpoint_state"] = checkpoints.note(job, packed, policy)
        if result.fault is not None and ledger.charge(
            job, LedgerEntry.Kind.FAULT, policy, bits=bits_of_fault(lines)
        ):
            facts |= {
                "fault_type": result.fault.type,
                "fault_file": result.fault.file,
                "fault_line": result.fault.line,
            }
        figures = LedgerEntry.Kind.FIGURE
        if ledger.charge(job, figures, policy, bits=bits_of_shares(len(shares))):
            facts["utilisation"] = {name: round_share(share) for name, share in shares.items()}
        if action == "collect":
            move(job, action, lease=lease, waiting="collecting", **facts)
        else:
            move(job, action, lease=lease, reason=reason, **facts)


def collect(job: Job, lease: Lease, node: Node) -> None:
    """Take the declared files out of what the run left, and keep them encrypted."""
    policy = admission.machine_policy(job.version.dataset)
    manifest = storage.manifest_of(job.submission)
    folder = workdir.of_run(job)
    raw = folder / lifecycle.RAW
    if not raw.is_dir():
        # The machine was restarted: its memory is gone, and with it what the run left.
        move(job, "stop", lease=lease, reason="node-lost")
        return
    target = folder / "artefacts"
    kinds = manifest.outputs.names
    rows = []
    with Watch(job, lease) as watch:
        found, rejected = take_out(raw, target, manifest, policy, check=watch.check)
        for each in found:
            with cancelling.opened(target / each.path, watch.cancel) as stream:
                kept = storage.keep(stream, context=storage.artefact_context(job.pk))
            if kept.sha256 != each.sha256:
                raise DataFault("an artefact changed while it was stored")
            rows.append(
                Artefact(
                    job=job,
                    path=each.path,
                    kind=kinds[each.path],
                    bytes=kept.bytes,
                    sha256=kept.sha256,
                    object_name=kept.object_name,
                    wrapped_key=kept.wrapped_key,
                )
            )
    watch.check()
    with transaction.atomic():
        lease.check()
        Artefact.objects.filter(job=job).delete()
        Artefact.objects.bulk_create(rows)
        move(
            job,
            "inspect",
            lease=lease,
            waiting="inspecting",
            rejected=[*job.rejected, *(vars(row) for row in rejected)],
        )
    staging.leave(job, sealed=False)
    workdir.remove(job)
