"""Run a submission at home, on the open sample, with the same doors but no isolation at all.

For finding mistakes before a job spends its quota. It protects nothing: the code is one's own and
the data is made up. Real data is refused, and what comes out is marked as a rehearsal.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from policies.document import Policy
from policies.errors import Invalid
from policies.submission import Manifest
from sandbox_runner import stage as stages
from sandbox_runner.collect import collect
from sandbox_runner.image import ROOM
from sandbox_runner.lifecycle import code_lines, copy_submission
from sandbox_runner.progress import ProgressReader
from sandbox_runner.spec import Artefact, Limits, Outcome, Progress, Rejected
from sandbox_runner.ticks import Ticks

MARK: Final = "REHEARSAL.txt"
MARK_TEXT: Final = (
    "Made by `glovebox rehearse` on a synthetic sample, without isolation.\n"
    "This is no result: no portal accepts it and nothing here has been inspected.\n"
)

#: What a sandbox would have enforced. Shown before every rehearsal.
NOT_ENFORCED: Final = (
    "the network is reachable",
    "every file of yours can be read and written",
    "other processes can be seen",
    "memory, processes and disk are not bounded",
    "no system call is refused",
)


def check_sample(directory: Path, slug: str) -> None:
    """Raise :class:`Invalid` unless the directory says of itself that it is an open sample."""
    try:
        text = (directory / "dataset.toml").read_text(encoding="utf-8")
        about = tomllib.loads(text)
    except (OSError, ValueError):
        about = {}
    if about.get("sample") is not True:
        raise Invalid(
            "A rehearsal runs on an open sample only, and this directory is not one (its "
            "dataset.toml has no `sample = true`). Download it with: glovebox samples {slug}",
            field=f"data.{slug}",
            code="rehearse.sample",
            slug=slug,
        )


def rehearse(
    submission: Path,
    manifest: Manifest,
    datasets: Mapping[str, Path],
    output: Path,
    limits: Limits,
    policy: Policy,
    workdir: Path,
    *,
    progress: Progress | None = None,
) -> Outcome:
    """Run the submission on samples and collect what it declares; its words go to stderr.

    Raises :class:`Invalid` for data that is not a sample, or a submission with links in it.
    """
    for slug, directory in datasets.items():
        check_sample(directory, slug)
    code = workdir / "code"
    copy_submission(submission, code, policy)
    for slug, directory in datasets.items():
        entries = stages.manifest_of(directory, slug, "sample")
        stages.stage(entries, stages.open_in(directory), workdir / "data" / slug)
    (workdir / "output").mkdir()
    ticks = Ticks(manifest.metrics, 0, progress) if progress is not None else None
    reader = ProgressReader(ticks.names if ticks else frozenset(), code_lines(code), ticks)
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    exit_code, in_time = _run(manifest, workdir, limits, reader)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    artefacts: tuple[Artefact, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    state, reason = "failed", "exit"
    if not in_time:
        state, reason = "stopped", "timeout"
    elif exit_code == 0:
        state = "finished"
        artefacts, rejected = collect(workdir / "output", output, manifest, policy)
        (output / MARK).write_text(MARK_TEXT, encoding="utf-8")
    return Outcome(
        state=state,
        reason=reason,
        exit_code=exit_code,
        wall_seconds=round(time.monotonic() - started, 3),
        cpu_seconds=round(_cpu(after) - _cpu(before), 3),
        peak_memory_bytes=after.ru_maxrss * 1024,
        backend="none",
        artefacts=artefacts,
        rejected=rejected,
        fault=reader.fault,
        detail="rehearsal without isolation, on a sample",
    )


def _cpu(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def _run(
    manifest: Manifest, workdir: Path, limits: Limits, reader: ProgressReader
) -> tuple[int | None, bool]:
    """Run the program; return its exit code, and whether it ended within its time."""
    code = workdir / "code"
    own = code / manifest.entrypoint
    recipe = ROOM / "recipes" / f"{manifest.recipe}.py"
    read, write = os.pipe2(os.O_CLOEXEC)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOM / "sdk"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": str(max(1, int(limits.cpus))),
        "GLOVEBOX_CODE": str(code),
        "GLOVEBOX_DATA": str(workdir / "data"),
        "GLOVEBOX_OUTPUT": str(workdir / "output"),
        "GLOVEBOX_PROGRESS_FD": str(write),
    }
    start = ROOM / "inside" / "start.py"
    process = subprocess.Popen(
        [sys.executable, str(start), str(own if manifest.entrypoint else recipe)],
        cwd=code,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        pass_fds=[write],
        start_new_session=True,
    )
    os.close(write)
    deadline = time.monotonic() + limits.wall_seconds
    try:
        while time.monotonic() < deadline:
            if select.select([read], [], [], 0.1)[0]:
                data = os.read(read, 1 << 16)
                if data:
                    reader.feed(data)
                    continue
            if process.poll() is not None:
                return process.returncode, True
        return None, False
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
