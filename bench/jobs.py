"""Twenty jobs queued at once on two cores: what the queue and the sealing add to their own work."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from bench.ratios import Ratio, in_turns
from bench.start import bare_environment, held_backends
from policies import queue
from policies.document import default_policy
from policies.submission import parse_manifest
from sandbox_runner.lifecycle import limits_of, run_job
from sandbox_runner.spec import JobSpec, Outcome

JOBS = 20
CORES = 2
REPETITIONS = 1
# A few seconds of one core: short for a training, long enough that starting is not the work.
PROGRAM = """
import numpy
matrix = numpy.random.default_rng(1).random((160, 160))
for step in range(48_000):
    matrix = matrix @ matrix
    matrix /= matrix.max()
"""
MANIFEST = """
[job]
name = "one"
entrypoint = "train.py"
[resources]
cpus = 1
memory = "512Mi"
time = "10m"
output = "16Mi"
"""


def run(folder: Path) -> list[Ratio]:
    """Measure the wall clock from the queueing to the last end, in each backend that holds here.

    The base is what the jobs use of a processor when they run bare, two at a time, divided by the
    two cores: no queue can be faster. Each job must end as finished.
    """
    code = folder / "code"
    code.mkdir()
    (code / "glovebox.toml").write_text(MANIFEST, encoding="utf-8")
    (code / "train.py").write_text(PROGRAM, encoding="utf-8")
    policy = default_policy()
    manifest = parse_manifest(MANIFEST, policy)
    numbers = itertools.count()
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)
    processor: dict[str, list[float]] = {}

    def bare() -> float:
        before = _cpu_of_children()

        def one(_number: int) -> None:
            command = [sys.executable, str(code / "train.py")]
            environment = bare_environment(
                OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"
            )
            subprocess.run(command, env=environment, cwd=code, check=True)

        _in_line(one)
        used = _cpu_of_children() - before
        processor.setdefault("bare", []).append(used)
        return used / CORES

    def sealed(backend: str) -> float:
        outcomes: dict[int, Outcome] = {}

        def one(number: int) -> None:
            name = f"bench-{os.getpid()}-{next(numbers)}"
            spec = JobSpec(
                id=name,
                submission=code,
                manifest=manifest,
                datasets={},
                output=folder / f"output-{name}",
                limits=limits_of(manifest.resources, policy),
                backend=backend,
            )
            outcomes[number] = run_job(spec, policy, folder / name)

        began = time.perf_counter()
        _in_line(one)
        seconds = time.perf_counter() - began
        lost = JOBS - sum(each.state == "finished" for each in outcomes.values())
        print(f"  {backend}: {JOBS} jobs, {lost} lost, {seconds:.1f} s")
        if lost:
            raise RuntimeError(f"{lost} of {JOBS} jobs in {backend} did not finish")
        processor.setdefault(backend, []).append(sum(o.cpu_seconds for o in outcomes.values()))
        return seconds

    runs: dict[str, Callable[[], float]] = {"bare processor / 2": bare}
    for name in held_backends():
        runs[name] = lambda n=name: sealed(n)  # type: ignore[misc]
    measured = in_turns(runs, REPETITIONS, warm=0)
    base = measured["bare processor / 2"]
    rows = []
    for name in measured:
        if name in processor:
            rows.append(
                Ratio(f"{JOBS} jobs in {name}, wall clock", "s", "lower", name, measured[name],
                      "bare processor / 2", base)
            )  # fmt: skip
            rows.append(
                Ratio(f"{JOBS} jobs in {name}, processor", "s", "lower", name, processor[name],
                      "bare", processor["bare"])
            )  # fmt: skip
    return rows


def _in_line(one: Callable[[int], None]) -> None:
    """Queue all jobs at once, and start each when the queue's rules say so."""
    rules = default_policy().deployment.queue
    machine = queue.Amount(CORES, 4 << 30)
    now = time.monotonic()
    waiting = {
        number: queue.Job(
            id=number,
            organisation=f"organisation {number % 3}",
            person=f"person {number % 5}",
            amount=queue.Amount(1, 512 << 20),
            limit=600,
            submitted=now,
        )
        for number in range(JOBS)
    }
    running: dict[int, queue.Job] = {}
    ended: SimpleQueue[tuple[int, BaseException | None]] = SimpleQueue()

    def work(number: int) -> None:
        try:
            one(number)
        except BaseException as error:
            ended.put((number, error))
        else:
            ended.put((number, None))

    while waiting or running:
        now = time.monotonic()
        plan = queue.plan(machine, list(running.values()), list(waiting.values()), {}, rules, now)
        for number in plan.start:
            running[number] = waiting.pop(number)
            threading.Thread(target=work, args=(number,)).start()
        if len(running) > CORES:
            raise RuntimeError("more jobs at once than there are cores")
        number, error = ended.get()
        if error is not None:
            raise error
        del running[number]


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
