"""A running job ends when it is cancelled, when its grant lapses, when its worker is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from portal import workplace
from portal.access.models import Grant
from portal.jobs import actions, engine, queries, steps, storage, tasks, workdir
from portal.jobs.line import OCCUPYING
from portal.jobs.models import Inspection, Job, JobStep, StagedCopy, StagedUse, Tick
from sandbox_runner.place import outer_uid
from tests.portal.cast import Cast
from tests.portal.jobs.material import SLEEPS, submitted

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.sandbox,
]

SLOW = """
import time, glovebox
print("began", flush=True)
glovebox.log(1, loss=0.5)
time.sleep(2)
glovebox.save_metrics(rows=1, loss=0.5)
"""


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.01)


def state_of(job: Job) -> str:
    return Job.objects.values_list("state", flat=True).get(pk=job.pk)


def sandboxes(job: Job) -> int:
    """Count the processes of a job's sandbox by its user, or by its name among their words."""
    count = 0
    name = steps.sandbox_name(job)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                # Somebody who waits for their burial has no words any more.
                ours = entry.stat().st_uid == outer_uid(name) and words != [b""]
                count += ours or name.encode() in words
    return count


def began(job: Job) -> bool:
    """Whether the program of a running job has started: it has reported a number."""
    return Tick.objects.filter(job=job, attempt__gt=0).exists()


@pytest.mark.parametrize("how", ["cancelled", "lapsed"])
def test_a_running_job_is_stopped(cast: Cast, in_thread, how: str) -> None:
    job = submitted(cast, code=SLEEPS)
    worker = in_thread(job.pk)
    wait_for(lambda: began(job), "the program to start")
    if how == "cancelled":
        actions.cancel(by=cast.applicant, job=Job.objects.get(pk=job.pk))
        # Until the sandbox is gone the page says so, and not that it has stopped.
        job.refresh_from_db()
        assert (job.state, queries.waiting_of(job)[0]) == ("running", "stopping")
    else:
        past = timezone.now() - timedelta(seconds=1)
        Grant.objects.update(starts_at=past - timedelta(days=1), ends_at=past)
    worker.join(20)
    assert not worker.is_alive()
    job.refresh_from_db()
    assert (job.state, job.reason) == ("stopped", how)
    assert sandboxes(job) == 0
    assert list(workplace.root().iterdir()) == []
    assert not job.artefacts.exists()


def test_a_lapsed_grant_stops_jobs_that_nobody_holds(cast: Cast) -> None:
    job = submitted(cast)
    Grant.objects.update(state="revoked")
    assert tasks.lapsed() == [job]
    tasks.stop_lapsed()
    job.refresh_from_db()
    assert (job.state, job.reason) == ("stopped", "lapsed")
    assert tasks.lapsed() == []


def test_two_workers_on_one_job_run_it_once(cast: Cast, in_thread) -> None:
    job = submitted(cast, code=SLOW)
    workers = [in_thread(job.pk) for _ in range(3)]
    for worker in workers:
        worker.join(60)
    job.refresh_from_db()
    assert (job.state, job.runs) == ("finished", 1)
    assert JobStep.objects.filter(job=job, state="running").count() == 1


ONE_OF_MANY = """
import time, glovebox
time.sleep(2)
glovebox.save_metrics(rows=1, loss=0.5)
# {number}
"""


