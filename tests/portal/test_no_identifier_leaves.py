"""No planted identifier is found anywhere but in the originals.

The datasets (b), mammography phantoms, and (c), photographs, are written with identifiers in
every place that their makers know, sent through the real portal, the real sandbox and the real
program, examined and published. Then every place that anything may have leaked to is searched for
every value, in every spelling, in every layer of its bytes; and the published pictures are read
by a recogniser of text.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from PIL import Image, ImageOps
from rapidocr import RapidOCR

import bundle
from deid.spellings import is_telling
from policies.document import default_policy
from portal import keys, workplace
from portal.accounts.models import Person
from portal.audit.models import Event
from portal.catalog import queries as catalog
from portal.catalog.models import DatasetVersion, Sample
from portal.ingest import actions, program, queries
from portal.ingest.models import ReportRow, ReviewItem
from portal.ingest.sampling import current_round
from portal.jobs import actions as jobs
from portal.jobs import engine, storage
from portal.releases import actions as releases
from portal.releases import downloads
from portal.releases import queries as release_queries
from portal.releases import tasks as release_tasks
from synthetic.mammography import write_phantoms
from synthetic.photos import write_photos
from synthetic.planted import Planted
from synthetic.search import Search
from tests.portal.cast import Cast, build
from tests.portal.ingest.flow import (
    Crew,
    album,
    contents,
    crew,
    ingest,
    object_bytes,
    publish,
    tree,
    work,
    zipped,
)
from tests.portal.jobs.material import training
from tests.portal.layers import layers
from tests.portal.spellings import respelt

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.sandbox,
]

# A day or a time of day: another patient's shifted one may be the same by chance.
CLOCK = re.compile(r"(19|20)\d\d-?\d\d-?\d\d|\d{6}")


@dataclass
class Hospital:
    """Originals with what was planted in them."""

    folder: Path
    planted: list[Planted]
    files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.files = tree(self.folder)

    @property
    def searched(self) -> list[Planted]:
        """What can be looked for as text, as it was written."""
        return [each for each in self.planted if is_telling(each.value)]

    @property
    def unclocked(self) -> list[Planted]:
        """What nobody else's day or time can be."""
        return [each for each in self.searched if not CLOCK.fullmatch(each.value)]

    def pictures(self) -> dict[str, list[Planted]]:
        """The texts burned into pictures, by the file's SHA-256."""
        found: dict[str, list[Planted]] = {}
        for each in self.planted:
            if each.where == "pixels":
                digest = hashlib.sha256(self.files[each.file]).hexdigest()
                found.setdefault(digest, []).append(each)
        return found


@pytest.fixture
def tidy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Give temporary files and plaintext work places of their own, that can be searched."""
    places = [tmp_path / "tmp", tmp_path / "work"]
    for place in places:
        place.mkdir()
    monkeypatch.setenv("TMPDIR", str(places[0]))
    monkeypatch.setattr(tempfile, "tempdir", str(places[0]))
    monkeypatch.setenv("GLOVEBOX_WORK", str(places[1]))
    return [*places, Path(settings.HOME)]


@pytest.fixture
def logged(
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Return a function that gives what the portal logged, at any level, or wrote to a terminal.

    What the sealed programs wrote is among it: their logs are gone when a version is stored.
    """
    sealed: list[str] = []
    real = program.run

    def kept(job: program.Job, *, log: Path, cancel: Any = None) -> None:
        try:
            real(job, log=log, cancel=cancel)
        finally:
            sealed.append(log.read_text(errors="replace") if log.exists() else "")

    monkeypatch.setattr(program, "run", kept)
    caplog.set_level(logging.INFO)
    for name in ("glovebox", "portal", "django", "celery", "kombu"):
        caplog.set_level(logging.DEBUG, name)

    def words() -> bytes:
        written = capfd.readouterr()
        assert any('"inputs"' in each for each in sealed)
        return "\n".join([caplog.text, written.out, written.err, *sealed]).encode()

    return words


