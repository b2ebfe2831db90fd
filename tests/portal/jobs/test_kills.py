"""kill -9 of the worker at random moments of a job: one right outcome each, nothing left over.

``GLOVEBOX_SEED`` draws other moments; what was drawn is printed with the summary (``pytest -s``).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from portal import workplace
from portal.jobs import engine, staging, steps, tasks
from portal.jobs.models import Inspection, Job, JobStep, LedgerEntry, StagedCopy, StagedUse
from portal.jobs.transitions import LIVE
from portal.leases import LeaseLost
from portal.tasking import TryAgain
from tests.portal.cast import Cast
from tests.portal.jobs.material import submitted
from tests.trail import Trail

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.sandbox,
    pytest.mark.slow,
]

SEED = int(os.environ.get("GLOVEBOX_SEED", "4"))
MOMENTS = 50
# What the sealed split may be asked under one grant is bounded.
A_GRANT = 20
PROGRAM = """
import time, glovebox
glovebox.log(1, loss=0.5)
time.sleep(0.4)
glovebox.save_metrics(rows=1, loss=0.5)
# {number}
"""
WORKER = """
import sys
import django
django.setup()
from portal.jobs import engine, staging
engine.LEASE_SECONDS = staging.LEASE_SECONDS = 2
print("ready", flush=True)
engine.advance(int(sys.argv[1]))
"""


def worker(job: Job) -> subprocess.Popen[bytes]:
    """Start a worker of its own on this job and return it when it is about to begin."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "GLOVEBOX_HOME": str(settings.HOME),
        "GLOVEBOX_KEYS": str(settings.KEYS),
        "GLOVEBOX_ROLE": "worker",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    command = [sys.executable, "-c", WORKER, str(job.pk)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


def drive(job: Job) -> None:
    """Do what beat and the other workers do until the job has ended."""
    until = time.monotonic() + 120
    while Job.objects.filter(pk=job.pk, state__in=LIVE).exists():
        assert time.monotonic() < until, Job.objects.filter(pk=job.pk).values().get()
        with contextlib.suppress(TryAgain, LeaseLost):
            engine.advance(job.pk)
        time.sleep(0.05)
    while StagedCopy.objects.filter(lease_until__gt=timezone.now()).exists():
        time.sleep(0.05)
    tasks.sweep()


def test_a_worker_killed_at_random_moments(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "LEASE_SECONDS", 2)
    monkeypatch.setattr(staging, "LEASE_SECONDS", 2)
    drawn = random.Random(SEED)
    grant = cast.granted()
    first = submitted(cast, grant, code=PROGRAM.format(number="first"))
    process = worker(first)
    began = time.monotonic()
    assert process.wait() == 0
    whole = time.monotonic() - began
    hit: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    left: Counter[str] = Counter()
    slowest = 0.0
    for number in range(1, MOMENTS + 1):
        if number % A_GRANT == 0:
            grant = cast.granted()
        job = submitted(cast, grant, code=PROGRAM.format(number=number))
        process = worker(job)
        trail = Trail(process.pid)
        try:
            process.wait(drawn.uniform(0, whole))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        trail.end()
        hit[Job.objects.values_list("state", flat=True).get(pk=job.pk)] += 1
        slowest = max(slowest, trail.wait(10))
        drive(job)
        job.refresh_from_db()
        outcomes[f"{job.state} {job.reason}"] += 1
        assert Inspection.objects.filter(job=job).count() == 1
        assert [artefact.path for artefact in job.artefacts.all()] == ["metrics.json"]
        assert LedgerEntry.objects.filter(job=job, kind="sealed").count() == 1
        assert all(JobStep.objects.filter(job=job).values_list("result", flat=True))
        left.update(trail.left(steps.sandbox_name(job)))
        left["plaintext"] += len(list(workplace.root().iterdir()))
        left["uses"] += StagedUse.objects.count()
    with capsys.disabled():
        print(
            f"\nportal worker: {MOMENTS} kills in {whole:.1f} s of a job, seed {SEED}; "
            f"hit {dict(hit)}; outcomes {dict(outcomes)}; left {dict(left)}; "
            f"the last process was gone after at most {slowest:.2f} s"
        )
    assert outcomes == {"finished exit": MOMENTS}
    assert slowest < 5
    assert not +left
