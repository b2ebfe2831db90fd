"""The ends of retention: keys are gone from everywhere, and a certificate says so offline."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

import glovebox_cli
from portal import blobs, dropbox, keys
from portal.audit.models import Event
from portal.catalog.models import Dataset, DatasetVersion
from portal.ingest import actions, quarantine, retention, tasks
from portal.ingest.models import Destruction, Intake, ReviewItem
from tests.portal.ingest.flow import (
    Crew,
    album,
    find_clean,
    ingest,
    object_bytes,
    open_round,
    work,
    zipped,
)

pytestmark = pytest.mark.django_db(transaction=True)


def database_bytes() -> bytes:
    """Everything that lies in the database's files; PostgreSQL keeps its own elsewhere."""
    stored = Path(str(connection.settings_dict["NAME"]))
    return b"".join(path.read_bytes() for path in stored.parent.glob(stored.name + "*"))


def certify(version: DatasetVersion) -> None:
    for made in Destruction.objects.filter(version=version):
        tasks.certify(made.pk)


def held_back(people: Crew) -> DatasetVersion:
    members = album(subjects=1, each=2)
    members["person 1/report.docx"] = b"PK-less words of a patient, PLANTED-ONE" * 20
    members["person 1/broken.png"] = b"\x89PNG\r\n\x1a\nbroken PLANTED-TWO"
    return ingest(people, members)


def overdue() -> None:
    Intake.objects.update(destroy_after=timezone.now(), quarantine_destroy_after=timezone.now())


