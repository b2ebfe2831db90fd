"""Jobs through the real sandbox, driven as a worker drives them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from django.conf import settings

from policies.document import inspected_under
from portal import workplace
from portal.audit.models import Event
from portal.catalog.models import StoredFile, Subject
from portal.catalog.queries import policy_of
from portal.jobs import actions, engine, queries, storage
from portal.jobs.models import Job, JobStep, LedgerEntry, StagedCopy, StagedUse
from tests.portal.cast import Cast
from tests.portal.jobs.material import files, fill, submitted, training

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.sandbox,
]


def leftovers() -> list[str]:
    """Return the names of what lies in plaintext on this machine."""
    return sorted(path.name for path in workplace.root().iterdir())


def test_a_small_job_from_upload_to_inspection(cast: Cast) -> None:
    job = submitted(cast)
    engine.advance(job.pk)
    job.refresh_from_db()
    assert (job.state, job.reason) == ("finished", "exit"), job.message
    steps = list(JobStep.objects.filter(job=job).values_list("state", "result"))
    assert steps == [
        ("submitted", "checked"),
        ("checked", "queued"),
        ("staging", "running"),
        ("running", "collecting"),
        ("collecting", "inspecting"),
        ("inspecting", "finished"),
    ]
    assert job.backend in ("bubblewrap", "gvisor")
    assert job.backend_version
    # Sealed rows were never there.
    assert storage.read_log(job).startswith("read 24 rows")
    assert "sealed" not in storage.read_log(job)
    assert [artefact.path for artefact in job.artefacts.all()] == ["metrics.json"]
    assert job.inspection.verdict == "pass"
    assert job.inspection.metrics == {"rows": 24.0, "loss": 0.25}
    assert job.submission.advice == []
    # Eleven steps each, charged together.
    assert set(job.utilisation) == {"cpu", "memory", "data_wait"}
    assert all(share in range(0, 101, 10) for share in job.utilisation.values())
    figures = LedgerEntry.objects.get(job=job, kind="figure")
    assert figures.bits == 11
    [tick] = queries.curves(job)
    assert (tick.step, tick.values) == (1, {"loss": 0.5})
    assert LedgerEntry.objects.filter(job=job, kind="tick", bits=tick.bits).count() == 1
    assert LedgerEntry.objects.filter(job=job, kind="sealed").count() == 1
    assert leftovers() == []
    assert not StagedUse.objects.exists()
    moves = Event.objects.filter(about_kind="jobs.job").values_list("action", flat=True)
    words = [action.removeprefix("job.") for action in moves]
    assert words == ["check", "queue", "stage", "run", "collect", "inspect", "finish"]
    # Once it has ended, another call changes nothing.
    engine.advance(job.pk)
    assert JobStep.objects.filter(job=job).count() == len(steps)
    assert not StagedCopy.objects.filter(ready=True).exists()


@pytest.mark.slow
def test_weights_are_measured_on_the_sealed_split(cast: Cast) -> None:
    """One real training: the trusted evaluation asks the network about pictures it never saw."""
    fill(cast.version, files(subjects=72))
    job = actions.submit(by=cast.applicant, grant=cast.granted(), stream=training())
    engine.advance(job.pk)
    job.refresh_from_db()
    assert job.state == "finished", (job.reason, job.message, storage.read_log(job))
    assert {a.kind for a in job.artefacts.all()} >= {"weights", "metrics"}
    findings = [(f.rule, f.severity) for f in job.inspection.findings.all()]
    assert job.inspection.verdict != "block", findings
    assert job.inspection.official["patient"]["auc"]["value"] == 1
    # By which the releases of one dataset are compared.
    assert len(job.inspection.sketch["architecture"]) == 64
    assert any(job.inspection.sketch["sums"])
    assert job.inspection.policy == inspected_under(policy_of(job.version.dataset))
    assert leftovers() == []


@pytest.mark.parametrize("what", ["changed", "withdrawn"])
def test_data_that_are_not_what_they_were_stop_the_job(cast: Cast, what: str) -> None:
    job = submitted(cast)
    rows = StoredFile.objects.filter(version=cast.version, path="s000/1.png")
    if what == "changed":
        other = StoredFile.objects.get(version=cast.version, path="s001/1.png")
        # Another true object of the same version under this file's name.
        rows.update(object_name=other.object_name)
    else:
        subject = Subject.objects.create(dataset=cast.version.dataset, pseudonym="gone")
        rows.update(subject=subject)
    engine.advance(job.pk)
    job.refresh_from_db()
    assert (job.state, job.reason) == ("failed", "data")
    assert leftovers() == []


def test_without_budget_no_share_is_told(cast: Cast) -> None:
    dataset = cast.version.dataset
    dataset.policy = {"ledger": {"job_bits": 10}}
    dataset.save()
    job = submitted(cast)
    engine.advance(job.pk)
    job.refresh_from_db()
    assert (job.state, job.utilisation) == ("finished", {})
    assert not LedgerEntry.objects.filter(job=job, kind="figure").exists()


LOUD = """
import os, time, glovebox
os.write(1, b"Kim Minsu 850101 " * 200_000)
glovebox.log(1, loss=0.5)
time.sleep(1.5)
raise SystemExit(37)
"""


def test_a_log_never_lies_on_a_disk_in_plain_and_ends(cast: Cast, in_thread) -> None:
    """Looked for in every file of the portal and of its work, while the job runs and after."""
    dataset = cast.version.dataset
    dataset.policy = {"isolation": {"log_bytes": 100_000}}
    dataset.save()
    job = submitted(cast, code=LOUD)
    worker = in_thread(job.pk)
    searched = 0
    while worker.is_alive():
        searched += _search(b"Minsu", except_for=job)
        worker.join(0.1)
    searched += _search(b"Minsu", except_for=job)
    assert searched > 100
    job.refresh_from_db()
    log = storage.read_log(job)
    assert log.startswith("Kim Minsu")
    assert log.endswith("[cut after 100000 bytes]\n") and len(log) < 100_100
    # Of the number that the program chose only this is kept.
    assert (job.state, job.reason, job.exit_code) == ("failed", "exit", 1)


def _search(word: bytes, *, except_for: Job) -> int:
    """Assert that no file holds a word, but for the job's own code; return how many were read."""
    read = 0
    for top in (Path(settings.HOME), workplace.root()):
        for path in top.rglob("*"):
            if path.is_file() and path.name != "train.py":
                with contextlib.suppress(FileNotFoundError):
                    assert word not in path.read_bytes(), path
                    read += 1
    return read


def test_an_exception_tells_type_file_and_line_only(cast: Cast) -> None:
    job = submitted(cast, code="import glovebox\n\nraise ValueError('Kim Minsu 850101')\n")
    engine.advance(job.pk)
    job.refresh_from_db()
    assert (job.state, job.reason) == ("failed", "exit")
    assert (job.fault_type, job.fault_file, job.fault_line) == ("ValueError", "train.py", 3)
    assert LedgerEntry.objects.filter(job=job, kind="fault").count() == 1
    shown = str(Job.objects.filter(pk=job.pk).values().get())
    assert "Minsu" not in shown
    assert "Minsu" in storage.read_log(job)
    assert leftovers() == []
