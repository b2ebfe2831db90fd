"""A film goes through the portal: cleaned in the sandbox, shown as a sheet of frames, published."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from PIL import Image

from deid.video_container import is_clean_video
from portal.ingest import queries
from portal.ingest.models import ReportRow
from synthetic import videos
from tests.portal.ingest.flow import Crew, album, contents, find_clean, ingest, open_round

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sandbox]


def film() -> bytes:
    frames = [videos.jpeg(np.full((48, 64, 3), 60 + 5 * t, np.uint8)) for t in range(12)]
    return videos.mp4(
        [videos.video_track(frames, (64, 48))],
        user_data=videos.box(b"udta", videos.box(b"\xa9nam", b"\0\7\x55\xc4HWANGBO")),
    )


def test_a_film_is_cleaned_examined_as_frames_and_published(people: Crew) -> None:
    members = album(subjects=2, each=1)
    name = "person 1/walk.mp4"
    members[name] = film()
    members["labels.csv"] += f"{name},P0001,normal,train\n".encode()
    version = ingest(people, members)
    assert version.state == "de_identified", version.reason
    (row,) = ReportRow.objects.filter(intake__version=version, target__endswith=".mp4")
    assert row.status == "written"
    assert row.facts["review"] == "plates"
    items = open_round(people)
    (item,) = [each for each in items if each.row_id == row.pk]
    assert (item.unseen, item.width, item.height) == ("", 192, 144)
    stream = queries.open_picture(by=people.officer, item=item, side="after")
    with stream, Image.open(io.BytesIO(stream.read())) as sheet:
        assert sheet.size == (192, 144)
    find_clean(people, items)
    published = contents(version)
    assert is_clean_video(published[row.target])
    assert b"HWANGBO" not in published[row.target]
    labels = list(csv.DictReader(io.StringIO(published["labels.csv"].decode())))
    assert row.target in {each["file"] for each in labels}
