"""A job from its submission to its artefacts: prepare, train, collect.

Each step writes down that it is done and may be called again, so that a runner that was killed
anywhere is followed by one that goes on from the last finished step. One runner a job: the job's
directory is locked while it works.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from policies.document import Policy
from policies.errors import CannotRun, Conflict, Invalid
from policies.submission import Manifest, Resources
from sandbox_runner import scratch
from sandbox_runner import stage as stages
from sandbox_runner.backends import BACKENDS, Backend, choose
from sandbox_runner.backends.choice import backend
from sandbox_runner.collect import collect as take_out
from sandbox_runner.image import ROOM
from sandbox_runner.place import WAIT_SECONDS, lock
from sandbox_runner.regular_files import LISTED, REST, copy_tree, shown
from sandbox_runner.spec import (
    Artefact,
    Fault,
    JobSpec,
    Limits,
    Mount,
    Outcome,
    Progress,
    Rejected,
    SandboxResult,
    SandboxSpec,
)
from sandbox_runner.ticks import Ticks

CODE: Final = "code"
DATA: Final = "data"
GRAPH: Final = "graph"
RAW: Final = "raw"
LOG: Final = "log"
TRAINED: Final = "trained.json"
PRIVATE: Final = "private.json"
OUTCOME: Final = "outcome.json"
INSIDE: Final = "/opt/glovebox"
RECIPES: Final = "/opt/recipes"
SHARDS: Final = "/opt/shards"


def limits_of(resources: Resources, policy: Policy) -> Limits:
    """Return the limits of a job that asked for ``resources``, with the policy's for the rest."""
    return Limits(
        cpus=resources.cpus,
        memory_bytes=resources.memory_bytes,
        processes=resources.processes,
        wall_seconds=resources.wall_seconds,
        output_bytes=resources.output_bytes,
        output_inodes=policy.isolation.output_inodes,
        tmp_bytes=policy.isolation.tmp_bytes,
        shm_bytes=policy.isolation.shm_bytes,
        open_files=policy.isolation.open_files,
        log_bytes=policy.isolation.log_bytes,
        gpus=resources.gpus,
    )