def test_jobs_run_side_by_side_and_never_beyond_the_machine(
    cast: Cast, in_thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four jobs of one core each on two cores, by as many workers as there are jobs."""
    monkeypatch.setenv("GLOVEBOX_NODE_CPUS", "2")
    monkeypatch.setenv("GLOVEBOX_NODE_MEMORY", "8Gi")
    grant = cast.granted()
    jobs = [submitted(cast, grant, code=ONE_OF_MANY.format(number=n)) for n in range(4)]
    most, reasons = 0, set()
    until = time.monotonic() + 120
    workers = {job.pk: in_thread(job.pk) for job in jobs}
    while Job.objects.exclude(state__in=("finished", "failed", "stopped", "refused")).exists():
        assert time.monotonic() < until
        rows = list(Job.objects.values_list("state", "waiting"))
        most = max(most, sum(state in OCCUPYING for state, _waiting in rows))
        assert most <= 2
        reasons |= {waiting for state, waiting in rows if state == "queued"}
        for pk, worker in workers.items():
            if not worker.is_alive():
                # As beat does.
                workers[pk] = in_thread(pk)
        time.sleep(0.1)
    assert most == 2
    assert "cpus" in reasons
    assert set(Job.objects.values_list("state", "reason")) == {("finished", "exit")}


def test_two_may_remove_the_folder_of_a_job_at_once(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who ends a job removes it, and so does a sweep that comes in between."""
    job = submitted(cast, cast.granted())
    (workplace.folder(f"job-{job.pk}-run-1") / "raw").mkdir()
    walk = os.walk

    def walk_as_it_goes(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in walk(top):
            workplace.remove(f"job-{job.pk}-run-1")
            yield found

    monkeypatch.setattr(os, "walk", walk_as_it_goes)

    workdir.remove(job)

    assert not list(workplace.root().glob(f"job-{job.pk}-*"))


def test_what_a_dead_worker_left_of_an_ended_job_is_swept(cast: Cast) -> None:
    ended, live = submitted(cast, code=SLOW), submitted(cast, code=SLEEPS)
    Job.objects.filter(pk=ended.pk).update(state="stopped", reason="cancelled")
    for job in (ended, live):
        folder = workplace.folder(f"job-{job.pk}-run-1")
        (folder / "data").mkdir()
        (folder / "data" / "plain").write_text("a picture")
        (folder / "data").chmod(0o500)
    tasks.sweep()
    assert [path.name for path in workplace.root().iterdir()] == [f"job-{live.pk}-run-1"]
    Job.objects.filter(pk=live.pk).update(state="stopped", reason="cancelled")
    tasks.sweep()
    assert not list(workplace.root().iterdir())


WORKER = """
import sys
import django
django.setup()
from portal.jobs import engine, staging
engine.LEASE_SECONDS = staging.LEASE_SECONDS = 2
engine.advance(int(sys.argv[1]))
"""


def worker_process(job: Job) -> subprocess.Popen[bytes]:
    """Start a worker of its own on the same database, objects and keys."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "GLOVEBOX_HOME": str(settings.HOME),
        "GLOVEBOX_KEYS": str(settings.KEYS),
        "GLOVEBOX_ROLE": "worker",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(job.pk)], env=environment, stderr=subprocess.DEVNULL
    )


def test_a_worker_killed_at_any_step_is_followed_by_one_that_finishes(cast: Cast) -> None:
    """kill -9 while staging, training, collecting and inspecting, one after the other."""
    job = submitted(cast, code=SLOW)
    for state in ("staging", "running", "collecting", "inspecting"):
        worker = worker_process(job)
        try:
            wait_for(
                lambda state=state, worker=worker: (
                    (state_of(job) == state and (state != "running" or began(job)))
                    or worker.poll() is not None
                ),
                state,
            )
        finally:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        # Nobody works on it now, and nobody may before the lease is over.
        wait_for(lambda: sandboxes(job) == 0, "the sandbox to follow its worker")
        job.refresh_from_db()
        if job.lease_until is not None:
            steps = JobStep.objects.filter(job=job).count()
            if job.lease_until > timezone.now() + timedelta(seconds=0.5):
                engine.advance(job.pk)
                assert JobStep.objects.filter(job=job).count() == steps
            wait_for(lambda: job.lease_until <= timezone.now(), "the lease to end")
    engine.advance(job.pk)
    job.refresh_from_db()
    assert (job.state, job.reason) == ("finished", "exit"), (job.message, job.waiting)
    assert Inspection.objects.filter(job=job).count() == 1
    assert [artefact.path for artefact in job.artefacts.all()] == ["metrics.json"]
    results = list(JobStep.objects.filter(job=job).values_list("state", "result"))
    assert ("running", "lost") in results
    assert all(result for _state, result in results)
    assert storage.read_log(job) == "began\n"
    assert not StagedUse.objects.exists()
    # A copy that a killed worker still held is removed by the sweep once its lease is over.
    copies = StagedCopy.objects.filter(lease_until__gt=timezone.now())
    wait_for(lambda: not copies.filter(lease_until__gt=timezone.now()).exists(), "their leases")
    tasks.sweep()
    assert list(workplace.root().iterdir()) == []
