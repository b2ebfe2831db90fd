"""Small files go into packs: readable throughout, each by its key alone, and lying once."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from portal import blobs, keys, packs
from portal.accounts.models import Person
from portal.audit.models import Event
from portal.blobs import Damaged
from portal.catalog import actions, packing
from portal.catalog.contents import Contents, Withdrawn, dataset_manifest, ensure_version_key
from portal.catalog.models import DatasetVersion, Pack, Packing, StoredFile, Subject, SubjectKey
from portal.celery import app
from portal.ingest import storing
from portal.leases import LeaseLost, hold
from portal.object_store import path_of

pytestmark = pytest.mark.django_db(transaction=True)

SUBJECTS, EACH = 12, 6


def content_of(subject: int, number: int) -> bytes:
    return f"picture {number} of {subject}".encode() * (1 + number * 50)


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of 30 files, so that a small version has several."""
    monkeypatch.setattr(packing, "PACK_FILES", 30)


@pytest.fixture
def version(make_person: Callable[..., Person]) -> DatasetVersion:
    """A published version of 72 small pictures, a table and a large file."""
    steward = make_person("steward@hospital.example", "steward")
    dataset = actions.create_dataset(
        by=steward, slug="photos", kind="photos", title="Photos", description="For a test."
    )
    version = actions.create_version(by=steward, dataset=dataset)
    keeper = storing._Keeper(version, ensure_version_key(version))
    rows = []
    for subject in range(SUBJECTS):
        split = "sealed" if subject % 4 == 3 else "train"
        for number in range(EACH):
            stream = io.BytesIO(content_of(subject, number))
            path = f"s{subject:02d}/{number}.png"
            rows.append(keeper.keep(path, stream, f"s{subject:02d}", split))
    rows.append(keeper.keep("labels.csv", io.BytesIO(b"file,subject\n"), "", ""))
    large = os.urandom(packing.MEMBER_BYTES + 1)
    rows.append(keeper.keep("s00/large.dcm", io.BytesIO(large), "s00", "train"))
    StoredFile.objects.bulk_create(rows)
    DatasetVersion.objects.filter(pk=version.pk).update(state="published")
    version.refresh_from_db()
    return version


def opened(version: DatasetVersion) -> dict[str, bytes]:
    contents = Contents(version)
    found = {}
    for entry in dataset_manifest(version).entries:
        with contents.open(entry) as stream:
            found[entry.path] = stream.read()
    return found


def objects() -> set[str]:
    place = Path(settings.HOME) / "objects"
    return {path.name for path in place.glob("??/??/*")}


def named(version: DatasetVersion) -> set[str]:
    rows = StoredFile.objects.filter(version=version, pack=None)
    return {
        *rows.values_list("object_name", flat=True),
        *Pack.objects.filter(version=version).values_list("object_name", flat=True),
    }


def run(version: DatasetVersion) -> None:
    app.loader.import_default_modules()
    app.tasks["catalog.pack"](version.pk)


def later(version: DatasetVersion) -> None:
    """Run again when the files' own objects have been kept for long enough."""
    Pack.objects.update(written_at=timezone.now() - packing.KEPT)
    run(version)
    assert packing.wanted() == []


def test_what_was_packed_is_the_same_version_and_lies_once(version: DatasetVersion) -> None:
    before, manifest = opened(version), dataset_manifest(version).digest()
    singles = set(StoredFile.objects.values_list("object_name", flat=True))
    others = objects() - singles

    run(version)

    assert opened(version) == before
    # A backup that has the rows of before finds what they name for some days.
    assert singles < objects() and packing.wanted() == []
    later(version)
    assert opened(version) == before
    assert dataset_manifest(version).digest() == manifest
    assert objects() == others | named(version)
    assert StoredFile.objects.filter(pack=None).get().path == "s00/large.dcm"
    assert Event.objects.get(action="version.pack").details == {"packs": 3, "files": 73}
    # Whoever trains reads no pack with sealed files in it, and the other way round.
    for pack in Pack.objects.all():
        splits = StoredFile.objects.filter(pack=pack).values_list("split", flat=True)
        assert "sealed" not in splits or set(splits) == {"sealed"}
    with Contents(version).open(dataset_manifest(version).entries[5]) as stream:
        assert stream.seekable() and stream.read(3) == opened(version)["s00/4.png"][:3]


