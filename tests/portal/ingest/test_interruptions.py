"""Killed workers, full disks, lost leases, and programs that leave something hostile."""

from __future__ import annotations

import hashlib
import json
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

from policies.errors import UserError
from portal import workplace
from portal.audit.models import Event
from portal.catalog.models import DatasetVersion, StoredFile
from portal.ingest import actions, program, retention, room
from portal.ingest.models import Intake, ReportRow, ReviewItem
from portal.leases import take
from sandbox_runner.regular_files import NotRegular
from tests.portal.ingest.flow import (
    Crew,
    album,
    contents,
    drawing,
    find_clean,
    ingest,
    missing_objects,
    object_bytes,
    work,
    zipped,
)

database = pytest.mark.django_db(transaction=True, serialized_rollback=True)

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


Hostile = Callable[[Path], None]


def row(data: bytes, target: str, **changes: object) -> str:
    """Return a report's line as the program writes it."""
    digest = hashlib.sha256(data).hexdigest()
    line = {
        "source": digest, "status": "written", "target": target, "reason": "", "actions": {},
        "boxes": {}, "kind": "photo", "stratum": {}, "review": "", "digest": digest, "run": "",
        "seconds": 0.1,
    }  # fmt: skip
    return json.dumps({**line, **changes}) + "\n"


def leave(folder: Path, lines: str, files: dict[str, bytes]) -> None:
    (folder / "report.jsonl").write_text(lines)
    for name, data in files.items():
        path = folder / "published" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def sound(folder: Path) -> None:
    picture = drawing(1)
    leave(folder, row(picture, "s/1.png"), {"s/1.png": picture, "s/2.png": b"no row names it"})


def link(folder: Path) -> None:
    secret = (settings.KEYS / "data" / "master.key").read_bytes()
    leave(folder, row(secret, "s/1.png"), {})
    (folder / "published" / "s").mkdir(parents=True)
    (folder / "published" / "s" / "1.png").symlink_to(settings.KEYS / "data" / "master.key")


def linked_folder(folder: Path) -> None:
    secret = (settings.KEYS / "data" / "master.key").read_bytes()
    leave(folder, row(secret, "s/master.key"), {})
    (folder / "published").mkdir()
    (folder / "published" / "s").symlink_to(settings.KEYS / "data")


def linked_report(folder: Path) -> None:
    sound(folder)
    (folder / "report.jsonl").rename(folder.parent / "elsewhere")
    (folder / "report.jsonl").symlink_to(folder.parent / "elsewhere")


def climbing(folder: Path) -> None:
    leave(folder, row(b"", "../../data/master.key"), {})


def other_content(folder: Path) -> None:
    leave(folder, row(drawing(1), "s/1.png"), {"s/1.png": drawing(2)})


def missing_row(folder: Path) -> None:
    leave(folder, "", {"s/1.png": drawing(1)})


def no_file(folder: Path) -> None:
    leave(folder, row(drawing(1), "s/1.png"), {})


def unknown_status(folder: Path) -> None:
    leave(folder, row(drawing(1), "s/1.png", status="clean"), {"s/1.png": drawing(1)})


@database
@pytest.mark.parametrize(
    "hostile",
    [link, linked_folder, linked_report, climbing, other_content, missing_row, no_file,
     unknown_status],
    ids=lambda hostile: hostile.__name__,
)  # fmt: skip
def test_what_a_conquered_program_leaves_is_not_published(
    people: Crew, monkeypatch: pytest.MonkeyPatch, hostile: Hostile
) -> None:
    conquer(monkeypatch, hostile)
    version = work("ingest.run", started(people, {"a.png": drawing(1)}))
    assert version.state == "draft"
    assert version.reason == "The portal could not finish this step; the administrators have " \
        "been told."  # fmt: skip
    assert not StoredFile.objects.exists()
    assert not list(workplace.root().iterdir())


def conquer(monkeypatch: pytest.MonkeyPatch, hostile: Hostile) -> None:
    """Put something else in the place of the sealed program."""

    def run(job: program.Job, *, log: Path, cancel: object = None) -> None:
        hostile(job.writes)
        log.write_text('deid: words\n{"inputs": 1}\n')

    monkeypatch.setattr(program, "run", run)


@database
def test_only_what_the_report_names_is_stored(
    people: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    conquer(monkeypatch, sound)
    version = work("ingest.run", started(people, {"a.png": drawing(1)}))
    assert version.state == "de_identified", version.reason
    assert set(contents(version)) == {"s/1.png", "dataset.toml"}


@database
def test_a_worker_that_lost_its_lease_changes_nothing(
    people: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = started(people, {"a.png": drawing(1)})

    def overtaken(folder: Path) -> None:
        Intake.objects.update(lease_owner="another")
        raise RuntimeError("the other one has taken the folder")

    conquer(monkeypatch, overtaken)
    assert work("ingest.run", version).state == "ingesting"
    assert (workplace.root() / f"ingest-{version.pk}").exists()

    def too_late(folder: Path) -> None:
        sound(folder)
        Intake.objects.update(lease_owner="another")

    expire()
    conquer(monkeypatch, too_late)
    assert work("ingest.run", version).state == "ingesting"
    assert not StoredFile.objects.exists()


def test_a_program_that_died_of_its_own_error_has_no_summary(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(program.ProgramFailed):
        program.summary(log)
    log.write_text("3 of 9\nTraceback (most recent call last):\nMemoryError\n")
    with pytest.raises(program.ProgramFailed):
        program.summary(log)
    log.write_text('9 inputs: 9 written\n{"inputs": 9, "written": 9}\n')
    assert program.summary(log)["inputs"] == 9


def test_a_room_gives_plain_files_only(tmp_path: Path) -> None:
    folder = room.make(tmp_path / "room")
    (folder / "plain").write_bytes(b"x")
    with room.opened(folder, "plain") as stream:
        assert stream.read() == b"x"
    os.mkfifo(folder / "pipe")
    os.link(folder / "plain", folder / "twin")
    (folder / "link").symlink_to("/etc/passwd")
    for name in ("pipe", "twin", "link", "../room/plain", "/etc/passwd"):
        with pytest.raises((room.BadResult, NotRegular)):
            room.opened(folder, name)
    with pytest.raises(FileNotFoundError):
        room.opened(folder, "absent")
    (tmp_path / "other").symlink_to(folder)
    with pytest.raises(room.BadResult):
        room.make(tmp_path / "other")


def test_the_number_of_members_is_read_without_opening_the_zip(tmp_path: Path) -> None:
    from portal.ingest.pipeline import count_members

    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"a": b"1", "b": b"2"}).getvalue())
    assert count_members(path) == 2
    path.write_bytes(b"PK\x03\x04" + bytes(100_000))
    with pytest.raises(UserError, match="no readable zip"):
        count_members(path)
