"""Whoever stops the runner stops its sandbox too, and the next runner ends the job."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from policies.document import default_policy
from policies.submission import parse_manifest
from sandbox_runner import lifecycle
from sandbox_runner.backends import Backend
from sandbox_runner.lifecycle import limits_of, run_job
from sandbox_runner.spec import JobSpec
from tests.attacks import runner
from tests.attacks.attack import leftovers
from tests.attacks.conftest import Probe
from tests.attacks.jobs import MANIFEST
from tests.attacks.runner import RunnerAttack

pytestmark = pytest.mark.sandbox

RUNNER = """
import pickle, sys
from pathlib import Path
from sandbox_runner.lifecycle import run_job
spec, policy, workdir = pickle.load(open(sys.argv[1], "rb"))
run_job(spec, policy, workdir)
"""


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(each, id=each.name, marks=pytest.mark.slow if each.slow else ())
        for each in runner.ATTACKS
    ],
)
def test_nothing_outlives_the_runner(
    attack: RunnerAttack, backend: Backend, target: Mapping[str, Any], tmp_path: Path, probe: Probe
) -> None:
    policy, manifest = default_policy(), parse_manifest(MANIFEST, default_policy())
    attack.write(tmp_path / "submission", {**target, "data": "/data/mini"})
    workdirs = tmp_path / "jobs"
    spec = JobSpec(
        id=f"attack-{uuid.uuid4().hex[:12]}",
        submission=tmp_path / "submission",
        manifest=manifest,
        datasets={"mini": Path(target["data"])},
        output=tmp_path / "artefacts",
        limits=limits_of(manifest.resources, policy),
        backend=backend.name,
    )
    given = tmp_path / "given"
    given.write_bytes(pickle.dumps((spec, policy, workdirs / spec.id)))
    log = workdirs / spec.id / "log"
    # A test run that was started in the background has some of these signals ignored.
    process = subprocess.Popen(
        ["env", "--default-signal", sys.executable, "-c", RUNNER, str(given)],
        cwd=Path.cwd(),
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60
    while not (log.exists() and b"began" in log.read_bytes()) and time.monotonic() < until:
        time.sleep(0.01)
    for number in attack.signals:
        process.send_signal(number)
        time.sleep(0.1)
    ended = process.wait(30)

    # What is dead may still wait for its burial when the runner has gone.
    until = time.monotonic() + 10
    while any(each.startswith("process") for each in leftovers(spec.id)):
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    survivors = [each for each in leftovers(spec.id) if each.startswith("process")]
    lifecycle.sweep(workdirs)
    swept = leftovers(spec.id)
    outcome = run_job(spec, policy, workdirs / spec.id)

    right = ended != 0 and (outcome.state, outcome.reason) == ("finished", "exit")
    left = {path.name for path in (workdirs / spec.id).iterdir()} - {"log", "outcome.json"}
    probe(
        backend,
        attack,
        succeeded=bool(survivors),
        wrong="" if right else f"the runner ended with {ended}, the job as {outcome}",
        leftovers=swept | leftovers(spec.id) | {f"file {each}" for each in left},
    )
    assert [path.name for path in spec.output.iterdir()] == ["model.safetensors"]
    shutil.rmtree(workdirs)
