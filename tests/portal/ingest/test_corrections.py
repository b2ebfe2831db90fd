"""DICOM through the officer's hands: headers and frames seen, boxes spread or taken away."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont

from portal import blobs
from portal.audit.models import Event
from portal.catalog.models import DatasetVersion
from portal.ingest import actions, handing_out, queries
from portal.ingest.models import Intake, ReportRow, ReviewItem
from synthetic import dicom_files
from tests.portal.ingest.flow import Crew, contents, ingest, object_bytes, open_round, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sandbox]
SIDE = 256


def image(number: int, *, model: str = "SELENIA", frames: int = 1, words: str = "") -> bytes:
    """One image of a patient, of a device, with or without words in its upper left corner."""
    data = dicom_files.base()
    data.SOPInstanceUID = f"{dicom_files.PREFIX}.9.{number}"
    data.ManufacturerModelName = model
    data.AccessionNumber = f"ACC{number:05}"
    data.Rows = data.Columns = SIDE
    pixels = np.random.default_rng(number).integers(300, 340, (frames, SIDE, SIDE))
    if words:
        page = Image.new("L", (SIDE, SIDE))
        font = ImageFont.load_default(size=32)
        ImageDraw.Draw(page).text((20, 20), words, fill=255, font=font)
        pixels[:, np.asarray(page) > 100] = 3500
    if frames > 1:
        data.NumberOfFrames = frames
    data.PixelData = pixels.astype("<u2").tobytes()
    return dicom_files.written(data)


def pixels_of(version: DatasetVersion, target: str) -> np.ndarray:
    return pydicom.dcmread(io.BytesIO(contents(version)[target])).pixel_array


def of_original(items: list[ReviewItem], originals: dict[str, bytes]) -> dict[str, ReviewItem]:
    import hashlib

    names = {hashlib.sha256(data).hexdigest(): name for name, data in originals.items()}
    return {names[item.row.source]: item for item in items}


def test_a_miss_is_masked_on_that_device_and_a_wrong_box_is_taken_away(
    people: Crew, own_work: Path
) -> None:
    originals = {
        "a.dcm": image(1, words="NAME 123"),
        "b.dcm": image(2),
        "c.dcm": image(3),
        "d.dcm": image(4, model="ANOTHER"),
    }
    version = ingest(people, originals)
    items = of_original(open_round(people), originals)
    [wrong] = [
        {"kind": kind, **{side: box[side] for side in ("x", "y", "width", "height")}}
        for kind, found in items["a.dcm"].row.boxes.items()
        for box in found
    ]
    before = {name: pixels_of(version, item.row.target) for name, item in items.items()}
    truth = {
        name: pydicom.dcmread(io.BytesIO(data)).pixel_array for name, data in originals.items()
    }
    assert not (before["a.dcm"] == truth["a.dcm"]).all()
    missed = {"x": 200, "y": 210, "width": 30, "height": 20}
    actions.record_finding(by=people.officer, item=items["a.dcm"], finding="wrong", wrong=[wrong])
    actions.record_finding(by=people.officer, item=items["b.dcm"], finding="missed", boxes=[missed])
    for name in ("c.dcm", "d.dcm"):
        actions.record_finding(by=people.officer, item=items[name], finding="clean")
    actions.sign(by=people.officer, version=version)
    version = work("ingest.apply_boxes", version)
    assert version.state == "de_identified", version.reason
    after = {name: pixels_of(version, item.row.target) for name, item in items.items()}
    drawn = np.zeros((SIDE, SIDE), bool)
    drawn[210:230, 200:230] = True
    for name in ("a.dcm", "b.dcm", "c.dcm"):
        assert np.unique(after[name][drawn]).size == 1, name
    # The wrong box is gone, the drawn one is there; all else is as the original has it.
    assert (after["a.dcm"][~drawn] == truth["a.dcm"][~drawn]).all()
    for name in ("b.dcm", "c.dcm"):
        assert (after[name][~drawn] == before[name][~drawn]).all()
    assert (after["d.dcm"] == before["d.dcm"]).all()
    row = ReportRow.objects.get(pk=items["a.dcm"].row_id)
    assert row.boxes == {"officer": [missed]}
    assert row.facts["review"] == "a box was taken away"
    details = Event.objects.get(action="version.boxes_applied").details
    assert details == {"masked": 3, "withdrawn": 0, "uncovered": 1, "marked": 1}
    assert not list(own_work.iterdir())

    # Another look: what was uncovered is in the next round, with the boxes as they are now.
    again = of_original(open_round(people, seed=9), originals)
    assert again["a.dcm"].row.boxes == {"officer": [missed]}
    box = {"kind": "officer", **missed}
    actions.record_finding(by=people.officer, item=again["a.dcm"], finding="wrong", wrong=[box])
    for name in ("b.dcm", "c.dcm", "d.dcm"):
        actions.record_finding(by=people.officer, item=again[name], finding="clean")
    actions.sign(by=people.officer, version=version, correct=True)
    version = work("ingest.apply_boxes", version)
    assert (pixels_of(version, again["a.dcm"].row.target) == truth["a.dcm"]).all()


def test_without_originals_a_wrong_box_stays_and_nothing_is_lost(people: Crew) -> None:
    originals = {"a.dcm": image(1, words="NAME 123"), "b.dcm": image(2)}
    version = ingest(people, originals)
    items = of_original(open_round(people), originals)
    [(kind, [found])] = items["a.dcm"].row.boxes.items()
    actions.record_finding(
        by=people.officer, item=items["a.dcm"], finding="wrong", wrong=[{**found, "kind": kind}]
    )
    actions.record_finding(by=people.officer, item=items["b.dcm"], finding="clean")
    actions.sign(by=people.officer, version=version, correct=True)
    from django.utils import timezone

    Intake.objects.update(destroyed_at=timezone.now(), sealed_key=None)
    before = contents(version)
    version = work("ingest.apply_boxes", version)
    assert (version.state, version.intake.pending_boxes) == ("de_identified", False)
    assert contents(version) == before
    # Nobody can draw what it was before: the next round says so.
    open_round(people, seed=3)
    assert set(ReviewItem.objects.filter(round=2).values_list("unseen", flat=True)) == {
        "original-destroyed"
    }


def test_the_header_before_is_for_the_officer_alone_and_never_lies_in_clear(
    people: Crew, api, make_person
) -> None:
    originals = {"a.dcm": image(1), "b.dcm": image(2, frames=40)}
    ingest(people, originals)
    items = of_original(open_round(people), originals)
    item = items["a.dcm"]
    handing_out.take(by=people.officer, item=item)
    found = {each["place"]: each for each in queries.open_header(by=people.officer, item=item)}
    name = found["(0010,0010)"]
    assert (name["before"], name["keyword"]) == (dicom_files.NAME, "PatientName")
    assert name["after"] != dicom_files.NAME
    assert found["(0008,0050)"]["before"] == "ACC00001"
    assert "(0008,0060)" not in found  # the modality stayed
    looked = Event.objects.filter(action="qa.view", details__side="header")
    assert looked.count() == 1
    # Neither the database nor the objects hold the name; only the key opens it.
    from django.conf import settings
    from django.db import connection

    if connection.vendor == "sqlite":
        stored = Path(str(settings.DATABASES["default"]["NAME"]))
        lying = b"".join(
            path.read_bytes() for path in stored.parent.glob(stored.name + "*") if path.is_file()
        )
        assert item.row.source.encode() in lying  # it is the file that is in use
        assert dicom_files.NAME.encode() not in lying
        assert b"ACC00001" not in lying
    assert not any(dicom_files.NAME.encode() in data for data in object_bytes().values())
    assert item.header_object in object_bytes()

    # The officer steps through frames; what is not drawn is refused, not guessed.
    many = items["b.dcm"]
    assert many.frame_count == 40
    assert (len(many.frames), min(map(int, many.frames)), max(map(int, many.frames))) == (32, 1, 40)
    client = api(people.officer)
    base = f"/api/v1/datasets/photos/versions/1/examination/{many.pk}"
    answer = client.get(f"{base}/after.png?frame=40")
    picture = Image.open(io.BytesIO(b"".join(answer.streaming_content)))
    assert (picture.size, answer["Cache-Control"]) == ((SIDE, SIDE), "no-store")
    missing = next(n for n in range(1, 41) if str(n) not in many.frames)
    assert client.get(f"{base}/after.png?frame={missing}").status_code == 400
    header = client.get(f"/api/v1/datasets/photos/versions/1/examination/{item.pk}/header")
    assert header["Cache-Control"] == "no-store"
    assert dicom_files.NAME in json.dumps(header.json())
    assert blobs.exists(item.header_object)
