"""The plain copy of a version: shared, kept warm where that is allowed, never left, never larger
than its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from portal import leases, workplace
from portal.access.models import Grant
from portal.catalog import packing
from portal.catalog.contents import Contents
from portal.catalog.models import DatasetVersion, Pack, StoredFile, Subject, SubjectKey
from portal.celery import app
from portal.jobs import admission, engine, queries, staging, steps, tasks
from portal.jobs.models import Job, StagedCopy, StagedUse
from portal.object_store import path_of
from portal.tasking import TryAgain
from sandbox_runner import plain_place
from sandbox_runner.stage import shards_of
from tests.portal.cast import Cast
from tests.portal.jobs.material import fill, submitted

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sandbox]


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOVEBOX_WARM", "10m")


def in_staging(cast: Cast, grant: Grant | None = None) -> Job:
    # Another program each time: the same one handed in twice is one job.
    job = submitted(cast, grant, code=f"pass  # {Job.objects.count()}")
    Job.objects.filter(pk=job.pk).update(state="staging", node=admission.this_node())
    return Job.objects.get(pk=job.pk)


def used(job: Job, *, sealed: bool = False) -> Path:
    with leases.hold(Job, job.pk) as lease:
        assert lease is not None
        return staging.use(job, admission.this_node(), sealed=sealed, lease=lease)


def stage_step(job: Job) -> Job:
    with leases.hold(Job, job.pk) as lease:
        assert lease is not None
        steps.stage(job, lease, admission.this_node())
    return Job.objects.get(pk=job.pk)


def test_two_jobs_share_one_copy_and_the_last_removes_it(cast: Cast) -> None:
    first = in_staging(cast)
    second = in_staging(cast, first.grant)

    target = used(first)
    inode = target.stat().st_ino
    assert used(second) == target
    assert target.stat().st_ino == inode, "made once"
    staging.leave(first)
    assert target.is_dir()
    staging.leave(second)

    assert list(workplace.root().iterdir()) == []


def test_a_warm_copy_serves_the_next_job_and_goes_when_its_time_is_over(
    cast: Cast, warm: None
) -> None:
    first = in_staging(cast)
    target = used(first)
    inode = target.stat().st_ino
    staging.leave(first)
    tasks.sweep()
    assert target.is_dir()

    second = in_staging(cast, first.grant)
    assert used(second).stat().st_ino == inode
    StagedCopy.objects.update(idle_since=timezone.now() - timedelta(hours=1))
    tasks.sweep()
    assert target.is_dir(), "it is used"
    StagedCopy.objects.update(idle_since=None)
    staging.leave(second)
    assert target.is_dir()
    StagedCopy.objects.update(idle_since=timezone.now() - timedelta(minutes=10, seconds=1))
    tasks.sweep()

    assert list(workplace.root().iterdir()) == []


def test_a_dataset_may_shorten_how_long_it_stays_warm(cast: Cast, warm: None) -> None:
    job = in_staging(cast)
    dataset = job.version.dataset
    dataset.policy = {"staging": {"warm": "0s"}}
    dataset.save()
    used(job)

    staging.leave(job)

    assert list(workplace.root().iterdir()) == []


def test_what_holds_the_sealed_split_is_never_kept_warm(cast: Cast, warm: None) -> None:
    job = in_staging(cast)
    assert (used(job, sealed=True) / "s004/1.png").is_file()

    staging.leave(job)

    assert list(workplace.root().iterdir()) == []


def test_a_retired_version_is_not_kept_warm(cast: Cast, warm: None) -> None:
    job = in_staging(cast)
    target = used(job)
    staging.leave(job)
    assert target.is_dir()
    DatasetVersion.objects.update(state="retired")

    tasks.sweep()

    assert list(workplace.root().iterdir()) == []


def owned_by_subject(version: DatasetVersion) -> SubjectKey:
    """Let one subject own a file; only whether the key is there matters here."""
    subject = Subject.objects.create(dataset=version.dataset, pseudonym="s000")
    StoredFile.objects.filter(version=version, path="s000/1.png").update(subject=subject)
    return SubjectKey.objects.create(version=version, subject=subject, wrapped_key=b"x")


def test_a_warm_copy_is_not_used_after_a_subject_has_withdrawn(cast: Cast, warm: None) -> None:
    job = in_staging(cast)
    target = used(job)
    key = owned_by_subject(job.version)
    staging.leave(job)
    assert target.is_dir()
    key.delete()

    second = stage_step(in_staging(cast, job.grant))

    assert (second.state, second.reason) == ("failed", "data")
    engine.clean(second)
    tasks.sweep()
    assert list(workplace.root().iterdir()) == []


def test_small_files_are_packed_as_the_dataset_asks(cast: Cast) -> None:
    job = in_staging(cast)
    dataset = job.version.dataset
    dataset.policy = {"staging": {"pack_files": 5, "paths": False}}
    dataset.save()

    target = used(Job.objects.get(pk=job.pk))

    assert shards_of(target) is not None
    assert {path.name for path in target.iterdir()} == {"dataset.toml", "labels.csv"}
    staging.leave(job)
    assert list(workplace.root().iterdir()) == []


@pytest.fixture
def small_work(small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    place = small_disk(1 << 20)
    monkeypatch.setenv("GLOVEBOX_WORK", str(place))
    return place


def fill_with(cast: Cast, size: int) -> None:
    labels = b"file,subject,label,split\n"
    content = {"labels.csv": (labels, ""), "a.bin": (os.urandom(size), "train")}
    fill(cast.version, content)


def test_a_job_waits_with_its_reason_until_there_is_room(cast: Cast, small_work: Path) -> None:
    fill_with(cast, 600 << 10)
    job = in_staging(cast)
    (small_work / "others").write_bytes(b"x" * (700 << 10))

    with pytest.raises(TryAgain):
        engine.advance(job.pk)

    job.refresh_from_db()
    code, facts = queries.waiting_of(job)
    assert (job.state, code) == ("staging", "room")
    assert facts["wanted"] > 600 << 10 > facts["free"]
    assert [path.name for path in small_work.iterdir()] == ["others"], "nothing of it is left"

    (small_work / "others").unlink()
    assert stage_step(job).state == "running"
    staging.leave(job)


def test_a_version_larger_than_the_place_fails_with_the_figures(
    cast: Cast, small_work: Path
) -> None:
    fill_with(cast, 3 << 20)

    job = stage_step(in_staging(cast))

    assert (job.state, job.reason) == ("failed", "data")
    assert "4 MiB" in job.message
    assert list(small_work.iterdir()) == []


def test_a_warm_copy_gives_its_room_to_the_next_version(
    cast: Cast, small_work: Path, warm: None
) -> None:
    fill_with(cast, 600 << 10)
    job = in_staging(cast)
    first = used(job)
    staging.leave(job)
    assert first.is_dir()
    other = DatasetVersion.objects.create(dataset=cast.version.dataset, number=2, state="published")
    cast.version = other
    fill_with(cast, 700 << 10)
    Job.objects.filter(pk=job.pk).update(version=other)

    second = used(Job.objects.get(pk=job.pk))

    assert second.is_dir()
    assert not first.exists()
    staging.leave(job)
    StagedCopy.objects.update(idle_since=None)
    tasks.sweep()
    assert list(small_work.iterdir()) == []


def test_a_missing_object_fails_the_job_and_leaves_nothing(cast: Cast) -> None:
    job = in_staging(cast)
    row = StoredFile.objects.get(version=cast.version, path="s000/1.png")
    path_of(row.object_name).unlink()

    job = stage_step(job)

    assert (job.state, job.reason) == ("failed", "data")
    engine.clean(job)
    assert list(workplace.root().iterdir()) == []
    assert not StagedUse.objects.exists()


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that packs small files, and removes the objects that packs replace."""
    monkeypatch.setattr(packing, "FEW", 2)
    monkeypatch.setattr(packing, "PACK_FILES", 10)
    monkeypatch.setattr(packing, "KEPT", timedelta(0))

    def pack() -> None:
        app.loader.import_default_modules()
        while packing.wanted():
            for version in packing.wanted():
                app.tasks["catalog.pack"](version)

    return pack