def run_job(
    spec: JobSpec,
    policy: Policy,
    workdir: Path,
    *,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Outcome:
    """Run a job to its end, or go on with one that was interrupted; return what came of it.

    ``workdir`` belongs to this job alone and keeps its log and its outcome. Raises
    :class:`Conflict` while another runner works on it.
    """
    with _alone(workdir, wait=WAIT_SECONDS):
        done = read_outcome(workdir)
        if done is not None:
            # The runner before us may have been killed while it cleared.
            _clear(workdir)
            return done
        outcome = _run(spec, policy, workdir, progress, cancel)
        _write(workdir / OUTCOME, outcome.as_mapping())
        _clear(workdir)
        return outcome


def _run(
    spec: JobSpec,
    policy: Policy,
    workdir: Path,
    progress: Progress | None,
    cancel: threading.Event | None,
) -> Outcome:
    try:
        choose(spec.backend, spec.minimum_isolation)
    except CannotRun as error:
        return _not_run("refused", "isolation", str(error))
    result = _read_result(workdir)
    if result is None:
        try:
            prepare(spec, policy, workdir)
            result = train(spec, policy, workdir, progress=progress, cancel=cancel)
        except stages.DataFault as error:
            return _not_run("failed", "data", str(error))
        except Invalid as error:
            data = error.field == "data"
            return _not_run(*(("failed", "data") if data else ("refused", "manifest")), str(error))
        except CannotRun as error:
            reasons = {
                "sandbox.image": ("failed", "image"),
                "sandbox.resources": ("refused", "resources"),
                "stage.room": ("failed", "data"),
            }
            return _not_run(*reasons.get(error.code, ("refused", "isolation")), str(error))
    return collect(spec, policy, workdir, result)


def prepare(spec: JobSpec, policy: Policy, workdir: Path) -> None:
    """Copy the submission and stage its datasets under ``workdir``; idempotent.

    Raises :class:`Invalid` for a submission with links, devices or too much in it, ``DataFault``
    for data that does not match its manifest, and ``NoRoom`` for more of it than there is room.
    """
    workdir.mkdir(parents=True, exist_ok=True, mode=0o700)
    code = workdir / CODE
    if not code.is_dir():
        partial = workdir / f"{CODE}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        copy_submission(spec.submission, partial, policy)
        partial.rename(code)
    for slug, directory in spec.datasets.items():
        if not _is_staged(directory):
            stages.stage(
                stages.manifest_of(directory, slug, spec.manifest.datasets.get(slug, "")),
                stages.open_in(directory),
                workdir / DATA / slug,
                policy=policy.staging,
            )


def copy_submission(submission: Path, target: Path, policy: Policy) -> None:
    """Copy a submission's plain files; hidden ones, and code that Python compiled, are left out.

    Raises :class:`Invalid` naming the file for a link, a device, or more than the policy allows.
    """
    limits = policy.submission.archive
    target.mkdir(mode=0o755)
    top = os.open(submission, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        refused = copy_tree(
            top, target, limit=limits.unpacked_bytes, entries=limits.members, file_mode=0o644
        )
    finally:
        os.close(top)
    if refused and refused[-1].path == REST:
        raise Invalid(
            "The submission holds more than {number} links, devices, hidden files and the like.",
            field="submission",
            code="submission.kind",
            number=LISTED,
        )
    for each in refused:
        if not Path(each.path).name.startswith(".") and Path(each.path).name != "__pycache__":
            raise Invalid(
                "The submission holds {path}, which is {why}.",
                field="submission",
                code="submission.kind",
                path=shown(each.path),
                why=each.why,
            )
    for directory, folders, files in os.walk(target):
        Path(directory).chmod(0o755)
        # Python runs compiled code without looking at what reviewers have read.
        for name in [name for name in folders if name == "__pycache__"]:
            shutil.rmtree(Path(directory) / name)
            folders.remove(name)
        for name in files:
            if name.endswith((".pyc", ".pyo")):
                (Path(directory) / name).unlink()


def train(
    spec: JobSpec,
    policy: Policy,
    workdir: Path,
    *,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    log: IO[bytes] | None = None,
) -> SandboxResult:
    """Run the prepared job's program in the sandbox; idempotent once it has ended.

    What it says goes to ``log``, an open file, or else to the file ``log`` in ``workdir``.

    Raises :class:`CannotRun` where the isolation cannot be had.
    """
    done = _read_result(workdir)
    if done is not None:
        return done
    chosen = choose(spec.backend, spec.minimum_isolation)
    raw = workdir / RAW
    for leftover in (raw, workdir / f"{RAW}.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    if spec.manifest.private is not None:
        return _train_privately(spec, policy, workdir, chosen, cancel, log)
    ticks = None
    if progress is not None:
        ticks = Ticks(spec.manifest.metrics, policy.deployment.tick_seconds, progress)
    sandbox = SandboxSpec(
        id=spec.id,
        argv=("python", f"{INSIDE}/start.py", program(spec.manifest)),
        limits=spec.limits,
        mounts=_mounts(spec, workdir),
        env={
            "GLOVEBOX_CODE": "/code",
            "GLOVEBOX_DATA": "/data",
            "GLOVEBOX_OUTPUT": "/output",
            **({"GLOVEBOX_CHECKPOINT": "/checkpoint"} if spec.checkpoint else {}),
            "GLOVEBOX_SHARDS": SHARDS,
        },
        image=spec.manifest.image,
        workdir="/code",
        output=workdir / f"{RAW}.partial",
        progress=ticks,
        metrics=ticks.names if ticks else frozenset(),
        code=code_lines(workdir / CODE),
        log=workdir / LOG if log is None else log,
    )
    result = chosen.run(sandbox, cancel)
    _keep(workdir, result)
    return result


def _keep(workdir: Path, result: SandboxResult) -> None:
    """Note that the program has ended, with what it left."""
    (workdir / f"{RAW}.partial").mkdir(exist_ok=True)
    (workdir / f"{RAW}.partial").rename(workdir / RAW)
    _write(workdir / TRAINED, _result_mapping(result))


def _train_privately(
    spec: JobSpec,
    policy: Policy,
    workdir: Path,
    chosen: Backend,
    cancel: threading.Event | None,
    log: IO[bytes] | None,
) -> SandboxResult:
    """Let the trusted trainer train the submission's network; write down what it accounted for.

    The record lies beside the job's own records, where nothing of the submission ever writes.
    """
    # What a job of another kind does not need.
    from sandbox_runner.private import training

    (workdir / PRIVATE).unlink(missing_ok=True)
    with contextlib.ExitStack() as opened:
        if log is None:
            # Both programs say what they say into one log.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            log = opened.enter_context(
                os.fdopen(os.open(workdir / LOG, flags, 0o600), "wb", buffering=0)
            )
        places = training.Places(
            code=workdir / CODE,
            data=_data(spec, workdir),
            graph=workdir / GRAPH,
            output=workdir / f"{RAW}.partial",
        )
        result, record = training.train(
            spec, policy, places, chosen, code_lines(workdir / CODE), log, cancel
        )
    if record is not None:
        _write(workdir / PRIVATE, record.as_mapping())
    _keep(workdir, result)
    return result


def read_record(workdir: Path, manifest: Manifest) -> dict[str, Any] | None:
    """Return the runner's record of a private training, None for every other job."""
    return None if manifest.private is None else _read(workdir / PRIVATE)


def collect(spec: JobSpec, policy: Policy, workdir: Path, result: SandboxResult) -> Outcome:
    """Take the declared artefacts of a finished job into ``spec.output``; idempotent."""
    artefacts: tuple[Artefact, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    if result.state == "finished":
        artefacts, rejected = take_out(workdir / RAW, spec.output, spec.manifest, policy)
        rejected = (*result.left_behind, *rejected)
    return Outcome(
        state=result.state,
        reason=result.reason,
        exit_code=zero_or_not(result.exit_code),
        wall_seconds=round(result.wall_seconds, 3),
        cpu_seconds=round(result.cpu_seconds, 3),
        peak_memory_bytes=result.peak_memory_bytes,
        backend=result.backend,
        backend_version=result.backend_version,
        artefacts=artefacts,
        rejected=rejected,
        fault=result.fault,
        utilisation=utilisation(result, spec.limits),
        privacy=read_record(workdir, spec.manifest),
    )


def zero_or_not(exit_code: int | None) -> int | None:
    """Return what is told of an exit code: 0 or 1, for the program chooses the number."""
    return None if exit_code is None else int(exit_code != 0)


def utilisation(result: SandboxResult, limits: Limits) -> dict[str, float]:
    """Return how much of what it asked for a job used, by name, each from 0 to 1."""
    shares = {
        "cpu": result.cpu_seconds / max(1e-3, result.wall_seconds * limits.cpus),
        "memory": result.peak_memory_bytes / limits.memory_bytes,
    }
    if result.data_wait is not None:
        shares["data_wait"] = result.data_wait
    return {name: round(min(1.0, share), 3) for name, share in shares.items()}


def sweep(workdirs: Path | None = None) -> int:
    """Remove what dead runners left: processes, control groups, locks, half-staged directories.

    ``workdirs`` holds one directory a job. Called at start, and at any time: what belongs to a
    living runner is not touched. Returns how many things were removed.
    """
    removed = scratch.sweep()
    for name in BACKENDS:
        removed += backend(name).sweep()
    for workdir in sorted(workdirs.iterdir()) if workdirs is not None and workdirs.is_dir() else ():
        if not workdir.is_dir() or workdir.is_symlink():
            continue
        with contextlib.suppress(Conflict), _alone(workdir):
            removed += stages.sweep(workdir / DATA)
            for partial in (f"{RAW}.partial", f"{CODE}.partial"):
                if (workdir / partial).exists():
                    shutil.rmtree(workdir / partial)
                    removed += 1
            if (workdir / OUTCOME).exists():
                _clear(workdir)
    return removed


def program(manifest: Manifest) -> str:
    """Return the program of a submission by its path inside: its own, or the trusted recipe."""
    if manifest.recipe:
        return f"{RECIPES}/{manifest.recipe}.py"
    return f"/code/{manifest.entrypoint}"


def code_lines(code: Path) -> dict[str, int]:
    """Return the Python files of a submission with their numbers of lines."""
    return {
        path.relative_to(code).as_posix(): path.read_bytes().count(b"\n") + 1
        for path in code.rglob("*.py")
        if path.is_file() and not path.is_symlink()
    }


def read_outcome(workdir: Path) -> Outcome | None:
    """Return the recorded outcome of a job that has ended, None while there is none."""
    document = _read(workdir / OUTCOME)
    if document is None:
        return None
    document["artefacts"] = tuple(Artefact(**row) for row in document["artefacts"])
    document["rejected"] = tuple(Rejected(**row) for row in document["rejected"])
    document["fault"] = Fault(**document["fault"]) if document["fault"] else None
    return Outcome(**document)


def _is_staged(directory: Path) -> bool:
    record = stages.staged(directory)
    return record is not None and record.get("sealed") is False


def _data(spec: JobSpec, workdir: Path) -> dict[str, Path]:
    """Return where each dataset is staged."""
    return {
        slug: (directory if _is_staged(directory) else workdir / DATA / slug).absolute()
        for slug, directory in spec.datasets.items()
    }


def _mounts(spec: JobSpec, workdir: Path) -> tuple[Mount, ...]:
    mounts = [Mount(workdir / CODE, "/code"), Mount(ROOM / "inside", INSIDE)]
    if spec.manifest.recipe:
        mounts.append(Mount(ROOM / "recipes", RECIPES))
    if spec.checkpoint is not None:
        mounts.append(Mount(spec.checkpoint, "/checkpoint"))
    for slug, place in _data(spec, workdir).items():
        mounts.append(Mount(place, f"/data/{slug}"))
        shards = stages.shards_of(place)
        if shards is not None:
            mounts.append(Mount(shards.absolute(), f"{SHARDS}/{slug}"))
    return tuple(Mount(mount.source.absolute(), mount.target) for mount in mounts)


def _not_run(state: str, reason: str, detail: str) -> Outcome:
    return Outcome(state, reason, None, 0.0, 0.0, 0, "", detail=detail)


def _result_mapping(result: SandboxResult) -> dict[str, Any]:
    return dataclasses.asdict(result)


def _read_result(workdir: Path) -> SandboxResult | None:
    document = _read(workdir / TRAINED)
    if document is None or not (workdir / RAW).is_dir():
        return None
    document["left_behind"] = tuple(Rejected(**row) for row in document["left_behind"])
    document["fault"] = Fault(**document["fault"]) if document["fault"] else None
    return SandboxResult(**document)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return document


def _write(path: Path, document: dict[str, Any]) -> None:
    """Write a record so that it is there whole or not at all, also after a power cut."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _clear(workdir: Path) -> None:
    """Remove everything plain but the log and the outcome."""
    if (workdir / DATA).is_dir():
        for staged in (workdir / DATA).iterdir():
            if staged.is_dir():
                stages.unstage(staged)
    for name in (CODE, DATA, GRAPH, RAW, f"{CODE}.partial", f"{RAW}.partial"):
        shutil.rmtree(workdir / name, ignore_errors=True)
    for name in (TRAINED, PRIVATE, *(f"{n}.partial" for n in (TRAINED, PRIVATE, OUTCOME))):
        (workdir / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(workdir: Path, wait: float = 0.0) -> Iterator[None]:
    workdir.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(workdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not lock(descriptor, time.monotonic() + wait):
            raise Conflict("Another runner works on this job already.", code="sandbox.busy")
        yield
    finally:
        os.close(descriptor)
