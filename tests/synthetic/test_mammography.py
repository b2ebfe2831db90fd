"""The phantoms: complete, deterministic, split by subject, and identified only when asked."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pydicom
import pytest

from synthetic.lettering import hangul_fonts
from synthetic.mammography import CLINICAL_COLUMNS, LABEL_COLUMNS, write_phantoms
from synthetic.planted import Planted
from synthetic.search import Search


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Planted]]:
    target = tmp_path_factory.mktemp("phantoms") / "source"
    return target, write_phantoms(target, patients=12, seed=5, identifiers=True)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_patient_has_the_four_views_in_12_bits_of_16(hospital: tuple[Path, list[Planted]]):
    folder, _planted = hospital
    views = defaultdict(set)
    for row in rows(folder / "labels.csv"):
        ds = pydicom.dcmread(folder / row["file"])
        assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (16, 12, 11)
        assert ds.pixel_array.max() <= 4095
        assert ds.PatientID == row["subject"]
        assert ds.ImageLaterality + ds.ViewPosition == row["view"]
        views[row["subject"]].add(row["view"])
    assert len(views) == 12
    assert all(each == {"RCC", "LCC", "RMLO", "LMLO"} for each in views.values())


def test_a_third_of_the_patients_has_lesions_and_no_subject_is_in_two_splits(
    hospital: tuple[Path, list[Planted]],
):
    labels = rows(hospital[0] / "labels.csv")
    assert tuple(labels[0]) == LABEL_COLUMNS
    by_subject = {row["subject"]: row["patient_label"] for row in labels}
    assert Counter(by_subject.values()) == {"normal": 8, "lesion": 4}
    splits = defaultdict(set)
    for row in labels:
        splits[row["subject"]].add(row["split"])
    assert all(len(each) == 1 for each in splits.values())
    assert {each for own in splits.values() for each in own} == {"train", "validation", "sealed"}


def test_a_view_is_called_lesion_exactly_where_a_polygon_surrounds_something_brighter(
    hospital: tuple[Path, list[Planted]],
):
    folder, _planted = hospital
    annotated = defaultdict(list)
    for path in (folder / "annotations").glob("*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        annotated[document["file"]].append(document)
        assert set(document) >= {"user_id", "case_id", "view_location", "lesion_id", "contour"}
    for row in rows(folder / "labels.csv"):
        assert (row["label"] == "lesion") == (row["file"] in annotated)
        for document in annotated[row["file"]]:
            pixels = pydicom.dcmread(folder / row["file"]).pixel_array
            contour = np.asarray(document["contour"])
            assert (contour >= 0).all()
            assert (contour < [pixels.shape[1], pixels.shape[0]]).all()
            x, y = contour.mean(axis=0).astype(int)
            tissue = pixels[pixels > 300]
            assert pixels[y - 2 : y + 3, x - 2 : x + 3].mean() > np.median(tissue)


def test_the_clinical_table_tells_of_cancers_only_what_a_cancer_has(
    hospital: tuple[Path, list[Planted]],
):
    table = rows(hospital[0] / "clinical.csv")
    assert tuple(table[0]) == CLINICAL_COLUMNS
    for row in table:
        assert bool(row["htlg_type_cmnt"]) == (row["grp"] == "cancer")


def test_every_planted_value_is_really_there(hospital: tuple[Path, list[Planted]]):
    folder, planted = hospital
    assert len({each.where for each in planted}) >= 35
    content = {name: (folder / name).read_bytes() for name in digests(folder)}
    for each in planted:
        if each.where == "folder name":
            assert each.file.split("/")[0] == each.value
        elif each.where == "file name":
            assert Path(each.file).stem == each.value
        elif each.where == "pixels":
            assert each.box is not None
            x, y, width, height = each.box
            pixels = pydicom.dcmread(folder / each.file).pixel_array[y : y + height, x : x + width]
            assert (pixels > 3600).sum() > 20  # brighter than any tissue
        else:
            assert each.value.encode(each.encoding) in content[each.file], each.where


def test_text_is_burned_in_with_both_alphabets(hospital: tuple[Path, list[Planted]]):
    burned = [each.value for each in hospital[1] if each.where == "pixels"]
    assert any(text.isascii() and any(map(str.isalpha, text)) for text in burned)
    if hangul_fonts():
        assert any("가" <= letter <= "힣" for text in burned for letter in text)


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_phantoms(tmp_path / name, patients=2, seed=seed, identifiers=True)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a") != digests(tmp_path / "c")


def test_without_identifiers_nothing_names_anybody(tmp_path: Path):
    identified = write_phantoms(tmp_path / "with", patients=3, seed=6, identifiers=True)
    assert write_phantoms(tmp_path / "without", patients=3, seed=6, identifiers=False) == []
    search = Search(identified)
    for path in (tmp_path / "without").rglob("*"):
        assert not search.found(str(path).encode())
        if path.is_file():
            assert not search.found(path.read_bytes())
    names = {path.name for path in (tmp_path / "without").iterdir()}
    assert names >= {"10001", "10002", "10003"}
