"""Jobs through the real sandbox, driven as a worker drives them."""

from __future__ import annotations

import pytest

from portal import workplace
from portal.audit.models import Event
from portal.catalog.models import StoredFile, Subject
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