def test_phantoms(
    make_person: Callable[..., Person], tmp_path: Path, tidy: list[Path], logged: Any
) -> None:
    hospital = phantoms(tmp_path, patients=3)
    people = crew(make_person, "mammography", "mammography")
    assert send(people, hospital) == 0  # the program itself masked every text
    check_everything(hospital, people, tidy, logged())


def test_photographs(
    make_person: Callable[..., Person], tmp_path: Path, tidy: list[Path], logged: Any
) -> None:
    hospital = photographs(tmp_path, subjects=3)
    people = crew(make_person)
    send(people, hospital)
    check_everything(hospital, people, tidy, logged())


@pytest.mark.slow
def test_many_phantoms_and_a_release_trained_on_them(
    make_person: Callable[..., Person],
    make_unit: Callable[..., Any],
    tmp_path: Path,
    tidy: list[Path],
    logged: Any,
) -> None:
    hospital = phantoms(tmp_path, patients=120)
    cast = build(make_person, make_unit)
    DatasetVersion.objects.update(state="draft")
    cast.version.refresh_from_db()
    people = Crew(cast.steward, cast.officer, cast.version)
    work("catalog.make_sample", cast.version.dataset)  # type: ignore[arg-type]
    send(people, hospital)
    path = release(cast, tmp_path)
    check_everything(hospital, people, tidy, logged())
    assert bundle.verify(path, keys.public_keys("release").values()).held
    assert found_in(Search(respelt(hospital.unclocked)), path.read_bytes()) == set()


@pytest.mark.slow
def test_many_photographs(
    make_person: Callable[..., Person], tmp_path: Path, tidy: list[Path], logged: Any
) -> None:
    hospital = photographs(tmp_path, subjects=27)
    people = crew(make_person)
    send(people, hospital)
    check_everything(hospital, people, tidy, logged())


def phantoms(tmp_path: Path, patients: int) -> Hospital:
    folder = tmp_path / "hospital"
    return Hospital(folder, write_phantoms(folder, patients=patients, seed=23, identifiers=True))


def photographs(tmp_path: Path, subjects: int) -> Hospital:
    folder = tmp_path / "hospital"
    return Hospital(folder, write_photos(folder, 23, identifiers=True, subjects=subjects))


def send(people: Crew, hospital: Hospital) -> int:
    """Upload, de-identify, examine until it is clean, publish; return what the officer marked."""
    work("catalog.make_sample", people.version.dataset)  # type: ignore[arg-type]
    actions.take_in(by=people.steward, version=people.version, stream=zipped(hospital.files))
    actions.start(by=people.steward, version=people.version)
    version = work("ingest.run", people.version)
    assert version.state == "de_identified", version.reason
    marked = 0
    for seed in range(4):
        actions.start_examination(by=people.officer, version=version, seed=seed)
        work("ingest.pictures", version)
        missed = 0
        for item in current_round(version):
            missed += examine(people.officer, item, hospital)
        actions.sign(by=people.officer, version=version)
        version.refresh_from_db()
        if version.state == "published":
            return marked
        marked += missed
        work("ingest.apply_boxes", version)
    pytest.fail("the officer found misses in round after round")


def examine(officer: Person, item: ReviewItem, hospital: Hospital) -> int:
    """Look at a file as the officer does, knowing where its texts are; mark those still legible."""
    texts = hospital.pictures().get(item.row.source, [])
    assert not item.unseen, item.unseen
    before, after = (seen(officer, item, side) for side in ("before", "after"))
    boxes = []
    for text in texts:
        assert text.box is not None
        if legible(before, after, text.box):
            x, y, width, height = text.box
            boxes.append({"x": x - 2, "y": y - 2, "width": width + 4, "height": height + 4})
    finding = "missed" if boxes else "clean"
    actions.record_finding(by=officer, item=item, finding=finding, boxes=boxes)
    return len(boxes)


