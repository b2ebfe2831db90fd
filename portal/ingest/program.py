"""Run programs of the ``deid`` room inside a sandbox: strangers' files meet no key and no network.

The originals are mounted read-only. Of keys the program gets this dataset's pseudonym key only,
on its standard input.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import deid
import policies
from policies.errors import GloveboxError, UserError, _
from portal.blobs import DiskFull
from sandbox_runner.backends import choose
from sandbox_runner.spec import GiB, Limits, Mount, SandboxSpec

WORKERS = 2
LIMITS = Limits(
    cpus=WORKERS,
    memory_bytes=6 * GiB,
    processes=128,
    wall_seconds=24 * 3600,
    output_bytes=64 * GiB,
    output_inodes=4_000_000,
    tmp_bytes=1 * GiB,
    shm_bytes=1 * GiB,
)
APP = "/app"


class ProgramFailed(GloveboxError):
    """The program ended in a way that its contract does not know."""


@dataclass(frozen=True)
class Job:
    """One run: module and arguments, what it may read (``source`` by inner path) and write."""

    name: str
    module: str
    arguments: tuple[str, ...]
    reads: Mapping[str, Path]
    writes: Path
    stdin: bytes = b""
    isolation: str = "bubblewrap"


def run(job: Job, *, log: Path, cancel: threading.Event | None = None) -> int:
    """Run a program sealed and return its exit code (0 or 1).

    ``job.writes`` is shown at /work and is the only place it may write. Raises CannotRun where
    the isolation cannot be had, DiskFull or another UserError where the program said so, and
    ProgramFailed otherwise.
    """
    backend = choose("auto", job.isolation)
    packages = [
        Mount(Path(package.__file__).parent, f"{APP}/{package.__name__}")
        for package in (deid, policies)
        if package.__file__
    ]
    spec = SandboxSpec(
        id=job.name,
        argv=("python", "-m", job.module, *job.arguments),
        limits=LIMITS,
        mounts=(
            *packages,
            *(Mount(path, target) for target, path in job.reads.items()),
            Mount(job.writes, "/work", writable=True),
        ),
        env={"PYTHONPATH": APP, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=job.stdin,
        log=log,
    )
    result = backend.run(spec, cancel)
    if result.state == "finished" or (result.reason == "exit" and result.exit_code == 1):
        return result.exit_code or 0
    if result.reason == "output-limit":
        raise DiskFull(
            _("The disk of the {disk} is full. Make room and try again; nothing was published."),
            code="disk.full",
            disk="work folder",
        )
    if result.reason in ("memory", "processes", "timeout"):
        raise UserError(
            _("De-identification was stopped at its limit: {reason}."),
            code="deid.limit",
            reason=result.reason,
        )
    raise ProgramFailed(f"{job.module} ended with {result.state} {result.reason}")