def test_destroying_a_subjects_key_takes_exactly_their_files_out_of_the_packs(
    version: DatasetVersion,
) -> None:
    before = opened(version)
    run(version)
    SubjectKey.objects.get(version=version, subject__pseudonym="s01").delete()

    contents = Contents(version)
    for entry in dataset_manifest(version).entries:
        if entry.subject == "s01":
            with pytest.raises(Withdrawn):
                contents.open(entry)
        else:
            with contents.open(entry) as stream:
                assert stream.read() == before[entry.path]
    row = StoredFile.objects.select_related("pack").get(path="s01/2.png")
    assert row.pack is not None and row.offset is not None
    other = contents.subject_key(Subject.objects.get(pseudonym="s02").pk)
    for key in (ensure_version_key(version), other, keys.master("data"), keys.master("view")):
        member = packs.Member(key, row.offset, row.bytes)
        with pytest.raises(Damaged):
            list(packs.read(row.pack.object_name, [member], size=row.pack.bytes))


def test_whose_key_is_gone_already_is_left_out(version: DatasetVersion) -> None:
    SubjectKey.objects.get(version=version, subject__pseudonym="s01").delete()

    run(version)

    left = StoredFile.objects.filter(pack=None, subject__pseudonym="s01")
    assert left.count() == EACH
    assert Packing.objects.get().done_at is not None


def test_only_a_published_version_is_packed_and_only_once(version: DatasetVersion) -> None:
    DatasetVersion.objects.update(state="in_qa")
    assert packing.wanted() == []
    run(version)
    assert not Pack.objects.exists()

    DatasetVersion.objects.update(state="published")
    assert packing.wanted() == [version.pk]
    run(version)
    assert packing.wanted() == []
    made = list(Pack.objects.values_list("object_name", flat=True))
    run(version)
    later(version)
    assert list(Pack.objects.values_list("object_name", flat=True)) == made


def test_few_files_are_left_as_they_are(version: DatasetVersion) -> None:
    StoredFile.objects.filter(path__gt="s05").delete()

    run(version)

    assert not Pack.objects.exists()
    assert packing.wanted() == []


# A worker of its own that kills itself, as hard as can be, at the given call of a function.
WORKER = """
import importlib, os, signal, sys
import django
django.setup()
from portal.celery import app
app.loader.import_default_modules()
from portal.catalog import packing
from datetime import timedelta
packing.PACK_FILES, packing.KEPT = 30, timedelta(0)
version, module, name, number, when = sys.argv[1:]
if module:
    place = importlib.import_module(module)
    kept, calls = getattr(place, name), []
    def counted(*args, **more):
        calls.append(1)
        last = len(calls) == int(number)
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = kept(*args, **more)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(place, name, counted)
for _time in range(2):
    app.tasks["catalog.pack"](int(version))
"""


