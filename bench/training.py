"""Training the example CNN sealed and bare: same interpreter, threads, environment and bytes.

Importing PyTorch is most of a short program's time and is done once a job, so the training is timed
from inside, after everything is imported; the whole process is measured besides.
"""

from __future__ import annotations

import itertools
import json
import os
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
from sandbox_runner.lifecycle import LOG, limits_of, run_job
from sandbox_runner.spec import JobSpec
from synthetic.mammography import write_phantoms

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "lesion-cnn"
PATIENTS = 16
# One thread: two that wait for each other measure the neighbours on a busy machine, not us.
THREADS = 1
REPETITIONS = 3
EPOCHS = 30
SLUG = "mammography"
# What the training imports, some of it at its first step only; then the training itself.
TIMED = """
import runpy, time
from pathlib import Path
import glovebox, numpy, pydicom, torch, torch._dynamo, model
began, used = time.perf_counter(), time.process_time()
runpy.run_path(str(Path(__file__).with_name("train.py")))
print("timed", time.perf_counter() - began, time.process_time() - used, flush=True)
"""


def run(folder: Path) -> list[Ratio]:
    """Measure the training after import, and the process from start to artefacts, in turns.

    The data is staged once and read by both; the bare run has the environment and the number of
    threads that the sandbox gives, and is checked to have learnt exactly the same.
    """
    write_phantoms(folder / "phantoms", patients=PATIENTS, seed=1, identifiers=False)
    dataset = folder / "data" / SLUG
    listed = stage.manifest_of(folder / "phantoms", SLUG, "1")
    stage.stage(listed, stage.open_in(folder / "phantoms"), dataset)
    code = folder / "code"
    shutil.copytree(EXAMPLE, code)
    (code / "timed.py").write_text(TIMED, encoding="utf-8")
    text = (code / MANIFEST_NAME).read_text(encoding="utf-8")
    for old, new in (('"train.py"', '"timed.py"'), ("epochs = 10", f"epochs = {EPOCHS}")):
        if old not in text:
            raise RuntimeError(f"the example's manifest has no {old} any more")
        text = text.replace(old, new)
    (code / MANIFEST_NAME).write_text(text, encoding="utf-8")
    policy = default_policy()
    manifest = parse_manifest(text, policy)
    manifest = replace(manifest, resources=replace(manifest.resources, cpus=THREADS))
    threads = str(THREADS)
    numbers = itertools.count()
    learnt: dict[str, object] = {}
    inside: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}

    def _note(name: str, said: str) -> None:
        row = next(row for row in said.splitlines() if row.startswith("timed "))
        _, wall, used = row.split()
        inside.setdefault(name, []).append(float(wall))
        processor.setdefault(name, []).append(float(used))

    def bare() -> float:
        output = folder / f"bare-{next(numbers)}"
        output.mkdir()
        environment = bare_environment(
            OMP_NUM_THREADS=threads,
            MKL_NUM_THREADS=threads,
            OPENBLAS_NUM_THREADS=threads,
            GLOVEBOX_CODE=str(code),
            GLOVEBOX_DATA=str(dataset.parent),
            GLOVEBOX_OUTPUT=str(output),
        )
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(code / manifest.entrypoint)],
            env=environment,
            cwd=code,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        seconds = time.perf_counter() - began
        _note("bare", done.stdout)
        learnt["bare"] = _metrics(output)
        return seconds

    def sealed(backend: str) -> float:
        number = next(numbers)
        spec = JobSpec(
            id=f"bench-{os.getpid()}-{number}",
            submission=code,
            manifest=manifest,
            datasets={SLUG: dataset},
            output=folder / f"sealed-{number}",
            limits=limits_of(manifest.resources, policy),
            backend=backend,
        )
        began = time.perf_counter()
        workdir = folder / f"work-{number}"
        outcome = run_job(spec, policy, workdir, progress=lambda *_tick: None)
        seconds = time.perf_counter() - began
        if outcome.state != "finished":
            raise RuntimeError(f"training in {backend}: {outcome.state} {outcome.reason}")
        _note(backend, (workdir / LOG).read_text(encoding="utf-8"))
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
    for what, by in (
        ("after import", inside),
        ("after import, processor", processor),
        ("whole process", measured),
    ):
        for name in measured:
            if name != "bare":
                about = f"{name} against bare, {what}"
                rows.append(Ratio(about, "s", "lower", name, by[name], "bare", by["bare"]))
    return rows


def _metrics(output: Path) -> object:
    return json.loads((output / "metrics.json").read_text(encoding="utf-8"))
