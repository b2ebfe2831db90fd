"""Killed workers, what they leave, and full disks."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from portal import workplace
from portal.audit.models import Event
from portal.catalog.models import DatasetVersion, StoredFile
from portal.ingest import actions, retention, room
from portal.ingest.models import Intake, ReportRow, ReviewItem
from portal.leases import take
from tests.portal.ingest.flow import (
    Crew,
    album,
    contents,
    find_clean,
    ingest,
    missing_objects,
    object_bytes,
    work,
    zipped,
)

database = pytest.mark.django_db(transaction=True)

# A worker of its own that kills itself, as hard as can be, at the given call of a function.
WORKER = """
import importlib, os, signal, sys
import django
django.setup()
from portal.celery import app
app.loader.import_default_modules()
task, version, module, name, number = sys.argv[1:]
if module:
    place = importlib.import_module(module)
    kept, calls = getattr(place, name), []
    def counted(*args, **more):
        calls.append(1)
        if len(calls) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return kept(*args, **more)
    setattr(place, name, counted)
app.tasks[task](int(version))
"""


def worker(
    task: str, version: DatasetVersion, at: str = "", call: int = 0
) -> subprocess.Popen[str]:
    module, _dot, name = at.rpartition(".")
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "GLOVEBOX_HOME": str(settings.HOME),
        "GLOVEBOX_KEYS": str(settings.KEYS),
        "GLOVEBOX_ROLE": "worker",
    }
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, task, str(version.pk), module, name, str(call)],
        env=environment,
        cwd=settings.BASE_DIR,
        text=True,
        stderr=subprocess.DEVNULL,
    )


def expire() -> None:
    """Let the dead worker's lease run out."""
    Intake.objects.update(lease_until=timezone.now())


def started(people: Crew, members: dict[str, bytes]) -> DatasetVersion:
    actions.take_in(by=people.steward, version=people.version, stream=zipped(members))
    return actions.start(by=people.steward, version=people.version)


@database
@pytest.mark.sandbox
def test_a_worker_killed_while_de_identifying_goes_on_where_it_was(
    people: Crew, own_work: Path
) -> None:
    members = album(subjects=4, each=3)
    version = started(people, members)
    killed = worker("ingest.run", version)
    folder = own_work / f"ingest-{version.pk}" / "room"
    try:
        while room.count_lines(folder, "report.jsonl") < 2:
            assert killed.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    version.refresh_from_db()
    assert version.state == "ingesting"
    assert not StoredFile.objects.exists()
    # Its lease holds still: nobody begins beside what may be alive.
    assert work("ingest.run", version).state == "ingesting"
    assert not ReportRow.objects.exists()
    expire()
    for _attempt in range(20):  # the orphaned sandbox is being ended
        if work("ingest.run", version).state != "ingesting":
            break
        time.sleep(0.5)
    check_whole(version, members)
    # What the killed run had finished was kept, not made again.
    assert ReportRow.objects.filter(status="unchanged").count() >= 1


@database
@pytest.mark.sandbox
def test_a_worker_killed_while_storing_begins_that_step_again(people: Crew) -> None:
    members = album(subjects=2, each=2)
    kept = set(object_bytes())
    version = started(people, members)
    killed = worker("ingest.run", version, "portal.blobs.put", call=3)
    assert killed.wait() == -signal.SIGKILL
    version.refresh_from_db()
    assert version.state == "ingesting"
    assert not StoredFile.objects.exists()
    expire()
    work("ingest.run", version)
    check_whole(version, members)
    # Objects are named by the file's place, so the second attempt left none without a row.
    named = {
        *StoredFile.objects.values_list("object_name", flat=True),
        version.manifest_object,
        version.intake.object_name,
    }
    drafts = Path(settings.HOME) / "objects" / "drafts"
    left = set(object_bytes()) - kept - named - {path.name for path in drafts.iterdir()}
    assert left == set()


def check_whole(version: DatasetVersion, members: dict[str, bytes]) -> None:
    """The version is there once, with a row for every original."""
    version.refresh_from_db()
    assert version.state == "de_identified", version.reason
    sources = list(ReportRow.objects.filter(intake__version=version).values_list("source", flat=1))
    assert sorted(sources) == sorted(hashlib.sha256(each).hexdigest() for each in members.values())
    assert Event.objects.filter(action="version.de_identified").count() == 1
    assert not missing_objects(version)
    assert len(contents(version)) == len(members) + 1
    assert not list(workplace.root().iterdir())