def worker(
    version: DatasetVersion, at: str = "", call: int = 0, when: str = "before"
) -> subprocess.Popen[bytes]:
    module, _dot, name = at.rpartition(".")
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "GLOVEBOX_HOME": str(settings.HOME),
        "GLOVEBOX_KEYS": str(settings.KEYS),
        "GLOVEBOX_ROLE": "worker",
    }
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(version.pk), module, name, str(call), when],
        env=environment,
        cwd=settings.BASE_DIR,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("at", "call", "when"),
    [
        ("portal.packs.write", 1, "before"),
        ("portal.object_store._sync_folder", 3, "before"),  # under its name, no row says so yet
        ("portal.packs.write", 2, "after"),
        ("portal.catalog.packing._read_back", 1, "after"),
        ("portal.catalog.packing._remove_replaced", 1, "before"),
        ("portal.blobs.delete", 17, "before"),
        ("portal.catalog.packing._remove_replaced", 3, "after"),
    ],
)
def test_a_worker_killed_anywhere_loses_nothing_and_the_next_one_finishes(
    version: DatasetVersion, at: str, call: int, when: str
) -> None:
    before = opened(version)
    others = objects() - named(version)
    killed = worker(version, at, call, when)
    assert killed.wait(60) == -signal.SIGKILL
    assert opened(version) == before
    stored = objects()
    run(version)
    assert objects() == stored, "its lease holds still"

    Packing.objects.update(lease_until=timezone.now())
    run(version)
    later(version)

    assert Packing.objects.get().done_at is not None
    assert opened(version) == before
    assert StoredFile.objects.filter(pack=None).count() == 1
    assert objects() == others | named(version)


def test_two_at_once_pack_once(version: DatasetVersion) -> None:
    before = opened(version)
    others = objects() - named(version)

    both = [worker(version), worker(version)]

    assert [each.wait(60) for each in both] == [0, 0]
    run(version)
    later(version)
    assert opened(version) == before
    assert objects() == others | named(version)
    assert Event.objects.filter(action="version.pack").count() == 1


@pytest.mark.parametrize("written", [False, True])
def test_who_was_away_too_long_changes_nothing_and_leaves_nothing(
    version: DatasetVersion, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    before = opened(version)
    others = objects() - named(version)
    work = Packing.objects.create(version=version)
    write = packs.write

    def slow(members, *, name):  # type: ignore[no-untyped-def]
        made = write(members, name=name) if written else None
        monkeypatch.setattr(packs, "write", write)
        Packing.objects.update(lease_until=timezone.now())
        run(version)  # the successor, from the beginning to the end
        later(version)
        return made or write(members, name=name)

    monkeypatch.setattr(packs, "write", slow)
    with hold(Packing, work.pk) as lease:
        assert lease is not None
        with pytest.raises(LeaseLost):
            packing.pack(version, lease)

    later(version)
    assert opened(version) == before
    assert objects() == others | named(version)


def test_a_full_disk_leaves_everything_as_it_was_and_is_tried_again_later(
    version: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, stored = opened(version), objects()
    fsync = os.fsync

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    run(version)

    monkeypatch.setattr(os, "fsync", fsync)
    assert opened(version) == before
    assert objects() == stored
    assert packing.wanted() == []
    Packing.objects.update(retry_at=timezone.now())
    assert packing.wanted() == [version.pk]
    run(version)
    assert opened(version) == before
    assert StoredFile.objects.filter(pack=None).count() == 1


def test_a_damaged_file_is_not_packed_and_nothing_is_removed(version: DatasetVersion) -> None:
    stored = objects()
    place = path_of(StoredFile.objects.get(path="s00/3.png").object_name)
    sealed = bytearray(place.read_bytes())
    sealed[-20] ^= 1
    place.write_bytes(sealed)

    run(version)

    assert objects() == stored
    assert packing.wanted() == []


def test_a_pack_that_the_store_does_not_give_back_is_not_used(
    version: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, stored = opened(version), objects()
    write = packs.write

    def damaging(members, *, name):  # type: ignore[no-untyped-def]
        written = write(members, name=name)
        sealed = bytearray(path_of(name).read_bytes())
        sealed[-1] ^= 1
        path_of(name).write_bytes(sealed)
        return written

    monkeypatch.setattr(packs, "write", damaging)

    run(version)

    assert opened(version) == before
    assert objects() == stored


def test_a_file_is_in_one_place(version: DatasetVersion) -> None:
    from django.db import IntegrityError

    run(version)
    packed = StoredFile.objects.filter(path="s00/0.png")

    for change in ({"object_name": "a" * 64}, {"offset": None}, {"pack": None}):
        with pytest.raises(IntegrityError):
            packed.update(**change)
    with pytest.raises(ValueError, match="64 hex"):
        blobs.delete(packed.get().object_name)