def tree(target: Path) -> dict[str, bytes]:
    files = (path for path in target.rglob("*") if path.is_file())
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("shards", [False, True])
def test_a_packed_version_is_staged_as_it_was(
    cast: Cast, packed: Callable[[], None], sealed: bool, shards: bool
) -> None:
    job = in_staging(cast)
    if shards:
        dataset = job.version.dataset
        dataset.policy = {"staging": {"pack_files": 5}}
        dataset.save()
    before = tree(used(job, sealed=sealed))
    staging.leave(job)
    packed()
    assert not StoredFile.objects.filter(pack=None).exists()

    target = used(Job.objects.get(pk=job.pk), sealed=sealed)

    assert tree(target) == before
    assert (shards_of(target) is not None) == (shards and not sealed)
    staging.leave(job)


def test_a_job_that_stages_while_the_version_is_packed_finds_the_packs(
    cast: Cast, packed: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = in_staging(cast)
    for_all, times = Contents.for_all, []

    def just_before(self: Contents) -> Contents:
        found = for_all(self)
        times.append(1)
        if len(times) == 1:
            packed()
        return found

    monkeypatch.setattr(Contents, "for_all", just_before)

    target = used(job)

    assert len(times) > 1
    assert (target / "s000/1.png").is_file()
    staging.leave(job)


@pytest.mark.parametrize("damage", ["flipped", "cut", "swapped", "missing"])
def test_a_damaged_pack_fails_the_job_and_leaves_nothing(
    cast: Cast, packed: Callable[[], None], damage: str
) -> None:
    job = in_staging(cast)
    packed()
    first, other = (path_of(pack.object_name) for pack in Pack.objects.order_by("pk")[:2])
    sealed = bytearray(first.read_bytes())
    if damage == "flipped":
        sealed[len(sealed) // 2] ^= 1
        first.write_bytes(sealed)
    elif damage == "cut":
        first.write_bytes(sealed[:-1])
    elif damage == "swapped":
        other.rename(first)
    else:
        first.unlink()

    job = stage_step(job)

    assert (job.state, job.reason) == ("failed", "data")
    engine.clean(job)
    assert list(workplace.root().iterdir()) == []


def test_nothing_is_staged_where_plain_data_could_reach_a_disk(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GLOVEBOX_PLAIN_PLACE")
    monkeypatch.setenv("GLOVEBOX_WORK", str(tmp_path / "work"))
    if not plain_place.weakness(tmp_path):
        pytest.skip("temporary files lie in memory here, or on an encrypted disk")

    job = stage_step(in_staging(cast))

    assert (job.state, job.reason) == ("refused", "isolation")
    assert "GLOVEBOX_WORK" in job.message
    assert list((tmp_path / "work").iterdir()) == []