def seen(officer: Person, item: ReviewItem, side: str) -> np.ndarray[Any, Any]:
    with queries.open_picture(by=officer, item=item, side=side) as stream:
        return np.asarray(Image.open(io.BytesIO(stream.read())).convert("L"), dtype=float)


def legible(
    before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], box: tuple[int, int, int, int]
) -> bool:
    """Whether anything of what stood in a box can be told from its surroundings.

    The ink is what differs much from the box's own ground; where it was, the masked picture must
    be the same as where it was not.
    """
    x, y, width, height = box
    old, new = (each[y : y + height, x : x + width] for each in (before, after))
    if before.shape != after.shape:
        return True
    ink = np.abs(old - np.median(old)) > 40
    if not ink.any() or ink.all():
        return False
    contrast = abs(float(new[ink].mean()) - float(new[~ink].mean()))
    return contrast > 4 or float(np.abs(new - new.mean()).mean()) > 4


def release(cast: Cast, tmp_path: Path) -> Path:
    """Train on the published version and let the result leave, by every step of the real path."""
    job = jobs.submit(by=cast.applicant, grant=cast.granted(), stream=training())
    engine.advance(job.pk)
    job.refresh_from_db()
    assert job.state == "finished", (job.reason, job.message, storage.read_log(job))
    proposed = releases.propose(by=cast.applicant, job=job)
    for reviewer in cast.reviewers[:2]:
        releases.cast_vote(
            by=reviewer,
            release=proposed,
            choice="approve",
            bound_to=release_queries.digest_of(proposed),
            comment="Within the rules.",
            looked_at=default_policy().review.checklist,
        )
    release_tasks.build(proposed.pk)
    proposed.refresh_from_db()
    assert proposed.state == "released", (proposed.state, proposed.reason)
    path = tmp_path / "bundle.zip"
    with downloads.open_bundle(proposed) as stream:
        path.write_bytes(stream.read())
    return path


def check_everything(hospital: Hospital, people: Crew, places: list[Path], logs: bytes) -> None:
    version = people.version
    check_planted(hospital, Search(hospital.searched))
    check_published(hospital, version)
    check_legible(hospital, version)
    assert leaks(hospital, people, places, logs) == {}
    assert not list(workplace.root().iterdir())


def leaks(hospital: Hospital, people: Crew, places: list[Path], logs: bytes) -> dict[str, set[str]]:
    """What of the planted stands anywhere but in the published files, by the place."""
    version = people.version
    search, unclocked = Search(respelt(hospital.searched)), Search(respelt(hospital.unclocked))
    files = database_files()
    assert files and sum(map(len, files)) > 1 << 16
    found = {
        "logs": found_in(search, logs),
        "database": set().union(*(found_in(search, value) for value in columns())),
        # Free pages and the log of writes hold what rows do not any more.
        "database file": set().union(*(found_in(search, data) for data in files)),
        "sample": found_in(unclocked, sample(version)),
        "objects": set().union(*(search.found(data) for data in object_bytes().values())),
        "pictures for the officer": found_in(unclocked, drawn(people)),
        "pages": set().union(*(found_in(unclocked, page) for page in pages(version))),
        **{f"left in {place.name}": left_in(place, search) for place in places},
    }
    return {place: values for place, values in found.items() if values}


def check_planted(hospital: Hospital, search: Search) -> None:
    """A search that finds nothing is worth what it finds in the originals."""
    there: dict[str, set[str]] = {}
    for name, data in hospital.files.items():
        there[name] = found_in(search, data) | found_in(search, name.encode())
    pictures = {texts[0].file for texts in hospital.pictures().values()}
    shown = {name: upright(data) for name, data in hospital.files.items() if name in pictures}
    assert len({each.where for each in hospital.planted}) > 10
    for each in hospital.planted:
        if each.where == "pixels":
            x, y, width, height = each.box or (0, 0, 0, 0)
            assert np.ptp(shown[each.file][y : y + height, x : x + width]) > 60, each
        elif each.where != "face" and is_telling(each.value):
            assert each.value in there[each.file], each


