"""Photographs of several pictures and videos in a batch: written, verified, examined, mended."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from deid import contact_sheet, corrections, page, pictures, pipeline, report, review, stills
from deid.profile import load
from deid.verify import verify
from deid.video_container import is_clean_video
from policies.document import default_policy
from synthetic import videos
from synthetic.photos import package_photo

NAME = "HWANGBO MYUNGHEE"


def named(picture: np.ndarray, shown: bool = True) -> np.ndarray:
    image = Image.fromarray(picture)
    if shown:
        font = ImageFont.load_default(18)
        ImageDraw.Draw(image).text((20, 180), NAME, font=font, fill="white")
    return np.asarray(image)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[report.Row]]:
    folder = tmp_path_factory.mktemp("batch")
    src, dst = folder / "src", folder / "dst"
    src.mkdir()
    ground = np.full((220, 300, 3), 70, np.uint8)
    # A name that stands in three frames only.
    frames = [videos.jpeg(named(ground, 4 <= t < 7)) for t in range(12)]
    film = videos.mp4(
        [videos.video_track(frames, (300, 220), name=b"HWANGBOHANDLER")],
        user_data=videos.box(b"udta", videos.box(b"\xa9nam", b"\0\x10\x55\xc4" + NAME.encode())),
    )
    (src / "film.mp4").write_bytes(film)
    (src / "wrong.dcm").write_bytes(film[: len(film) // 2])
    stream = io.BytesIO()
    coffee = np.ascontiguousarray(package_photo("coffee.png")[:220, :300])
    pages = [Image.fromarray(coffee), Image.fromarray(named(coffee[::-1]))]
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:], description=NAME)
    (src / "pages.tif").write_bytes(stream.getvalue())
    (src / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + NAME.encode() * 9)
    pipeline.run(src, dst, key=bytes(range(32)), profile=load("research"))
    return src, dst, list(report.read(pipeline.default_report(dst)))


def by_kind(rows: list[report.Row], kind: str) -> report.Row:
    (row,) = [each for each in rows if each["kind"] == kind and each["target"]]
    return row


def test_each_input_has_a_row_and_what_is_held_says_why(batch) -> None:
    _src, dst, rows = batch
    assert sorted((row["status"], row["reason"]) for row in rows) == [
        ("quarantined", "heic"), ("quarantined", "truncated"), ("written", ""), ("written", ""),
    ]  # fmt: skip
    written = {row["target"] for row in rows if row["target"]}
    there = {path.relative_to(dst).as_posix() for path in dst.rglob("*") if path.is_file()}
    assert written == there


def test_a_name_that_stands_in_few_frames_is_masked_in_them(batch) -> None:
    _src, dst, rows = batch
    row = by_kind(rows, "video")
    data = (dst / row["target"]).read_bytes()
    assert is_clean_video(data)
    assert "masked in" in row["actions"]["text"]
    for picture in stills.some(data, 99):
        # The letters are white, and nothing else here is lighter than 70.
        assert picture[170:210].max() < 120


def test_the_second_run_changes_nothing(batch) -> None:
    src, dst, rows = batch
    before = {row["target"]: row["digest"] for row in rows if row["target"]}
    pipeline.run(src, dst, key=bytes(range(32)), profile=load("research"))
    again = list(report.read(pipeline.default_report(dst)))
    assert {row["target"]: row["digest"] for row in again if row["target"]} == before
    assert {row["status"] for row in again if row["target"]} == {"unchanged"}


def test_the_outputs_hold_against_their_originals_and_what_is_added_is_found(batch) -> None:
    src, dst, rows = batch
    held = verify(dst, src)
    assert held.findings == []
    assert held.pictures == 2
    film, pages = (dst / by_kind(rows, kind)["target"] for kind in ("video", "photo"))
    whole, tiff = film.read_bytes(), pages.read_bytes()
    try:
        film.write_bytes(whole + videos.box(b"free", b"x"))
        stream = io.BytesIO()
        with Image.open(io.BytesIO(tiff)) as image:
            image.save(stream, "TIFF", save_all=True, tiffinfo={65000: "x"})
        pages.write_bytes(stream.getvalue())
        rules = {each.rule for each in verify(dst, pictures=0).findings}
        film.write_bytes(whole + videos.box(b"free", b"HWANGBOHANDLER"))
        values = {(each.file, each.rule) for each in verify(dst, src, pictures=0).findings}
    finally:
        film.write_bytes(whole)
        pages.write_bytes(tiff)
    assert "a video may hold nothing but its frames" in rules
    assert "tags that say more than the picture may not stay" in rules
    assert any("video metadata of the originals" in rule for _file, rule in values)


def test_a_video_is_in_every_sample_and_drawn_as_a_sheet_of_frames(batch, tmp_path: Path) -> None:
    src, dst, rows = batch
    row = by_kind(rows, "video")
    policy = default_policy().deid
    many = [
        {**row, "kind": "photo", "target": f"p/{number}.png", "review": ""}
        for number in range(2000)
    ]
    sample = review.draw_sample([*many, row], policy, seed=1)
    assert row["target"] in {each["target"] for each in sample}
    wanted = [
        {"name": each["kind"], "source": each["source"], "target": each["target"]}
        for each in rows if each["target"]
    ]  # fmt: skip
    facts = pictures.draw(src, dst, wanted, tmp_path)
    assert facts["video"].items() >= {"width": 900, "height": 660, "same_size": True}.items()
    assert facts["photo"].items() >= {"width": 600, "height": 220, "same_size": True}.items()
    with Image.open(tmp_path / "video-after.png") as image:
        after = np.asarray(image.convert("RGB"))
    # The boxes of the row are where the sheet shows them masked.
    assert row["boxes"]["text"]
    for box in row["boxes"]["text"]:
        x, y = box["x"] + box["width"] // 2, box["y"] + box["height"] // 2
        assert after[y, x].max() < 32


def test_what_the_officer_marks_is_masked_in_every_frame_and_page(batch, tmp_path: Path) -> None:
    _src, dst, rows = batch
    mark = {"x": 300 + 10, "y": 5, "width": 40, "height": 30}
    wanted = [
        {"target": by_kind(rows, kind)["target"], "boxes": [mark]} for kind in ("video", "photo")
    ]
    done = corrections.mend(dst, wanted, tmp_path)
    assert sorted(done) == sorted(each["target"] for each in wanted)
    for each in wanted:
        mended = (tmp_path / each["target"]).read_bytes()
        count = 0
        for picture in stills.some(mended, 99):
            count += 1
            assert picture[13:27, 18:42].max() < 32
        assert count == stills.how_many((dst / each["target"]).read_bytes())
    assert is_clean_video((tmp_path / wanted[0]["target"]).read_bytes())


def test_the_sheet_of_a_long_file_has_its_cells_at_equal_steps() -> None:
    assert contact_sheet.shown(1) == [0]
    assert contact_sheet.shown(3) == [0, 1, 2]
    places = contact_sheet.shown(90)
    assert len(places) == contact_sheet.CELLS
    assert {second - first for first, second in itertools.pairwise(places)} == {10}


def test_the_report_says_of_every_photograph_and_video_that_plates_are_a_persons_to_find(
    batch,
) -> None:
    _src, _dst, rows = batch
    for kind in ("video", "photo"):
        row = by_kind(rows, kind)
        assert row["review"] == "plates"
        assert "person" in row["actions"]["plate"]
    assert NAME not in json.dumps(rows)


def test_the_report_as_a_page_shows_a_film_as_a_sheet(batch, tmp_path: Path) -> None:
    _src, dst, rows = batch
    target = tmp_path / "page.html"
    drawn = page.write(target, pipeline.default_report(dst), dst=dst, profile=load("research"))
    text = target.read_text()
    assert drawn == text.count("<image ") == 2
    assert "a sheet of up to nine of its frames" in text
    film = by_kind(rows, "video")
    figure = next(each for each in text.split("<figure") if str(film["target"]) in each)
    assert 'viewBox="0 0 900 660"' in figure
