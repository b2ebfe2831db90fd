"""A large batch on several machines: workers that share the database and the objects only."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from deid import pipeline as alone
from deid import profile as profiles
from portal import workplace
from portal.catalog.models import DatasetVersion, StoredFile
from portal.ingest import actions, profile, retention
from portal.ingest.models import Intake, ReportRow, Shard
from portal.ingest.pipeline import pseudonym_key
from tests.portal.ingest.flow import (
    Crew,
    album,
    contents,
    missing_objects,
    object_bytes,
    work,
    zipped,
)

database = pytest.mark.django_db(transaction=True)
SIZE = "4"

# A worker of its own: takes what it gets of the shards and says which it made. It may be told to
# kill itself, as hard as can be, when it is about to store its first.
WORKER = """
import os, signal, sys
import django
django.setup()
from portal.celery import app
from portal.ingest import sharding
app.loader.import_default_modules()
kept = sharding.keep
def keep(shard, *rest):
    if sys.argv[1] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    kept(shard, *rest)
    print(shard.number, flush=True)
sharding.keep = keep
for pk in sys.argv[2:]:
    app.tasks["ingest.shard"](int(pk))
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOVEBOX_SHARD_INPUTS", SIZE)


def machine(folder: Path, shards: list[int], *, dies: bool = False) -> subprocess.Popen[str]:
    """Start a worker with a work folder of its own."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "GLOVEBOX_HOME": str(settings.HOME),
        "GLOVEBOX_KEYS": str(settings.KEYS),
        "GLOVEBOX_ROLE": "worker",
        "GLOVEBOX_WORK": str(folder),
    }
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, "dies" if dies else "lives", *map(str, shards)],
        env=environment, cwd=settings.BASE_DIR, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def begun(people: Crew, members: dict[str, bytes]) -> tuple[DatasetVersion, list[int]]:
    """Upload, start, and let a first worker cut the batch."""
    actions.take_in(by=people.steward, version=people.version, stream=zipped(members))
    actions.start(by=people.steward, version=people.version)
    version = work("ingest.run", people.version)
    assert version.state == "ingesting", version.reason
    assert not list(workplace.root().iterdir())
    return version, list(Shard.objects.values_list("pk", flat=True))


def by_one_worker(version: DatasetVersion, members: dict[str, bytes], folder: Path) -> set[str]:
    """The digests of what one run of the library makes of the same originals."""
    archive = folder / "originals.zip"
    archive.write_bytes(zipped(members).getvalue())
    rules = folder / "rules.toml"
    rules.write_text(profile.document(version.dataset))
    alone.run(
        archive, folder / "alone", key=pseudonym_key(version.dataset),
        profile=profiles.load(str(rules)), workers=1,
    )  # fmt: skip
    files = (path for path in (folder / "alone").rglob("*") if path.is_file())
    return {
        f"{path.relative_to(folder / 'alone')} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in files
    }


def check_as_by_one(version: DatasetVersion, members: dict[str, bytes], folder: Path) -> None:
    version.refresh_from_db()
    assert version.state == "de_identified", version.reason
    sources = ReportRow.objects.filter(intake__version=version).values_list("source", flat=True)
    assert sorted(sources) == sorted(hashlib.sha256(each).hexdigest() for each in members.values())
    made = {
        f"{path} {hashlib.sha256(data).hexdigest()}"
        for path, data in contents(version).items()
        if path != "dataset.toml"
    }
    assert made == by_one_worker(version, members, folder)
    assert not missing_objects(version)
    assert not Shard.objects.exists()
    assert not list(workplace.root().iterdir())


@database
@pytest.mark.sandbox
def test_two_machines_share_a_batch_and_one_that_dies_is_replaced(
    people: Crew, tmp_path: Path
) -> None:
    members = album(subjects=4, each=3)
    before = set(object_bytes())
    version, shards = begun(people, members)
    assert len(shards) == 4  # 12 pictures and a table, 4 inputs a shard
    doomed = machine(tmp_path / "doomed", shards, dies=True)
    assert doomed.wait() == -signal.SIGKILL
    held = Shard.objects.exclude(lease_owner="").get()
    assert (tmp_path / "doomed" / f"shard-{held.pk}").exists()
    # Nobody begins with what may be alive; the others go on, each shard once.
    pair = [machine(tmp_path / name, shards) for name in ("one", "other")]
    made = [process.communicate()[0].split() for process in pair]
    assert sorted(made[0] + made[1]) == sorted(
        str(number) for number in range(1, 5) if number != held.number
    )
    assert work("ingest.run", version).state == "ingesting"
    Shard.objects.filter(pk=held.pk).update(lease_until=timezone.now())
    again = machine(tmp_path / "one", shards)
    assert again.communicate()[0].split() == [str(held.number)]
    for name in ("one", "other"):
        assert not list((tmp_path / name).iterdir())
    work("ingest.run", version)
    check_as_by_one(version, members, tmp_path)
    # What was there only for the shards has gone: no object without a row is left.
    named = {
        *StoredFile.objects.values_list("object_name", flat=True),
        version.manifest_object,
        Intake.objects.get().object_name,
    }
    drafts = {path.name for path in (Path(settings.HOME) / "objects" / "drafts").iterdir()}
    assert set(object_bytes()) - before - drafts == named


@database
@pytest.mark.sandbox
def test_shards_of_other_originals_are_never_taken(people: Crew, tmp_path: Path) -> None:
    version, shards = begun(people, album(subjects=3, each=2))
    machine(tmp_path / "one", shards).communicate()
    old = set(Shard.objects.values_list("object_name", flat=True))
    assert all(old)
    DatasetVersion.objects.filter(pk=version.pk).update(state="draft")
    people.version.refresh_from_db()
    members = album(subjects=2, each=4)
    members["person 1/extra.png"] = members.pop("person 1/holiday 1.png")
    version, shards = begun(people, members)
    assert not old & set(object_bytes())
    machine(tmp_path / "one", shards).communicate()
    work("ingest.run", version)
    check_as_by_one(version, members, tmp_path)


@database
def test_plaintext_of_a_dead_shards_worker_is_swept_when_nobody_wants_it(people: Crew) -> None:
    version, shards = begun(people, album(subjects=3, each=2))
    first, second = shards
    for pk in (first, second, 9999):
        (workplace.folder(f"shard-{pk}") / "originals.zip").write_bytes(b"plain")
    Shard.objects.filter(pk=second).update(done_at=timezone.now())
    assert retention.sweep() == 2
    assert [path.name for path in workplace.root().iterdir()] == [f"shard-{first}"]
    DatasetVersion.objects.filter(pk=version.pk).update(state="draft")
    assert retention.sweep() == 1
