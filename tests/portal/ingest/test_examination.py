"""A miss sends a version back: boxes are masked, the unmaskable is withdrawn, tables follow."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from portal.audit.models import Event
from portal.catalog.contents import Contents, dataset_manifest
from portal.catalog.models import StoredFile
from portal.ingest import actions, mending, queries
from portal.ingest.models import Intake, ReportRow, ReviewItem, Signature
from portal.ingest.sampling import report_digest
from portal.ingest.tables import without
from sandbox_runner.sdk.glovebox.datasets import open_dataset
from sandbox_runner.stage import stage
from tests.portal.ingest.flow import (
    Crew,
    album,
    contents,
    find_clean,
    ingest,
    missing_objects,
    object_bytes,
    open_round,
    work,
)

database = pytest.mark.django_db(transaction=True)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


@database
@pytest.mark.sandbox
def test_boxes_are_masked_and_what_has_none_is_withdrawn_everywhere(
    people: Crew, tmp_path: Path, own_work: Path
) -> None:
    members = album(subjects=3, each=2)
    members["clinical.csv"] = b"grp,recvid\nnormal,P0001\nnormal,P0002\nnormal,P0003\n"
    for number in (1, 2):
        name = f"person 2/holiday {number}.png"
        note = [{"case_id": "P0002", "file": name, "lesion_id": 1, "contour": [[1, 2]]}]
        members[f"annotations/{number}.json"] = json.dumps(note).encode()
    version = ingest(people, members)
    before, signed = contents(version), version.manifest_sha256
    labels = list(csv.DictReader(io.StringIO(before["labels.csv"].decode())))
    split_of = {row["file"]: row["split"] for row in labels}
    by_subject: dict[str, list[str]] = {}
    for row in labels:
        by_subject.setdefault(row["subject"], []).append(row["file"])
    annotated = {
        entry.subject
        for entry in dataset_manifest(version).entries
        if entry.path.startswith("annotations/")
    }
    [second] = annotated
    [first] = [subject for subject in by_subject if subject != second
               and split_of[by_subject[subject][0]] == "train"]  # fmt: skip
    masked, gone = by_subject[first][0], set(by_subject[second])
    items = {item.row.target: item for item in open_round(people)}
    assert set(items) == set(split_of)
    for target, item in items.items():
        if target == masked:
            box = {"x": 10, "y": 5, "width": 20, "height": 10}
            actions.record_finding(by=people.officer, item=item, finding="missed", boxes=[box])
        elif target in gone:
            actions.record_finding(by=people.officer, item=item, finding="missed", note="a face")
        else:
            actions.record_finding(by=people.officer, item=item, finding="clean")
    failed = actions.sign(by=people.officer, version=version)
    assert (failed.passed, failed.missed, failed.manifest_sha256) == (False, 3, signed)
    old = set(StoredFile.objects.filter(path__in=[masked, *gone]).values_list("object_name"))
    version = work("ingest.apply_boxes", people.version)
    assert (version.state, version.intake.pending_boxes) == ("de_identified", False)

    after = contents(version)
    assert np.ptp(pixels(after[masked])[5:15, 10:30]) == 0
    outside = np.ones((40, 60), bool)
    outside[5:15, 10:30] = False
    assert (pixels(after[masked])[outside] == pixels(before[masked])[outside]).all()
    notes = {name for name in before if name.startswith("annotations/")}
    assert set(before) - set(after) == gone | notes
    kept = list(csv.DictReader(io.StringIO(after["labels.csv"].decode())))
    assert {row["file"] for row in kept} == set(split_of) - gone
    # A subject without any file is gone from every table, and another's rows stay.
    assert second.encode() not in b"".join(after.values())
    assert first.encode() in after["clinical.csv"]
    assert not {name for (name,) in old} & set(object_bytes())
    assert not missing_objects(version)
    rows = ReportRow.objects.filter(intake__version=version, status="quarantined")
    assert {(row.reason, row.target) for row in rows} == {("marked by the security officer", "")}
    assert rows.count() == version.intake.counts["quarantined"] == version.card["quarantined"] == 2
    assert (version.subjects, version.files, version.training_samples) == (2, len(after), 2)
    assert version.manifest_sha256 == dataset_manifest(version).digest() != signed
    assert not list(own_work.iterdir())

    # What is left stages, and the package beside the user's code reads all of it.
    staged = stage(dataset_manifest(version), Contents(version).open, tmp_path / "staged")
    images, _labels, subjects = open_dataset(staged, "photos").arrays("train", size=(8, 8))
    assert len(images) == 2
    assert set(subjects) == {first}

    # A new sample is drawn; the old signature stays bound to what it was given for.
    again = open_round(people, seed=8)
    assert {item.round for item in again} == {2}
    assert {item.row.target for item in again} == set(split_of) - gone
    find_clean(people, again)
    passed = actions.sign(by=people.officer, version=version)
    assert passed.passed
    assert passed.report_sha256 == report_digest(version.intake)
    assert len(set(Signature.objects.values_list("manifest_sha256", flat=True))) == 2
    assert len(set(Signature.objects.values_list("report_sha256", flat=True))) == 2
    assert Event.objects.get(action="version.boxes_applied").details == {
        "masked": 1,
        "withdrawn": 2,
        "uncovered": 0,
        "marked": 3,
    }


@database
@pytest.mark.sandbox
def test_pictures_are_for_the_officer_recorded_and_destroyed_after_their_time(
    people: Crew, own_work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from django.utils import timezone

    from portal.ingest.models import Destruction

    version = ingest(people, album(subjects=1, each=1))
    [item] = open_round(people)
    for side in ("before", "after"):
        with queries.open_picture(by=people.officer, item=item, side=side) as stream:
            assert pixels(stream.read()).shape == (item.height, item.width) == (40, 60)
    looked = Event.objects.filter(action="qa.view").values_list("actor", "details__side")
    assert list(looked) == [(people.officer.email, "before"), (people.officer.email, "after")]
    find_clean(people, [item])
    actions.sign(by=people.officer, version=version)
    kept = {item.before_object, item.after_object, item.header_object}
    kept.add(version.intake.object_name)
    assert kept <= set(object_bytes())
    work("ingest.destroy", version)
    assert kept <= set(object_bytes())
    Signature.objects.update(at=timezone.now() - timedelta(days=8))
    Intake.objects.update(destroy_after=timezone.now())
    work("ingest.destroy", version)
    work("ingest.destroy", version)
    assert not kept & set(object_bytes())
    assert sorted(Destruction.objects.values_list("what", "count")) == [
        ("originals", 1),
        ("pictures", 3),
    ]
    item.refresh_from_db()
    assert item.wrapped_key is None
    assert bytes(Intake.objects.get().sealed_key or b"") == b""
    # The published files are as they were.
    assert len(contents(version)) == 3


@database
@pytest.mark.sandbox
def test_mending_cut_off_before_its_rows_is_done_again(
    people: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = ingest(people, album(subjects=2, each=1))
    before = contents(version)
    items = open_round(people)
    box = {"x": 0, "y": 0, "width": 9, "height": 9}
    for item in items:
        actions.record_finding(by=people.officer, item=item, finding="missed", boxes=[box])
    actions.sign(by=people.officer, version=version)

    def broken(*_args: object, **_more: object) -> None:
        raise RuntimeError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(mending, "record", broken)
        version = work("ingest.apply_boxes", version)
    assert version.intake.pending_boxes
    assert contents(version) == before
    version = work("ingest.apply_boxes", version)
    version.intake.refresh_from_db()
    assert not version.intake.pending_boxes
    assert all(np.ptp(pixels(contents(version)[item.row.target])[:9, :9]) == 0 for item in items)
    assert ReviewItem.objects.filter(round=2).count() == 0


def test_a_table_loses_the_rows_that_name_what_is_gone_and_nothing_else() -> None:
    table = b"file,subject,label\nA/1.png,A,x\nA/2.png,A,x\nB/1.png,B,x\n"
    assert without("labels.csv", table, {"A/1.png"}) == (
        b"file,subject,label\nA/2.png,A,x\nB/1.png,B,x\n"
    )
    assert without("labels.csv", table, {"A"}) == b"file,subject,label\nB/1.png,B,x\n"
    assert without("labels.csv", table, {"C"}) is table
    document = json.dumps(
        {"items": [{"file": "A/1.png", "contour": [[1, None]]}, {"file": "B/1.png"}], "n": [None]}
    ).encode()
    left = without("annotations/x.json", document, {"A/1.png"})
    assert left is not None
    assert json.loads(left) == {"items": [{"file": "B/1.png"}], "n": [None]}
    assert without("annotations/x.json", b'[{"file": "A/1.png"}]', {"A/1.png"}) is None
    assert without("annotations/x.json", b'{"file": "A/1.png"}', {"A/1.png"}) is None
    assert without("annotations/x.json", document, {"C"}) is document
