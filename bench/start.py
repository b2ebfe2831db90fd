"""What sealing adds to a program that does nothing: seconds from the call to the result."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench.ratios import Ratio, in_turns
from policies.document import default_policy
from policies.submission import parse_manifest
from sandbox_runner import image
from sandbox_runner.backends import choice
from sandbox_runner.lifecycle import limits_of, run_job
from sandbox_runner.spec import JobSpec, Limits, SandboxSpec

REPETITIONS = 11
PROGRAM = "pass\n"
MANIFEST = """
[job]
name = "empty"
entrypoint = "train.py"
[resources]
cpus = 1
memory = "512Mi"
time = "60s"
output = "16Mi"
"""


def run(folder: Path) -> list[Ratio]:
    """Measure an empty sandbox and an empty job in each backend that this machine can hold."""
    code = folder / "code"
    code.mkdir()
    (code / "glovebox.toml").write_text(MANIFEST, encoding="utf-8")
    (code / "train.py").write_text(PROGRAM, encoding="utf-8")
    policy = default_policy()
    manifest = parse_manifest(MANIFEST, policy)
    numbers = itertools.count()

    def bare() -> float:
        began = time.perf_counter()
        command = [sys.executable, str(code / "train.py")]
        subprocess.run(command, env=bare_environment(), cwd=code, check=True)
        return time.perf_counter() - began

    def sealed(backend: str) -> float:
        spec = SandboxSpec(
            id=f"bench-{os.getpid()}-{next(numbers)}",
            argv=("python", "-c", PROGRAM),
            limits=Limits(cpus=1, memory_bytes=512 << 20, wall_seconds=60),
        )
        began = time.perf_counter()
        result = choice.backend(backend).run(spec)
        seconds = time.perf_counter() - began
        if result.state != "finished":
            raise RuntimeError(f"the empty program in {backend}: {result.state} {result.reason}")
        return seconds

    def job(backend: str) -> float:
        number = next(numbers)
        spec = JobSpec(
            id=f"bench-{os.getpid()}-{number}",
            submission=code,
            manifest=manifest,
            datasets={},
            output=folder / f"output-{number}",
            limits=limits_of(manifest.resources, policy),
            backend=backend,
        )
        began = time.perf_counter()
        outcome = run_job(spec, policy, folder / f"work-{number}")
        seconds = time.perf_counter() - began
        if outcome.state != "finished":
            raise RuntimeError(f"the empty job in {backend}: {outcome.state} {outcome.reason}")
        return seconds

    runs = {"bare": bare}
    for name in held_backends():
        runs[f"{name} sandbox"] = lambda n=name: sealed(n)  # type: ignore[misc]
        runs[f"{name} job"] = lambda n=name: job(n)  # type: ignore[misc]
    measured = in_turns(runs, REPETITIONS)
    for name in runs:
        if name != "bare":
            pairs = zip(measured[name], measured["bare"], strict=True)
            more = [1000 * (mine - other) for mine, other in pairs]
            print(f"  {name}: {median(more):.0f} ms more than bare "
                  f"({min(more):.0f} to {max(more):.0f})")  # fmt: skip
    return [
        Ratio(f"{name} against bare", "s", "lower", name, measured[name], "bare", measured["bare"])
        for name in runs
        if name != "bare"
    ]


def held_backends() -> list[str]:
    """Return the backends of one machine that hold everything they promise here."""
    held = []
    for name in choice.BACKENDS:
        lacking = choice.missing(name)
        if lacking:
            print(f"  not measured: {name} cannot be had here ({', '.join(lacking)})")
        else:
            held.append(name)
    return held


def bare_environment(**more: str) -> dict[str, str]:
    """Return the environment of the sandbox's image for the same program on the bare machine."""
    sdk = Path(image.__file__).with_name("sdk")
    return {**image.find("pytorch-cpu").env, "PYTHONPATH": str(sdk), **more}