@database
@pytest.mark.sandbox
def test_a_worker_killed_while_drawing_pictures_draws_the_rest(people: Crew) -> None:
    version = ingest(people, album(subjects=2, each=2))
    actions.start_examination(by=people.officer, version=version, seed=1)
    killed = worker("ingest.pictures", version, "portal.ingest.pipeline._keep_pictures", call=3)
    assert killed.wait() == -signal.SIGKILL
    drawn = set(ReviewItem.objects.exclude(after_object="").values_list("pk", "after_object"))
    assert len(drawn) == 2
    assert (workplace.root() / f"pictures-{version.pk}").exists()
    expire()
    work("ingest.pictures", version)
    items = list(ReviewItem.objects.order_by("position"))
    assert drawn < {(item.pk, item.after_object) for item in items}
    assert all(item.after_object for item in items)
    assert not list(workplace.root().iterdir())
    find_clean(people, items)


@database
def test_plaintext_of_the_dead_is_swept_and_that_of_the_living_is_not(people: Crew) -> None:
    version = started(people, album(subjects=1, each=1))
    for name in (f"ingest-{version.pk}", f"pictures-{version.pk}", "boxes-99", "job-1-run-1"):
        (workplace.folder(name) / "originals.zip").write_bytes(b"plain")
    assert take(Intake, version.intake.pk, owner="alive", seconds=60)
    assert retention.sweep() == 1  # no version has the number 99
    assert {path.name for path in workplace.root().iterdir()} == {
        f"ingest-{version.pk}", f"pictures-{version.pk}", "job-1-run-1",
    }  # fmt: skip
    expire()
    assert retention.sweep() == 1
    assert (workplace.root() / f"ingest-{version.pk}").exists()  # the next worker goes on with it
    DatasetVersion.objects.update(state="de_identified")
    assert retention.sweep() == 1
    assert [path.name for path in workplace.root().iterdir()] == ["job-1-run-1"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[Path, str], Path]]:
    """Return a function that puts a small disk of its own at a folder."""
    mounted: list[Path] = []

    def mount(place: Path, size: str) -> Path:
        place.mkdir(parents=True, exist_ok=True)
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place)],
            capture_output=True,
            check=False,
        )
        if made.returncode:
            pytest.skip("a disk of its own needs the right to mount one")
        mounted.append(place)
        return place

    yield mount
    for place in reversed(mounted):
        subprocess.run(["umount", str(place)], check=True)


def fill(place: Path, leave: int) -> Path:
    """Fill a disk but for some bytes; removing the file makes room again."""
    free = os.statvfs(place)
    ballast = place / "ballast"
    with ballast.open("wb") as out:
        out.write(bytes(free.f_bavail * free.f_frsize - leave))
    return ballast


@database
@pytest.mark.sandbox
def test_a_full_disk_of_objects_leaves_the_version_unpublished_and_a_retry_completes_it(
    people: Crew, disk: Callable[[Path, str], Path], own_work: Path, api: Callable[..., Any]
) -> None:
    objects = disk(Path(settings.HOME) / "objects", "8m")
    members = album()
    ballast = fill(objects, 4096)
    answer = api(people.steward).put(
        "/api/v1/datasets/photos/versions/1/originals",
        zipped(members).getvalue(),
        content_type="application/zip",
    )
    assert answer.status_code == 503
    assert "The disk of the encrypted objects is full" in answer.json()["error"]["message"]
    ballast.unlink()
    version = started(people, members)
    ballast = fill(objects, 12_288)
    work("ingest.run", version)
    assert version.state == "draft"
    assert version.reason.startswith("The disk of the encrypted objects is full.")
    assert not StoredFile.objects.exists()
    assert not list(own_work.iterdir())
    ballast.unlink()
    actions.start(by=people.steward, version=version)
    work("ingest.run", version)
    check_whole(version, members)


@database
@pytest.mark.sandbox
@pytest.mark.parametrize("size", ["8k", "32k"], ids=["decrypting", "de-identifying"])
def test_a_full_work_folder_is_named_and_a_retry_completes(
    people: Crew, disk: Callable[[Path, str], Path], own_work: Path, size: str
) -> None:
    members = album()
    version = started(people, members)
    disk(own_work, size)
    work("ingest.run", version)
    assert version.state == "draft"
    assert version.reason.startswith("The disk of the work folder is full.")
    assert not StoredFile.objects.exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(own_work)], check=True)
    actions.start(by=people.steward, version=version)
    work("ingest.run", version)
    check_whole(version, members)
