"""At rest everything is sealed: names tell nothing, the web has no key, subjects can go."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys

import pytest
from django.conf import settings

from policies.errors import CannotRun
from portal import blobs, dropbox, keys
from portal.accounts.models import Person
from portal.catalog import actions, queries
from portal.catalog.contents import Contents, Withdrawn, dataset_manifest, ensure_version_key
from portal.catalog.models import Dataset, DatasetVersion, StoredFile, Subject, SubjectKey
from portal.ingest import storing
from portal.ingest.actions import take_in
from portal.ingest.models import Intake
from portal.ingest.pipeline import originals, pseudonym_key

pytestmark = pytest.mark.django_db

FILES = {
    "A/1.png": (b"first picture of A", "A"),
    "A/2.png": (b"second picture of A", "A"),
    "B/1.png": (b"picture of B", "B"),
    "labels.csv": (b"file,subject\nA/1.png,A\n", ""),
}


@pytest.fixture
def version(make_person) -> DatasetVersion:  # type: ignore[no-untyped-def]
    steward: Person = make_person("steward@hospital.example", "steward")
    dataset = actions.create_dataset(
        by=steward, slug="photos", kind="photos", title="Photos", description="For a test."
    )
    version = actions.create_version(by=steward, dataset=dataset)
    fill(version)
    return version


def fill(version: DatasetVersion) -> None:
    keeper = storing._Keeper(version, ensure_version_key(version))
    for path, (content, subject) in FILES.items():
        keeper.keep(path, io.BytesIO(content), subject, "").save()


def opened(version: DatasetVersion, path: str) -> bytes:
    [entry] = [entry for entry in dataset_manifest(version).entries if entry.path == path]
    with Contents(version).open(entry) as stream:
        return stream.read()


def test_objects_are_named_by_hmacs_and_hold_nothing_readable(version: DatasetVersion) -> None:
    for row in StoredFile.objects.filter(version=version):
        content, _subject = FILES[row.path]
        assert opened(version, row.path) == content
        place = settings.HOME / "objects" / row.object_name[:2] / row.object_name[2:4]
        sealed = (place / row.object_name).read_bytes()
        assert content not in sealed
        assert row.sha256 == hashlib.sha256(content).hexdigest()
        guesses = {hashlib.sha256(each).hexdigest() for each in (content, row.path.encode())}
        assert row.object_name not in guesses
    other = DatasetVersion.objects.create(dataset=version.dataset, number=2)
    fill(other)
    names = StoredFile.objects.values_list("object_name", flat=True)
    assert len(set(names)) == 2 * len(FILES)  # the same file has another name in each version


def test_destroying_a_subjects_key_makes_exactly_their_files_unreadable(
    version: DatasetVersion,
) -> None:
    row = SubjectKey.objects.get(version=version, subject__pseudonym="A")
    row.delete()
    for path, (content, subject) in FILES.items():
        if subject == "A":
            with pytest.raises(Withdrawn):
                opened(version, path)
        else:
            assert opened(version, path) == content
    # No other key of this version opens them: not the version's, not another subject's.
    stored = StoredFile.objects.get(version=version, path="A/1.png")
    other = Contents(version).subject_key(Subject.objects.get(pseudonym="B").pk)
    for key in (ensure_version_key(version), other, keys.master("data"), keys.master("view")):
        with pytest.raises(blobs.Damaged):
            blobs.open(stored.object_name, key=key)


def test_a_key_opens_only_what_it_was_wrapped_for(version: DatasetVersion) -> None:
    one, two = SubjectKey.objects.filter(version=version).order_by("pk")
    one.wrapped_key, two.wrapped_key = two.wrapped_key, one.wrapped_key
    one.save()
    two.save()
    with pytest.raises(keys.WrongKey):
        opened(version, "A/1.png")
    other = DatasetVersion.objects.create(
        dataset=version.dataset, number=2, wrapped_key=version.wrapped_key
    )
    with pytest.raises(keys.WrongKey):
        Contents(other)


def test_the_pseudonym_key_is_one_a_dataset_for_all_versions(version: DatasetVersion) -> None:
    key = pseudonym_key(version.dataset)
    assert pseudonym_key(Dataset.objects.get(pk=version.dataset.pk)) == key
    wrapped = bytes(Dataset.objects.get(pk=version.dataset.pk).wrapped_pseudonym_key or b"")
    assert key not in wrapped
    with pytest.raises(keys.WrongKey):
        keys.unwrap(wrapped, by=keys.master("data"), context="pseudonyms:999")


@pytest.mark.parametrize("role", ["web", "beat", "anything"])
def test_the_web_process_can_take_originals_in_and_open_nothing(
    version: DatasetVersion, role: str, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    actions.make_sample(version.dataset)
    version.dataset.refresh_from_db()
    monkeypatch.setenv("GLOVEBOX_ROLE", role)
    take_in(
        by=version.dataset.steward, version=version, stream=io.BytesIO(b"PK\x03\x04" + bytes(99))
    )
    intake = Intake.objects.get(version=version)
    for attempt in (
        lambda: opened(version, "A/1.png"),
        lambda: originals(intake, tmp_path),
        lambda: pseudonym_key(version.dataset),
        lambda: keys.master("data"),
        lambda: dropbox.unseal(intake.sealed_key or b"", context=f"originals:{version.pk}"),
    ):
        with pytest.raises(CannotRun):
            attempt()
    assert not list(tmp_path.iterdir())
    if role == "web":
        with queries.open_sample(version.dataset) as stream:
            assert stream.read(2) == b"PK"


def test_sealed_originals_open_for_their_version_only(version: DatasetVersion) -> None:
    from cryptography.exceptions import InvalidTag

    key = keys.new_key()
    sealed = dropbox.seal(key, context="originals:1")
    assert dropbox.unseal(sealed, context="originals:1") == key
    assert key not in sealed
    with pytest.raises(InvalidTag):
        dropbox.unseal(sealed, context="originals:2")
    with pytest.raises(InvalidTag):
        dropbox.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), context="originals:1")


def test_an_operating_web_process_never_opens_the_data_keys(version: DatasetVersion) -> None:
    """The files themselves, as the kernel sees it: a web process serves a page with them unread."""
    program = """
import sys, os
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import django
django.setup()
from django.test import Client
assert Client().get("/datasets/", follow=True).status_code == 200
assert Client().get("/api/v1/datasets").status_code == 200
keys = os.environ["GLOVEBOX_KEYS"]
assert any(path.startswith(keys) for path in opened)  # its own secret, so the hook does see
print([path for path in opened if path.startswith(os.path.join(keys, "data"))])
"""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "GLOVEBOX_HOME": str(settings.HOME),
        "GLOVEBOX_KEYS": str(settings.KEYS),
        "GLOVEBOX_ROLE": "web",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr[-2000:]
