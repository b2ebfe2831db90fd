"""Training the example CNN sealed and bare: same interpreter, threads, environment and bytes."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from bench.ratios import Ratio, in_turns
from bench.start import bare_environment, held_backends
from policies.document import default_policy
from policies.submission import MANIFEST_NAME, parse_manifest
from sandbox_runner import stage
from sandbox_runner.lifecycle import limits_of, run_job
from sandbox_runner.spec import JobSpec
from synthetic.mammography import write_phantoms

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "lesion-cnn"
PATIENTS = 16
# One thread: two that wait for each other measure the neighbours on a busy machine, not us.
THREADS = 1
REPETITIONS = 3
SLUG = "mammography"


def run(folder: Path) -> list[Ratio]:
    """Measure the whole process, from its start to its artefacts, in turns.

    The data is staged once and read by both; the bare run has the environment and the number of
    threads that the sandbox gives, and is checked to have learnt exactly the same.
    """
    write_phantoms(folder / "phantoms", patients=PATIENTS, seed=1, identifiers=False)
    dataset = folder / "data" / SLUG
    listed = stage.manifest_of(folder / "phantoms", SLUG, "1")
    stage.stage(listed, stage.open_in(folder / "phantoms"), dataset)
    policy = default_policy()
    manifest = parse_manifest((EXAMPLE / MANIFEST_NAME).read_text(encoding="utf-8"), policy)
    manifest = replace(manifest, resources=replace(manifest.resources, cpus=THREADS))
    threads = str(THREADS)
    numbers = itertools.count()
    learnt: dict[str, object] = {}
    processor: dict[str, list[float]] = {}

    def bare() -> float:
        output = folder / f"bare-{next(numbers)}"
        output.mkdir()
        environment = bare_environment(
            OMP_NUM_THREADS=threads,
            MKL_NUM_THREADS=threads,
            OPENBLAS_NUM_THREADS=threads,
            GLOVEBOX_CODE=str(EXAMPLE),
            GLOVEBOX_DATA=str(dataset.parent),
            GLOVEBOX_OUTPUT=str(output),
        )
        began, before = time.perf_counter(), _cpu_of_children()
        subprocess.run(
            [sys.executable, str(EXAMPLE / manifest.entrypoint)],
            env=environment,
            cwd=EXAMPLE,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        seconds = time.perf_counter() - began
        processor.setdefault("bare", []).append(_cpu_of_children() - before)
        learnt["bare"] = _metrics(output)
        return seconds

    def sealed(backend: str) -> float:
        number = next(numbers)
        spec = JobSpec(
            id=f"bench-{os.getpid()}-{number}",
            submission=EXAMPLE,
            manifest=manifest,
            datasets={SLUG: dataset},
            output=folder / f"sealed-{number}",
            limits=limits_of(manifest.resources, policy),
            backend=backend,
        )
        began = time.perf_counter()
        outcome = run_job(spec, policy, folder / f"work-{number}", progress=lambda *_tick: None)
        seconds = time.perf_counter() - began
        if outcome.state != "finished":
            raise RuntimeError(f"training in {backend}: {outcome.state} {outcome.reason}")
        processor.setdefault(backend, []).append(outcome.cpu_seconds)
        learnt[backend] = _metrics(spec.output)
        return seconds

    runs = {"bare": bare}
    for name in held_backends():
        runs[name] = lambda n=name: sealed(n)  # type: ignore[misc]
    try:
        measured = in_turns(runs, REPETITIONS, warm=0)
    finally:
        # What is staged is read-only, to its owner too.
        stage.unstage(dataset)
        shutil.rmtree(dataset.parent, ignore_errors=True)
    same = all(learnt[name] == learnt["bare"] for name in runs)
    print(f"  {PATIENTS} patients, threads: {threads}; bare and sealed learnt "
          f"{'exactly the same' if same else 'NOT the same figures'}")  # fmt: skip
    rows = []
    for what, by in (("wall clock", measured), ("processor", processor)):
        for name in measured:
            if name != "bare":
                about = f"{name} against bare, {what}"
                rows.append(Ratio(about, "s", "lower", name, by[name], "bare", by["bare"]))
    return rows


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _metrics(output: Path) -> object:
    return json.loads((output / "metrics.json").read_text(encoding="utf-8"))
