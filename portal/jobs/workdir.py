"""A job's own folder of plaintext on this machine, one a run."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import sandbox_runner
from policies.document import Policy
from portal import workplace
from portal.jobs import storage
from portal.jobs.models import Artefact, Job
from portal.jobs.transitions import LIVE

SCAN_SECONDS = 60
SCAN_MEMORY = 1 << 30
_SCAN = """
import json, pathlib, sys
from sandbox_runner.static_scan import scan
json.dump([vars(advice) for advice in scan(pathlib.Path(sys.argv[1]))], sys.stdout)
"""
MOST_ADVICE = 1000


def of_run(job: Job) -> Path:
    """Return the folder of a job's present run.

    A run that lost its lease may still write for a moment: it writes into a folder of its own,
    which nobody reads any more.
    """
    return workplace.folder(f"job-{job.pk}-run-{job.runs}")


def temporary_name(job: Job, what: str) -> str:
    """Return the name of a folder for one step of a job."""
    return f"job-{job.pk}-{what}"


def remove(job: Job) -> None:
    """Remove everything plain that this machine holds of a job."""
    for path in workplace.root().glob(f"job-{job.pk}-*"):
        _make_writable(path)
        workplace.remove(path.name)


def sweep() -> int:
    """Remove what lies here of jobs that have ended; return how many folders that were.

    Whoever ends a job removes them; a worker that was killed in between does not.
    """
    removed = 0
    for path in workplace.root().glob("job-*"):
        number = path.name.split("-")[1]
        if number.isdigit() and not Job.objects.filter(pk=number, state__in=LIVE).exists():
            _make_writable(path)
            workplace.remove(path.name)
            removed += 1
    return removed


def _make_writable(path: Path) -> None:
    for top, _folders, _files in os.walk(path):
        # Who ends a job and who sweeps after it may remove its folders at the same time.
        with contextlib.suppress(FileNotFoundError):
            Path(top).chmod(0o700)


def _make_readable(tree: Path) -> None:
    """Let the sandbox's user read a tree, whatever this process's umask is."""
    for top, _folders, files in os.walk(tree):
        Path(top).chmod(0o755)
        for name in files:
            (Path(top) / name).chmod(0o644)


def unpack(job: Job, policy: Policy, folder: Path) -> Path:
    """Unpack a job's submission into ``folder/submission`` and return that."""
    target = folder / "submission"
    storage.unpack(job.submission, target, policy)
    _make_readable(target)
    return target


def write_artefacts(artefacts: list[Artefact], target: Path) -> Path:
    """Decrypt artefacts into ``target`` under their declared names; each chunk is verified.

    Readable by all: the sandbox's user reads them there, and the folder around is private.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for artefact in artefacts:
        path = target / artefact.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with storage.open_artefact(artefact) as stream, path.open("xb") as out:
            shutil.copyfileobj(stream, out, 1 << 20)
    _make_readable(target)
    return target


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (SCAN_MEMORY, SCAN_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SCAN_SECONDS, SCAN_SECONDS))


def scan(code: Path) -> list[dict[str, Any]]:
    """Return the static scan's advice on unpacked code, read in a process of its own.

    The parser meets a stranger's text: a crash or an endless parse must not be the worker's, and
    is advice too.
    """
    package = Path(str(sandbox_runner.__file__)).parent.parent
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-c", _SCAN, str(code)],
            env={"PYTHONPATH": str(package)},
            cwd="/",
            capture_output=True,
            timeout=SCAN_SECONDS,
            preexec_fn=_limit,
            check=True,
        )
        advice: list[dict[str, Any]] = json.loads(ended.stdout)
    except (subprocess.SubprocessError, ValueError):
        message = "could not be read by the static scan"
        return [{"file": "", "line": 0, "rule": "unreadable", "message": message}]
    return advice[:MOST_ADVICE]
