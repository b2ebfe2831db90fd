"""Steps of ingest as people and workers take them, for tests."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from portal import blobs
from portal.accounts.models import Person
from portal.catalog import actions as catalog
from portal.catalog.contents import Contents, dataset_manifest
from portal.catalog.models import DatasetVersion, StoredFile
from portal.celery import app
from portal.ingest import actions
from portal.ingest.models import ReviewItem
from portal.ingest.sampling import current_round


@dataclass
class Crew:
    """A dataset's steward with an open version, and the officer who will examine it."""

    steward: Person
    officer: Person
    version: DatasetVersion


def crew(make_person: Callable[..., Person], slug: str = "photos", kind: str = "photos") -> Crew:
    """Return a new dataset's people and its first version, through the actions."""
    steward = make_person(f"{slug}-steward@hospital.example", "steward")
    dataset = catalog.create_dataset(
        by=steward, slug=slug, kind=kind, title=slug.title(), description="For a test."
    )
    return Crew(
        steward=steward,
        officer=make_person(f"{slug}-officer@hospital.example", "officer"),
        version=catalog.create_version(by=steward, dataset=dataset),
    )


def work(name: str, version: DatasetVersion) -> DatasetVersion:
    """Run one background task as a worker runs it: errors end in the row, not here."""
    app.loader.import_default_modules()
    app.tasks[name](version.pk)
    version.refresh_from_db()
    return version


def zipped(members: Mapping[str, bytes]) -> io.BytesIO:
    """Return a zip of the members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    out.seek(0)
    return out


def tree(source: Path) -> dict[str, bytes]:
    """Return the files of a folder by their paths."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    return {path.relative_to(source).as_posix(): path.read_bytes() for path in files}


def drawing(seed: int) -> bytes:
    """Return a small grey PNG, another for each seed."""
    pixels = np.random.default_rng(seed).integers(60, 90, (40, 60), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels, "L").save(out, "PNG")
    return out.getvalue()


def album(subjects: int = 3, each: int = 2) -> dict[str, bytes]:
    """Return originals: small pictures of some subjects, with labels; the last is sealed."""
    members = {}
    lines = ["file,subject,label,split"]
    for subject in range(1, subjects + 1):
        split = "sealed" if subject == subjects else "train"
        for number in range(1, each + 1):
            name = f"person {subject}/holiday {number}.png"
            members[name] = drawing(100 * subject + number)
            lines.append(f"{name},P{subject:04d},normal,{split}")
    members["labels.csv"] = ("\n".join(lines) + "\n").encode()
    return members


def ingest(people: Crew, members: Mapping[str, bytes]) -> DatasetVersion:
    """Upload, start and de-identify."""
    actions.take_in(by=people.steward, version=people.version, stream=zipped(members))
    actions.start(by=people.steward, version=people.version)
    return work("ingest.run", people.version)


def open_round(people: Crew, seed: int = 7) -> list[ReviewItem]:
    """Draw the sample and its pictures; return the items in order."""
    actions.start_examination(by=people.officer, version=people.version, seed=seed)
    work("ingest.pictures", people.version)
    return list(current_round(people.version))


def find_clean(people: Crew, items: list[ReviewItem]) -> None:
    """Say of every item that it is clean."""
    for item in items:
        actions.record_finding(by=people.officer, item=item, finding="clean")


def publish(people: Crew) -> DatasetVersion:
    """Examine everything that is drawn and sign."""
    find_clean(people, open_round(people))
    actions.sign(by=people.officer, version=people.version)
    people.version.refresh_from_db()
    return people.version


def contents(version: DatasetVersion) -> dict[str, bytes]:
    """Return every published file, decrypted."""
    opened = Contents(version)
    found = {}
    for entry in dataset_manifest(version).entries:
        with opened.open(entry) as stream:
            found[entry.path] = stream.read()
    return found


def object_bytes() -> dict[str, bytes]:
    """Return every stored object as it lies on the disk."""
    from django.conf import settings

    objects = Path(settings.HOME) / "objects"
    return {path.name: path.read_bytes() for path in objects.rglob("*") if path.is_file()}


def missing_objects(version: DatasetVersion) -> list[str]:
    """Return the files whose object is not there."""
    rows = StoredFile.objects.filter(version=version)
    return [row.path for row in rows if not blobs.exists(row.object_name)]
