"""From originals to a published version, through the real sandbox and the real program."""

from __future__ import annotations

import csv
import hashlib
import io
import stat
import zipfile
from pathlib import Path

import pytest
from django.utils import timezone

from portal.audit.models import Event
from portal.catalog.contents import dataset_manifest
from portal.catalog.models import StoredFile
from portal.ingest import actions, queries
from portal.ingest.models import Intake, ReportRow, Signature
from portal.ingest.sampling import report_digest
from portal.leases import take
from tests.portal.ingest.flow import (
    Crew,
    album,
    contents,
    drawing,
    find_clean,
    ingest,
    missing_objects,
    open_round,
    publish,
    work,
    zipped,
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.sandbox,
]


def test_a_version_from_upload_to_the_catalogue(people: Crew, own_work: Path) -> None:
    members = album()
    version = ingest(people, members)
    assert (version.state, version.reason) == ("de_identified", "waiting for the security officer")
    rows = list(ReportRow.objects.filter(intake__version=version))
    assert {row.source for row in rows} == {
        hashlib.sha256(content).hexdigest() for content in members.values()
    }
    assert {row.status for row in rows} == {"written"}
    assert not list(own_work.iterdir())
    version = publish(people)
    assert version.state == "published"
    published = contents(version)
    labels = list(csv.DictReader(io.StringIO(published["labels.csv"].decode())))
    assert {row["file"] for row in labels} == {name for name in published if name.endswith(".png")}
    assert len(labels) == 6
    assert (version.files, version.subjects, version.training_samples) == (8, 3, 4)
    assert version.card["files_by_split"] == {"sealed": 2, "train": 4}
    assert version.manifest_sha256 == dataset_manifest(version).digest()
    signature = Signature.objects.get(version=version)
    assert signature.manifest_sha256 == version.manifest_sha256
    assert signature.report_sha256 == report_digest(version.intake)
    assert (signature.sampled, signature.population, signature.upper_bound) == (6, 6, 0.0)
    did = list(Event.objects.filter(about_kind="catalog.datasetversion").order_by("id"))
    assert [event.action for event in did if not event.action.startswith("qa.finding")] == [
        "version.create",
        "originals.receive",
        "version.ingest",
        "version.de_identified",
        "qa.start",
        "qa.sign",
    ]
    assert not list(own_work.iterdir())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_bad_and_hostile_members_are_held_back_with_a_reason_and_the_batch_goes_on(
    people: Crew,
) -> None:
    good = album(subjects=2, each=1)
    bad = {
        "empty.png": (b"", "empty"),
        "cut.png": (drawing(1)[:120], ""),
        "notes.txt": (b"not an image at all", "not-dicom"),
        "broken.dcm": (b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL", ""),
        "scan.exe": (b"MZ" + bytes(500), "not-dicom"),
        "../../outside.png": (drawing(2), "path-outside"),
        "/etc/absolute.png": (drawing(3), "path-outside"),
        "bomb.dcm": (b"\0" * 128 + b"DICM" + bytes(100 << 20), "too-large"),
        "inner.zip": (b"PK\x03\x04" + bytes(80), "nested-zip"),
    }
    out = zipped({**good, **{name: content for name, (content, _why) in bad.items()}})
    with zipfile.ZipFile(out, "a") as archive:
        for name, kind in (("link.png", stat.S_IFLNK), ("device.png", stat.S_IFCHR)):
            member = zipfile.ZipInfo(name)
            member.external_attr = (kind | 0o777) << 16
            archive.writestr(member, b"/etc/passwd")
        archive.writestr("empty.png", drawing(4))
    out.seek(0)
    actions.take_in(by=people.steward, version=people.version, stream=out)
    actions.start(by=people.steward, version=people.version)
    version = work("ingest.run", people.version)
    assert version.state == "de_identified", version.reason
    rows = list(ReportRow.objects.filter(intake__version=version))
    assert len(rows) == len(good) + len(bad) + 3
    held = [row for row in rows if row.status == "quarantined"]
    assert len(held) == len(bad) + 3
    assert all(row.reason and not row.target for row in held)
    reasons = {row.source: row.reason for row in held}
    for content, why in bad.values():
        digest = hashlib.sha256(content).hexdigest()
        assert reasons.get(digest, why) == why or not why
    assert {why for _content, why in bad.values() if why} <= set(reasons.values()) | {"empty"}
    assert sorted(row.reason for row in held).count("link") == 2
    assert "doubled-member" in reasons.values()
    assert version.intake.counts == {"written": len(good), "quarantined": len(held)}
    assert version.card["quarantined"] == len(held)
    assert len([name for name in contents(version) if name.endswith(".png")]) == 2


def test_a_zip_that_is_none_goes_back_to_the_steward_who_may_send_another(
    people: Crew, own_work: Path
) -> None:
    actions.take_in(
        by=people.steward, version=people.version, stream=io.BytesIO(b"PK\x03\x04" + bytes(5000))
    )
    actions.start(by=people.steward, version=people.version)
    version = work("ingest.run", people.version)
    assert version.state == "draft"
    assert "no readable zip" in version.reason
    assert not list(own_work.iterdir())
    version = ingest(people, album(subjects=1, each=1))
    assert version.state == "de_identified"
    assert len(contents(version)) == 3


def test_other_originals_after_a_failure_are_those_that_are_cleaned(people: Crew) -> None:
    """What an earlier attempt decrypted must never be taken for the new upload."""
    version = ingest(people, {"a.txt": b"nothing here is an image"})
    assert version.state == "draft"
    assert version.reason.startswith("Nothing could be published: all 1 files were held back")
    assert ReportRow.objects.get(intake__version=version).status == "quarantined"
    members = album(subjects=1, each=2)
    version = ingest(people, members)
    sources = ReportRow.objects.filter(intake__version=version).values_list("source", flat=True)
    assert set(sources) == {hashlib.sha256(content).hexdigest() for content in members.values()}


def test_the_same_picture_sent_twice_is_two_rows_and_one_file(people: Crew) -> None:
    version = ingest(people, {"a.png": drawing(1), "b.png": drawing(1), "c.png": drawing(2)})
    rows = ReportRow.objects.filter(intake__version=version)
    assert rows.count() == 3
    assert len([name for name in contents(version) if name.endswith(".png")]) == 2
    items = open_round(people)
    assert len(items) == 2
    find_clean(people, items)
    assert actions.sign(by=people.officer, version=version).population == 2


def test_annotations_belong_to_their_subject_so_sealed_ones_stay_sealed(people: Crew) -> None:
    members = album(subjects=2, each=1)
    for subject in (1, 2):
        members[f"annotations/{subject}.json"] = (
            f'[{{"case_id": "P{subject:04d}", "file": "person {subject}/holiday 1.png",'
            f' "lesion_id": 1, "contour": [[1, 2], [3, 4]]}}]'
        ).encode()
    version = ingest(people, members)
    rows = StoredFile.objects.filter(version=version).select_related("subject")
    by_path = {row.path: row for row in rows}
    sealed = {row.subject_id for row in rows if row.split == "sealed"}
    notes = [row for row in by_path.values() if row.path.startswith("annotations/")]
    assert len(notes) == 2
    assert len({row.subject_id for row in notes} - {None}) == 2
    assert len(sealed & {row.subject_id for row in notes}) == 1


def test_two_workers_on_one_intake_and_a_doubled_message_make_one_version(people: Crew) -> None:
    actions.take_in(
        by=people.steward, version=people.version, stream=zipped(album(subjects=1, each=1))
    )
    actions.start(by=people.steward, version=people.version)
    assert take(Intake, people.version.intake.pk, owner="another", seconds=60)
    assert work("ingest.run", people.version).state == "ingesting"
    Intake.objects.update(lease_owner="", lease_until=timezone.now())
    assert work("ingest.run", people.version).state == "de_identified"
    before = list(StoredFile.objects.order_by("pk").values_list("pk", "object_name"))
    assert work("ingest.run", people.version).state == "de_identified"
    assert list(StoredFile.objects.order_by("pk").values_list("pk", "object_name")) == before
    assert Event.objects.filter(action="version.de_identified").count() == 1


def test_progress_counts_files(people: Crew) -> None:
    assert queries.progress(people.version) == {
        "received": False,
        "done": 0,
        "total": 0,
        "counts": {},
    }
    version = ingest(people, album(subjects=1, each=2))
    shown = queries.progress(version)
    assert (shown["done"], shown["total"], shown["counts"]) == (3, 3, {"written": 3})
    assert not missing_objects(version)
