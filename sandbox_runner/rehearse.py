"""Run a submission at home, on the open sample, with the same doors but no isolation at all.

For finding mistakes before a job spends its quota. It protects nothing: the code is one's own and
the data is made up. Real data is refused, and what comes out is marked as a rehearsal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from policies.document import Policy
from policies.errors import Invalid
from policies.privacy import Record
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
    privacy: Record | None = None
    if manifest.private is None:
        exit_code, in_time = _run(_program(manifest, workdir), workdir, limits, reader)
    else:
        exit_code, in_time, privacy = _run_privately(manifest, policy, workdir, limits, reader)
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
        privacy=privacy.as_mapping() if privacy else None,
    )


def _cpu(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def _program(manifest: Manifest, workdir: Path) -> list[str]:
    own = workdir / "code" / manifest.entrypoint
    recipe = ROOM / "recipes" / f"{manifest.recipe}.py"
    return [str(ROOM / "inside" / "start.py"), str(own if manifest.entrypoint else recipe)]


def _run_privately(
    manifest: Manifest, policy: Policy, workdir: Path, limits: Limits, reader: ProgressReader
) -> tuple[int | None, bool, Record | None]:
    """Draw the network and train it, as the sandbox does; raises Invalid as it does."""
    from sandbox_runner.private import graph, training

    drawing = [str(ROOM / "inside" / "start.py"), str(ROOM / "private" / "inside" / "describe.py")]
    started = time.monotonic()
    (workdir / "graph").mkdir()
    ended = _run(drawing, workdir, limits, reader, output="graph")
    if ended != (0, True):
        return *ended, None
    drawn = graph.read(workdir / "graph", policy.release)
    left = dataclasses.replace(
        limits, wall_seconds=max(1.0, limits.wall_seconds - (time.monotonic() - started))
    )
    asked = training.request_for(
        manifest,
        policy,
        graph=str(workdir / "graph"),
        datasets={slug: str(workdir / "data" / slug) for slug in manifest.datasets},
    )
    ended = _run(["-m", "sandbox_runner.private.trainer"], workdir, left, reader, stdin=asked)
    if ended != (0, True):
        return *ended, None
    return *ended, training.read_account(workdir / "output", manifest, drawn)


def _run(
    program: list[str],
    workdir: Path,
    limits: Limits,
    reader: ProgressReader,
    *,
    output: str = "output",
    stdin: bytes | None = None,
) -> tuple[int | None, bool]:
    """Run a program of Python; return its exit code, and whether it ended within its time."""
    code = workdir / "code"
    read, write = os.pipe2(os.O_CLOEXEC)
    # Our own trainer imports our own rooms; what runs beside the submission, the SDK alone.
    packages = ROOM.parent if stdin is not None else ROOM / "sdk"
    environment = {
        **os.environ,
        "PYTHONPATH": str(packages),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": str(max(1, int(limits.cpus))),
        "GLOVEBOX_CODE": str(code),
        "GLOVEBOX_DATA": str(workdir / "data"),
        "GLOVEBOX_OUTPUT": str(workdir / output),
        "GLOVEBOX_PROGRESS_FD": str(write),
    }
    with tempfile.TemporaryFile(dir=workdir) as given:
        given.write(stdin or b"")
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, *program],
            cwd=workdir if stdin is not None else code,
            env=environment,
            stdin=given,
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