def upright(data: bytes) -> np.ndarray[Any, Any]:
    """Return a picture as grey values from 0 to 255, as a viewer shows it."""
    if data[128:132] == b"DICM":
        pixels = pydicom.dcmread(io.BytesIO(data)).pixel_array.astype(float)
        return pixels * (255 / max(1.0, float(pixels.max())))
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert image is not None
    return np.asarray(image.convert("L"), dtype=float)


def check_published(hospital: Hospital, version: DatasetVersion) -> None:
    published = contents(version)
    rows = {row.source: row for row in ReportRow.objects.filter(intake__version=version)}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in hospital.files.items()}
    assert set(rows) == set(digests.values())
    assert {row.status for row in rows.values()} == {"written"}
    anywhere = Search(respelt(hospital.unclocked))
    leaks = {
        path: values
        for path, data in published.items()
        if (values := found_in(anywhere, data) | found_in(anywhere, path.encode()))
    }
    assert leaks == {}
    # Days and times are looked for in the files of whoever they belong to.
    for name in hospital.files:
        own = [each for each in hospital.searched if each.file == name]
        target = rows[digests[name]].target
        if own and target in published and not name.endswith((".csv", ".json")):
            assert found_in(Search(respelt(own)), published[target]) == set(), name
    for digest, texts in hospital.pictures().items():
        before = upright(next(d for n, d in hospital.files.items() if digests[n] == digest))
        after = upright(published[rows[digest].target])
        for text in texts:
            assert text.box is not None
            assert not legible(before, after, text.box), text
    pictures = [path for path in published if not path.endswith((".csv", ".json", ".toml"))]
    for path in pictures:
        data = published[path]
        if not path.endswith(".dcm"):
            image = Image.open(io.BytesIO(data))
            assert not image.getexif() or path.endswith(".tif"), path
            assert not set(image.info) & {"exif", "xmp", "comment", "photoshop", "mp", "mpoffset"}
            assert data.count(b"\xff\xd8\xff") <= 1, path  # no thumbnail, no second picture
    labels = list(csv.DictReader(io.StringIO(published["labels.csv"].decode())))
    assert sorted(row["file"] for row in labels) == sorted(pictures)


def check_legible(hospital: Hospital, version: DatasetVersion) -> None:
    """A recogniser, which shares nothing with what masked them, reads no text in the pictures."""
    reader = RapidOCR()
    published = contents(version)
    sources = {hashlib.sha256(data).hexdigest(): data for data in hospital.files.values()}
    texts = hospital.pictures()
    rows = ReportRow.objects.filter(intake__version=version, source__in=texts)
    seen_before = 0
    for row in rows:
        parts = {part for text in texts[row.source] for part in recognisable(text.value)}
        before = read(reader, sources[row.source])
        seen_before += any(part in before for part in parts)
        after = read(reader, published[row.target])
        assert {part for part in parts if part in after} == set(), (row.target, after)
    assert not texts or seen_before  # the recogniser can read what was planted


def recognisable(text: str) -> set[str]:
    """The parts of a text that a recogniser gives: numbers, days and Latin names."""
    return {part.lower() for part in re.split(r"[\s^_]+", text) if part.isascii() and len(part) > 3}


def read(reader: RapidOCR, data: bytes) -> str:
    """All that a recogniser reads in a picture, in lower case."""
    grey = upright(data).clip(0, 255).astype(np.uint8)
    answer = reader(np.stack([grey] * 3, axis=2))
    return " ".join(answer.txts or ()).lower()


