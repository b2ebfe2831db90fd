"""A sample has the layout of a published version and nothing of anybody."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path

import pydicom
import pytest
from PIL import Image

from policies.errors import Invalid
from synthetic.sample import KINDS, write_sample


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_has_the_published_layout(kind: str, tmp_path: Path):
    write_sample(kind, tmp_path / "sample", subjects=9)
    about = tomllib.loads((tmp_path / "sample" / "dataset.toml").read_text(encoding="utf-8"))
    assert about["kind"] == kind
    with (tmp_path / "sample" / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {"file", "subject", "label", "split"} <= set(rows[0])
    assert {row["split"] for row in rows} == {"train", "validation", "sealed"}
    assert len({row["subject"] for row in rows}) == 9
    for row in rows:
        folder, name = row["file"].split("/")
        assert folder == row["subject"]
        assert Path(name).stem.isdigit()
        path = tmp_path / "sample" / row["file"]
        if path.suffix == ".dcm":
            assert str(pydicom.dcmread(path).PatientID) == row["subject"]
        else:
            with Image.open(path) as image:
                image.load()
    files = {str(path.relative_to(tmp_path / "sample")) for path in tmp_path.rglob("*.*")}
    assert {row["file"] for row in rows} <= files


@pytest.mark.parametrize(
    ("kind", "subjects", "field"), [("genome", 8, "kind"), ("photos", 0, "subjects")]
)
def test_a_sample_that_cannot_be_is_refused_by_the_field(
    kind: str, subjects: int, field: str, tmp_path: Path
):
    with pytest.raises(Invalid) as refused:
        write_sample(kind, tmp_path / "sample", subjects=subjects)
    assert refused.value.field == field
    assert list(tmp_path.iterdir()) == []


def test_a_sample_never_overwrites(tmp_path: Path):
    (tmp_path / "sample").mkdir()
    with pytest.raises(Invalid, match="already"):
        write_sample("mammography", tmp_path / "sample")
