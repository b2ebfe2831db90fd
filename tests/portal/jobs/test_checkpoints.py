"""Checkpoints stay inside, belong to a grant, and are counted."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from policies.errors import CannotRun, Denied, Invalid
from portal import keys, workplace
from portal.audit.models import Event
from portal.jobs import checkpoints, engine, storage, tasks
from portal.jobs.models import Checkpoint, Job, LedgerEntry
from tests.portal.cast import Cast
from tests.portal.jobs.material import submitted

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.sandbox,
]

KEEP = "[checkpoint]\nkeep = true\n"
FIRST = """
import glovebox, os
assert glovebox.checkpoint() is None
glovebox.keep("state/step.txt").write_text("Minsu was at step 7")
os.symlink("/etc/passwd", "/output/checkpoint/link")
glovebox.save_metrics(rows=1, loss=0.5)
"""
SECOND = """
import glovebox
place = glovebox.checkpoint()
print(sorted(path.relative_to(place).as_posix() for path in place.rglob("*")))
print((place / "state/step.txt").read_text())
for name in ("state/step.txt", "new"):
    try:
        (place / name).write_text("changed")
    except OSError as error:
        print(type(error).__name__)
glovebox.save_metrics(rows=1, loss=0.5)
"""


def ended(cast: Cast, grant=None, code: str = FIRST, more: str = KEEP) -> Job:
    """Return a job that has run to its end."""
    job = submitted(cast, grant, code=code, more=more)
    engine.advance(job.pk)
    job.refresh_from_db()
    return job


def tightened(cast: Cast, **policy: object) -> None:
    cast.version.dataset.policy = policy
    cast.version.dataset.save()


def test_a_later_job_goes_on_from_an_earlier_one_s_checkpoint(cast: Cast) -> None:
    first = ended(cast)
    assert (first.state, first.checkpoint_state) == ("finished", "kept"), first.message
    # It is no artefact, and not even its names are told.
    assert [artefact.path for artefact in first.artefacts.all()] == ["metrics.json"]
    assert not any("step" in row["path"] for row in first.rejected)
    second = ended(cast, first.grant, SECOND, f"[checkpoint]\nfrom = {first.pk}\n")
    assert second.state == "finished"
    assert storage.read_log(second).splitlines() == [
        "['state', 'state/step.txt']",
        "Minsu was at step 7",
        "OSError",
        "OSError",
    ]
    assert list(workplace.root().iterdir()) == []
    assert LedgerEntry.objects.filter(job=first, kind="figure").count() == 2


def test_it_lies_encrypted_and_only_workers_open_it(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = ended(cast)
    for path in Path(settings.HOME).rglob("*"):
        assert not path.is_file() or b"Minsu was at" not in path.read_bytes()
    monkeypatch.setenv("GLOVEBOX_ROLE", "web")
    with pytest.raises(CannotRun):
        checkpoints.unpack(job, job.pk, tmp_path / "there")
    monkeypatch.setenv("GLOVEBOX_ROLE", "all")
    row = job.checkpoint
    with pytest.raises(keys.WrongKey):
        keys.unwrap(row.wrapped_key, by=keys.master("view"), context="x")


def test_another_grant_s_checkpoint_does_not_exist_for_it(cast: Cast) -> None:
    job = ended(cast)
    for number in (job.pk, job.pk + 1000):
        with pytest.raises(Invalid) as caught:
            submitted(cast, cast.granted(), code=SECOND, more=f"[checkpoint]\nfrom = {number}\n")
        assert (caught.value.field, caught.value.code) == ("checkpoint.from", "checkpoint.missing")


def test_a_job_whose_time_is_over_keeps_its_checkpoint_too(cast: Cast) -> None:
    code = FIRST + "\nimport time; time.sleep(50)\n"
    job = submitted(cast, code=code, more=KEEP)
    manifest = job.submission.manifest
    manifest["resources"]["time"] = "2s"
    type(job.submission).objects.filter(pk=job.submission_id).update(manifest=manifest)
    engine.advance(job.pk)
    job.refresh_from_db()
    assert (job.state, job.reason, job.checkpoint_state) == ("stopped", "timeout", "kept")


@pytest.mark.parametrize(
    ("limits", "state"),
    [({"bytes": 10}, "large"), ({"grant_bytes": 100}, "full")],
)
def test_what_does_not_fit_is_not_kept(cast: Cast, limits: dict[str, int], state: str) -> None:
    tightened(cast, submission={"checkpoint": limits})
    job = ended(cast)
    assert (job.state, job.checkpoint_state) == ("finished", state)
    assert not Checkpoint.objects.exists()


def test_the_grant_s_room_is_counted_over_its_jobs(cast: Cast) -> None:
    first = ended(cast)
    tightened(cast, submission={"checkpoint": {"grant_bytes": first.checkpoint.bytes + 1}})
    second = ended(cast, first.grant, FIRST + "# second\n")
    assert second.checkpoint_state == "full"
    checkpoints.remove_by(by=cast.analyst, job=first)
    third = ended(cast, first.grant, FIRST + "# third\n")
    first.refresh_from_db()
    assert (first.checkpoint_state, third.checkpoint_state) == ("removed", "kept")


def test_a_policy_may_keep_none_at_all(cast: Cast) -> None:
    tightened(cast, submission={"checkpoint": {"bytes": 0}})
    with pytest.raises(Invalid) as caught:
        submitted(cast, code=FIRST, more=KEEP)
    assert caught.value.field == "checkpoint"


def test_without_budget_it_is_neither_kept_nor_told(cast: Cast) -> None:
    tightened(cast, ledger={"job_bits": 1})
    job = ended(cast)
    assert (job.state, job.checkpoint_state) == ("finished", "")
    assert not Checkpoint.objects.exists()


@pytest.mark.parametrize("why", ["age", "expired", "revoked"])
def test_it_goes_with_its_grant_or_with_time(cast: Cast, why: str) -> None:
    job = ended(cast)
    name = job.checkpoint.object_name
    objects = [path for path in Path(settings.HOME).rglob("*") if path.name == name]
    assert objects
    tasks.sweep()
    assert Checkpoint.objects.exists()
    if why == "age":
        Checkpoint.objects.update(created_at=timezone.now() - timedelta(days=31))
    else:
        type(job.grant).objects.filter(pk=job.grant_id).update(state=why)
    tasks.sweep()
    assert not Checkpoint.objects.exists()
    assert not objects[0].exists()
    assert Event.objects.filter(action="checkpoint.remove").count() == 1


def test_only_who_works_under_the_grant_removes_it(cast: Cast) -> None:
    job = ended(cast)
    for person in (cast.stranger, cast.steward, cast.administrator, cast.reviewers[0]):
        with pytest.raises(Denied):
            checkpoints.remove_by(by=person, job=job)
    assert Checkpoint.objects.exists()


def test_a_job_whose_checkpoint_is_gone_meanwhile_is_refused(cast: Cast) -> None:
    first = ended(cast)
    second = submitted(cast, first.grant, code=SECOND, more=f"[checkpoint]\nfrom = {first.pk}\n")
    checkpoints.remove_by(by=cast.applicant, job=first)
    engine.advance(second.pk)
    second.refresh_from_db()
    assert (second.state, second.reason, second.field) == (
        "refused",
        "manifest",
        "checkpoint.from",
    )