@pytest.mark.sandbox
def test_after_its_time_neither_database_nor_store_can_open_anything_and_a_certificate_says_so(
    people: Crew, tmp_path: Path, capsys: pytest.CaptureFixture[str], api: Callable[..., Any]
) -> None:
    version = held_back(people)
    items = open_round(people)
    intake = Intake.objects.get()
    wrapped = {
        "originals": bytes(intake.sealed_key or b""),
        "quarantine": bytes(intake.quarantine_sealed_key or b""),
        "pictures": bytes(items[0].wrapped_key or b""),
    }
    opened = {
        "originals": dropbox.unseal(wrapped["originals"], context=f"originals:{version.pk}"),
        "quarantine": dropbox.unseal(wrapped["quarantine"], context=quarantine.context(intake)),
        "pictures": keys.unwrap(
            wrapped["pictures"], by=keys.master("view"), context=f"review-item:{items[0].pk}"
        ),
    }
    assert len(set(opened.values())) == 3  # each has a key of its own
    objects = {
        "originals": intake.object_name,
        "quarantine": intake.quarantine_object,
        "pictures": items[0].header_object,
    }
    for what, name in objects.items():
        assert blobs.read(name, key=opened[what])
        if connection.vendor == "sqlite":
            assert wrapped[what] in database_bytes()
    copies = {name: object_bytes()[name] for name in objects.values()}
    assert b"PLANTED-ONE" in blobs.read(objects["quarantine"], key=opened["quarantine"])

    find_clean(people, items)
    actions.sign(by=people.officer, version=version)
    overdue()
    work("ingest.destroy", version)
    certify(version)

    for what, name in objects.items():
        assert not blobs.exists(name)
        assert name not in object_bytes()
        if connection.vendor == "sqlite":
            assert wrapped[what] not in database_bytes(), what
    # Whoever kept a copy of an object finds no key in the database that opens it.
    intake.refresh_from_db()
    left = [intake.sealed_key, intake.quarantine_sealed_key]
    left += ReviewItem.objects.values_list("wrapped_key", flat=True)
    assert not any(bytes(key or b"") for key in left)
    assert all(copies.values())

    made = {one.what: one for one in Destruction.objects.all()}
    assert set(made) == {"originals", "quarantine", "pictures"}
    public = tmp_path / "keys.pem"
    public.write_bytes(
        b"".join(keys.public_pem(key) for key in keys.public_keys("release").values())
    )
    for what, one in made.items():
        answer = api(people.steward).get(
            f"/api/v1/datasets/photos/versions/1/destructions/{one.pk}/certificate"
        )
        assert answer["Content-Disposition"].startswith("attachment;")
        file = tmp_path / f"{what}.json"
        file.write_bytes(answer.content)
        assert glovebox_cli.main(["verify", str(file), "--key", str(public), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["held"], said["what"], said["version"]) == (True, what, 1)
        assert objects[what] in {each["object"] for each in said["objects"]}
        assert {each["key"] for each in said["objects"]} >= {keys.fingerprint(opened[what]).hex()}
        assert people.steward.email not in answer.content.decode()
        changed = tmp_path / "changed.json"
        changed.write_bytes(answer.content.replace(b"A", b"B", 1))
        assert glovebox_cli.main(["verify", str(changed), "--key", str(public)]) == 1
        capsys.readouterr()
    events = Event.objects.filter(action="destruction.certify")
    assert sorted(each.details["what"] for each in events) == [
        "originals",
        "pictures",
        "quarantine",
    ]


@pytest.mark.sandbox
def test_the_quarantine_has_its_own_end_and_takes_the_originals_that_hold_it_along(
    people: Crew,
) -> None:
    Dataset.objects.update(policy={"deid": {"quarantine_days": 5}})
    people.version.dataset.refresh_from_db()
    version = held_back(people)
    intake = Intake.objects.get()
    assert intake.quarantine_count == 2
    assert (
        intake.destroy_after
        == intake.quarantine_destroy_after
        == (intake.uploaded_at + timedelta(days=5))
    )
    # The other way round: the originals end first, what was held back stays.
    Intake.objects.update(destroy_after=timezone.now())
    work("ingest.destroy", version)
    intake.refresh_from_db()
    assert intake.destroyed_at is not None
    assert intake.quarantine_destroyed_at is None
    key = dropbox.unseal(intake.quarantine_sealed_key or b"", context=quarantine.context(intake))
    assert b"PLANTED-TWO" in blobs.read(intake.quarantine_object, key=key)
    Intake.objects.update(quarantine_destroy_after=timezone.now())
    work("ingest.destroy", version)
    assert not blobs.exists(intake.quarantine_object)


@pytest.mark.sandbox
def test_an_examination_without_originals_says_that_it_can_begin(people: Crew) -> None:
    version = ingest(people, album(subjects=1, each=1))
    overdue()
    work("ingest.destroy", version)
    [item] = open_round(people)
    assert item.unseen == "original-destroyed"
    version.refresh_from_db()
    assert version.reason == "the security officer examines the sample"


@pytest.mark.sandbox
def test_nothing_held_back_leaves_no_quarantine(people: Crew) -> None:
    ingest(people, album(subjects=1, each=1))
    intake = Intake.objects.get()
    assert (intake.quarantine_object, intake.quarantine_count) == ("", 0)
    assert intake.quarantine_destroy_after is None


@pytest.mark.sandbox
def test_a_worker_killed_after_the_keys_leaves_objects_that_the_next_removes(
    people: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = ingest(people, album(subjects=1, each=1))
    intake = Intake.objects.get()
    overdue()
    with monkeypatch.context() as patch:
        patch.setattr(retention, "finish", lambda _made: None)
        retention.destroy_originals(intake)
    made = Destruction.objects.get()
    assert blobs.exists(intake.object_name)
    # Nothing is signed while something is left.
    assert not retention.certify(made)
    tasks.certify(made.pk)
    assert not blobs.exists(intake.object_name)
    assert not Destruction.objects.get().certificate
    tasks.certify(made.pk)
    tasks.certify(made.pk)
    assert Destruction.objects.get().certificate
    assert Event.objects.filter(action="destruction.certify").count() == 1
    Intake.objects.update(sealed_key=b"back again")
    Destruction.objects.update(certificate="")
    assert not retention.certify(Destruction.objects.get())
    assert version.state == "de_identified"


@pytest.mark.sandbox
def test_pictures_of_a_round_that_was_sent_back_end_too_and_open_ones_end_with_the_originals(
    people: Crew,
) -> None:
    Dataset.objects.update(policy={"deid": {"pictures_days": 0}})
    people.version.dataset.refresh_from_db()
    version = ingest(people, album(subjects=1, each=2))
    first, second = open_round(people)
    box = {"x": 1, "y": 1, "width": 4, "height": 4}
    actions.record_finding(by=people.officer, item=first, finding="missed", boxes=[box])
    actions.record_finding(by=people.officer, item=second, finding="clean")
    work("ingest.destroy", version)
    first.refresh_from_db()
    assert first.pictures_destroyed_at is None  # the round is open
    actions.sign(by=people.officer, version=version)
    work("ingest.apply_boxes", version)
    again = open_round(people, seed=2)
    work("ingest.destroy", version)
    first.refresh_from_db()
    again[0].refresh_from_db()
    assert first.pictures_destroyed_at is not None
    assert again[0].pictures_destroyed_at is None
    overdue()
    work("ingest.destroy", version)
    again[0].refresh_from_db()
    assert again[0].wrapped_key is None
    with pytest.raises(Exception, match="destroyed after their time"):
        actions.record_finding(by=people.officer, item=again[0], finding="clean")


def test_a_database_that_others_have_open_keeps_no_copy_of_the_key_in_its_log(
    people: Crew,
) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL keeps old rows until they are vacuumed")
    actions.take_in(
        by=people.steward, version=people.version, stream=zipped(album(subjects=1, each=1))
    )
    intake = Intake.objects.get()
    sealed = bytes(intake.sealed_key or b"")
    overdue()
    # While another process has the database open, closing a connection empties no log.
    with contextlib.closing(sqlite3.connect(str(connection.settings_dict["NAME"]))) as other:
        other.execute("SELECT count(*) FROM ingest_intake").fetchone()
        assert sealed in database_bytes()
        retention.destroy_originals(intake)
        assert sealed not in database_bytes()
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA secure_delete")
        assert cursor.fetchone()[0] == 1
