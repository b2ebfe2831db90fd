"""Run programs of the ``deid`` room inside a sandbox: strangers' files meet no key and no network.

The originals are mounted read-only. Of keys the program gets this dataset's pseudonym key only,
on its standard input.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deid
import policies
from deid import output
from policies.errors import Conflict, GloveboxError, UserError, _
from portal import workplace
from portal.blobs import DiskFull
from portal.tasking import TryAgain
from sandbox_runner.backends import choose
from sandbox_runner.spec import GiB, Limits, Mount, SandboxSpec

words = logging.getLogger("glovebox.ingest")

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
# Below this a disk is called full: what it could not write may have been as small as a line.
ROOM = 1 << 20  # bytes


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


def run(job: Job, *, log: Path, cancel: threading.Event | None = None) -> None:
    """Run a program sealed, to its end.

    ``job.writes`` is shown at /made and is the only place it may write; ``log`` lies outside it.
    Raises CannotRun where the isolation cannot be had, DiskFull or another UserError for what the
    steward can mend, and ProgramFailed otherwise. Exit code 1 is no error: ``deid`` ends so when
    single files failed; whether it came to its end says :func:`summary`. Raises TryAgain while
    an earlier run of the name is being stopped.
    """
    backend = choose("auto", job.isolation)
    packages = [
        Mount(Path(package.__file__).parent, f"{APP}/{package.__name__}")
        for package in (deid, policies)
        if package.__file__
    ]
    spec = SandboxSpec(
        id=f"{job.name}-{workplace.mark()}",
        argv=("python", "-m", job.module, *job.arguments),
        limits=LIMITS,
        mounts=(
            *packages,
            *(Mount(path, target) for target, path in job.reads.items()),
            Mount(job.writes, "/made", writable=True),
        ),
        env={"PYTHONPATH": APP, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=job.stdin,
        log=log,
    )
    try:
        result = backend.run(spec, cancel)
    except Conflict:
        # A worker that has lost its lease is still being stopped.
        raise TryAgain("a program of this name is running still") from None
    if result.state == "finished" or (result.reason == "exit" and result.exit_code == 1):
        if result.exit_code and _is_full(job.writes):
            raise _disk_full()
        return
    if result.reason == "output-limit" or _is_full(job.writes) or _says_full(log):
        raise _disk_full()
    if result.reason in ("memory", "processes", "timeout"):
        raise UserError(
            _("De-identification was stopped at its limit: {reason}."),
            code="deid.limit",
            reason=result.reason,
        )
    words.error(
        "%s ended: %s, %s, exit code %s", job.name, result.state, result.reason, result.exit_code
    )
    raise ProgramFailed(f"{job.module} ended with {result.state} {result.reason}")


def summary(log: Path) -> Mapping[str, Any]:
    """Return the JSON document that a finished ``deid`` prints last. Raises ProgramFailed.

    An interpreter that dies of an error of its own ends with exit code 1 as well, so only this
    document says that the report is complete.
    """
    for line in reversed(_lines(log)):
        if line.startswith("{"):
            try:
                document = json.loads(line)
            except ValueError:
                break
            if isinstance(document.get("inputs"), int):
                found: Mapping[str, Any] = document
                return found
            break
    words.error("a program ended without its summary")
    raise ProgramFailed("the program ended without its summary")


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []


def _says_full(log: Path) -> bool:
    return any(line.endswith(str(output.DiskFull())) for line in _lines(log)[-5:])


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < ROOM


def _disk_full() -> DiskFull:
    return DiskFull(
        _("The disk of the {disk} is full. Make room and try again; nothing was published."),
        code="disk.full",
        disk="work folder",
    )