def drawn(people: Crew) -> bytes:
    """The bytes of all pictures after cleaning, as the officer's page shows them."""
    rows = ReviewItem.objects.filter(version=people.version).exclude(after_object="")
    streams = []
    for item in rows:
        with queries.open_picture(by=people.officer, item=item, side="after") as stream:
            streams.append(stream.read())
    assert streams
    return b"\n".join(streams)


def pages(version: DatasetVersion) -> Iterator[bytes]:
    """What the catalogue says to anybody, as page and as data."""
    slug = version.dataset.slug
    for path in (f"/datasets/{slug}/", f"/datasets/{slug}/croissant.json", "/datasets/"):
        answer = Client().get(path)
        assert answer.status_code == 200, path
        yield b"".join(answer) if answer.streaming else answer.content


def found_in(search: Search, data: bytes) -> set[str]:
    """The values in any layer of some bytes."""
    found: set[str] = set()
    for layer in layers(data):
        found |= search.found(layer)
    return found


def columns() -> Iterator[bytes]:
    """Give every value of every table: as text, or as the bytes it is."""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            for row in cursor.fetchall():
                yield "\n".join(
                    value.decode("latin-1") if isinstance(value, bytes) else str(value)
                    for value in row
                ).encode()
    assert Event.objects.exists()


def database_files() -> list[bytes]:
    path = Path(settings.HOME) / "portal.sqlite3"
    files = [path.with_name(path.name + end) for end in ("", "-wal", "-shm", "-journal")]
    return [each.read_bytes() for each in files if each.exists()]


def sample(version: DatasetVersion) -> bytes:
    assert Sample.objects.filter(dataset=version.dataset).exists()
    version.dataset.refresh_from_db()
    with catalog.open_sample(version.dataset) as stream:
        return stream.read()


def left_in(place: Path, search: Search) -> set[str]:
    """The values in names and contents of all files below a folder."""
    found: set[str] = set()
    for path in place.rglob("*"):
        found |= search.found(str(path.relative_to(place)).encode())
        if path.is_file() and path.suffix != ".sqlite3":
            found |= found_in(search, path.read_bytes()) if _plain(path) else set()
    return found


def test_the_search_finds_what_is_put_into_any_place(
    make_person: Callable[..., Person], tmp_path: Path, tidy: list[Path], logged: Any
) -> None:
    """A search that finds nothing must be one that would have found it."""
    people = crew(make_person)
    members = album(subjects=2, each=1)
    work("catalog.make_sample", people.version.dataset)  # type: ignore[arg-type]
    ingest(people, members)
    version = publish(people)
    folder = tmp_path / "hospital"
    for name, data in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    values = ["이민연", "Hwangbo^Myunghee", "010-6722-4291", "19770315"]
    hospital = Hospital(folder, [Planted(value, "anywhere", "labels.csv") for value in values])
    assert leaks(hospital, people, tidy, logged()) == {}
    logging.getLogger("glovebox.ingest").info("read %s", "Myunghee Hwangbo")
    (tidy[0] / "left.gz").write_bytes(gzip.compress("이민연".encode("cp949")))
    (tidy[1] / "+82 10 6722 4291").mkdir()
    version.reason = "stopped at 1977. 3. 15."
    version.save(update_fields=["reason"])
    version.dataset.description = "Of 이민연"
    version.dataset.save(update_fields=["description"])
    found = leaks(hospital, people, tidy, logged())
    assert {"logs", "database", "database file", "pages", "left in tmp", "left in work"} <= set(
        found
    )
    # A row that is gone is still in the file, until its page is written anew.
    version.dataset.description = "Of nobody"
    version.dataset.save(update_fields=["description"])
    assert "이민연" in leaks(hospital, people, tidy, b"")["database file"]
    shutil.rmtree(tidy[1] / "+82 10 6722 4291")


def _plain(path: Path) -> bool:
    """Encrypted objects have been searched as they are; there is nothing to unpack in noise."""
    return "objects" not in path.parts
