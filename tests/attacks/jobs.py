"""Attacks by a whole job: what it hands in, what it leaves, and what can be learned from its end.

The same program is first run by somebody naive, who copies every file as it is and tells exit
code, time, words and numbers as they come: there it must get through.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policies.document import default_policy
from policies.errors import Invalid
from policies.submission import parse_manifest
from sandbox_runner.lifecycle import limits_of, run_job
from sandbox_runner.spec import JobSpec, MiB, Outcome
from tests.attacks.attack import Attack, start_bare

MANIFEST = """
[job]
entrypoint = "train.py"
[datasets]
mini = "1"
[resources]
cpus = 1
memory = "512Mi"
time = "60s"
output = "16Mi"
processes = 64
[metrics]
loss = "curve"
accuracy = { kind = "number", min = 0, max = 1 }
[outputs]
weights = ["model.safetensors", "run/best/model.safetensors"]
"""
DECLARED = {
    "model.safetensors",
    "run",
    "run/best",
    "run/best/model.safetensors",
    "metrics.json",
    "config.json",
}


@dataclass(frozen=True)
class Loot:
    """What comes out of a run: files, words for the applicant, numbers and when they came."""

    files: Path
    told: str
    ticks: tuple[tuple[float, int, Mapping[str, float]], ...]
    #: A file of somebody else's, outside of everything that the job may write.
    valuable: Path


def nothing(*_: Path) -> None:
    """Prepare nothing."""


def never(_: Loot) -> bool:
    """The program itself says whether it got through."""
    return False


@dataclass(frozen=True)
class JobAttack(Attack):
    """A hostile job.

    ``shows`` says of what came out whether it got through. ``prepare`` changes the submission
    (told where a secret lies), ``lay`` what is in the target before (told what must stay as it is).
    """

    shows: Callable[[Loot], bool] = never
    manifest: str = MANIFEST
    prepare: Callable[[Path, Path], None] = nothing
    lay: Callable[[Path, Path], None] = nothing


def told(outcome: Outcome) -> str:
    """Return what the applicant learns when a job has ended (docs/architecture.md)."""
    # Imported late: the table of probes is made without the portal.
    from portal.jobs.rounding import rounded_seconds

    return json.dumps(
        {
            "state": outcome.state,
            "reason": outcome.reason,
            "fault": vars(outcome.fault) if outcome.fault else None,
            "seconds": rounded_seconds(outcome.wall_seconds),
        }
    )


def _hand_in(attack: JobAttack, home: Path, target: Mapping[str, Any]) -> tuple[Path, Path, Path]:
    """Return the submission, the target and the valuable of an attack."""
    submission, files, valuable = home / "submission", home / "files", home / "valuable"
    attack.write(submission, target)
    (submission / "glovebox.toml").write_text(attack.manifest, encoding="utf-8")
    files.mkdir()
    valuable.mkdir()
    (valuable / "model.safetensors").write_bytes(b"mine")
    (valuable / "best").mkdir()
    (valuable / "best/model.safetensors").write_bytes(b"mine")
    attack.prepare(submission, Path(target["secret"]))
    attack.lay(files, valuable)
    return submission, files, valuable


def run_sealed(
    attack: JobAttack, backend: str, home: Path, target: Mapping[str, Any]
) -> tuple[Outcome, Loot, str, str]:
    """Run it as a job; return its outcome, what came out, its log and its sandbox's name."""
    submission, files, valuable = _hand_in(attack, home, {**target, "data": "/data/mini"})
    policy = default_policy()
    identifier = f"attack-{uuid.uuid4().hex[:12]}"
    ticks: list[tuple[float, int, Mapping[str, float]]] = []
    try:
        manifest = parse_manifest((submission / "glovebox.toml").read_text("utf-8"), policy)
    except Invalid as error:
        outcome = Outcome("refused", "manifest", None, 0, 0, 0, "", detail=str(error))
        return outcome, Loot(files, told(outcome), (), valuable), "", identifier
    limits = replace(limits_of(manifest.resources, policy), tmp_bytes=64 * MiB, shm_bytes=8 * MiB)
    spec = JobSpec(
        id=identifier,
        submission=submission,
        manifest=manifest,
        datasets={slug: Path(target["data"]) for slug in manifest.datasets},
        output=files,
        limits=replace(limits, **{"grace_seconds": 1, **attack.limits}),
        backend=backend,
    )
    outcome = run_job(
        spec,
        policy,
        home / "work",
        progress=lambda step, values: ticks.append((time.monotonic(), step, dict(values))),
    )
    log = home / "work" / "log"
    words = log.read_text("utf-8", errors="replace") if log.exists() else ""
    return outcome, Loot(files, told(outcome), tuple(ticks), valuable), words, identifier


def run_naively(attack: JobAttack, home: Path, target: Mapping[str, Any]) -> tuple[Loot, str]:
    """Run it without a sandbox and hand everything over; return that and what it printed."""
    submission, files, valuable = _hand_in(attack, home, target)
    output, code = home / "output", home / "code"
    subprocess.run(["cp", "-a", str(submission), str(code)], check=True)
    read, write = os.pipe()
    os.set_blocking(write, False)
    began = time.monotonic()
    environment = {**os.environ, "GLOVEBOX_PROGRESS_FD": str(write)}
    with start_bare(code, output, environment, [write]) as process:
        try:
            printed, words = process.communicate(timeout=30)
        finally:
            process.kill()
    seconds = time.monotonic() - began
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        ticks = [_believed(line) for line in pipe.read().splitlines()]
    subprocess.run(["cp", "-a", f"{output}/.", str(files)], check=False, capture_output=True)
    names = sorted(f"{path.name} {path.lstat().st_size}" for path in files.iterdir())
    said = f"exit {process.returncode} after {seconds:.2f} s\n{printed}\n{words}\n{names}"
    return Loot(files, said, tuple(each for each in ticks if each), valuable), printed


def _believed(line: bytes) -> tuple[float, int, Mapping[str, float]] | None:
    try:
        document = json.loads(line)
        return 0.0, document["step"], document["values"]
    except (ValueError, KeyError, TypeError):
        return None
