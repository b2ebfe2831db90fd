"""The photographs hide identity in every place that photographs have, and say where."""

from __future__ import annotations

import csv
import io
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from synthetic.photos import write_photos
from synthetic.planted import Planted
from synthetic.search import Search


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Planted]]:
    target = tmp_path_factory.mktemp("photos") / "source"
    return target, write_photos(target, 7)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_photograph_opens_in_its_own_format(album: tuple[Path, list[Planted]]):
    formats = defaultdict(int)
    for row in rows(album[0]):
        with Image.open(album[0] / row["file"]) as image:
            image.load()
            formats[image.format] += 1
    assert set(formats) == {"JPEG", "MPO", "PNG", "TIFF", "WEBP", "GIF", "BMP"}


def test_every_planted_value_is_really_in_its_file(album: tuple[Path, list[Planted]]):
    folder, planted = album
    assert len({each.where for each in planted}) >= 25
    for each in planted:
        if each.where in ("face", "pixels", "file name", "folder name"):
            continue
        data = (folder / each.file).read_bytes()
        if each.where == "PNG zTXt":
            start = data.index(b"zTXtComment\0\0") + 13
            data = zlib.decompressobj().decompress(data[start:])
        assert Search([each]).found(data), each.where


def test_a_camera_would_read_the_planted_position_owner_and_thumbnail(
    album: tuple[Path, list[Planted]],
):
    seen = 0
    for row in rows(album[0]):
        with Image.open(album[0] / row["file"]) as image:
            if image.format not in ("JPEG", "MPO", "PNG", "WEBP"):
                continue
            exif = image.getexif()
            position = exif.get_ifd(ExifTags.IFD.GPSInfo)
            degrees = [float(each) for each in position[ExifTags.GPS.GPSLatitude]]
            assert degrees[0] == 37
            assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.BodySerialNumber].startswith("SN")
            preview = exif.get_ifd(ExifTags.IFD.IFD1)
            assert preview[ExifTags.Base.JpegIFByteCount] > 500
            seen += 1
    assert seen >= 15


def test_a_second_picture_is_found_by_a_reader_of_the_format(album: tuple[Path, list[Planted]]):
    for row in rows(album[0]):
        with Image.open(album[0] / row["file"]) as image:
            if image.format == "MPO":
                assert image.n_frames == 2
                image.seek(1)
                image.load()
                return
    raise AssertionError("no picture with a second one")


def test_boxes_are_those_of_the_upright_picture(album: tuple[Path, list[Planted]]):
    folder, planted = album
    turned = 0
    for each in planted:
        if each.where != "pixels":
            continue
        with Image.open(folder / each.file) as image:
            turned += image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
        x, y, width, height = each.box
        assert y + height <= upright.shape[0]
        assert upright[y : y + height, x : x + width].std() > 20  # ink against the background
    assert turned


def test_half_of_the_photographs_show_a_face(album: tuple[Path, list[Planted]]):
    folder, planted = album
    faces = {each.file for each in planted if each.where == "face"}
    labels = {row["file"]: row["label"] for row in rows(folder)}
    assert faces == {file for file, label in labels.items() if label == "face"}
    assert 0.3 < len(faces) / len(labels) < 0.7


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        write_photos(tmp_path / name, 3, subjects=2)
    first = {path.relative_to(tmp_path / "a"): path for path in (tmp_path / "a").rglob("*.*")}
    assert first
    for name, path in first.items():
        assert path.read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_without_identifiers_there_is_only_the_picture(tmp_path: Path):
    assert write_photos(tmp_path / "clean", 3, identifiers=False, subjects=3) == []
    for path in (tmp_path / "clean").rglob("*.jpg"):
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            assert not image.getexif()
            assert "comment" not in image.info
