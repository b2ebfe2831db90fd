"""What a program that strangers' files have conquered leaves behind is never believed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings

from policies.errors import UserError
from portal import workplace
from portal.catalog.models import DatasetVersion, StoredFile
from portal.ingest import actions, program, room
from portal.ingest.models import Intake
from portal.ingest.pipeline import count_members
from sandbox_runner.regular_files import NotRegular
from tests.portal.ingest.flow import Crew, contents, drawing, work, zipped

database = pytest.mark.django_db(transaction=True)


def started(people: Crew) -> DatasetVersion:
    actions.take_in(by=people.steward, version=people.version, stream=zipped({"a.png": drawing(1)}))
    return actions.start(by=people.steward, version=people.version)


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
    version = work("ingest.run", started(people))
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
    version = work("ingest.run", started(people))
    assert version.state == "de_identified", version.reason
    assert set(contents(version)) == {"s/1.png", "dataset.toml"}


@database
def test_a_worker_that_lost_its_lease_changes_nothing(
    people: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = started(people)

    def overtaken(folder: Path) -> None:
        Intake.objects.update(lease_owner="another")
        raise RuntimeError("the other one has taken the folder")

    conquer(monkeypatch, overtaken)
    assert work("ingest.run", version).state == "ingesting"
    assert (workplace.root() / f"ingest-{version.pk}").exists()

    def too_late(folder: Path) -> None:
        sound(folder)
        Intake.objects.update(lease_owner="another")

    Intake.objects.update(lease_owner="", lease_until=None)
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
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"a": b"1", "b": b"2"}).getvalue())
    assert count_members(path) == 2
    path.write_bytes(b"PK\x03\x04" + bytes(100_000))
    with pytest.raises(UserError, match="no readable zip"):
        count_members(path)
