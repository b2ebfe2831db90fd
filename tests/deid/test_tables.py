"""Side files: declared columns only, cleaned by their kind, speaking of published files only."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from deid import pipeline
from deid.profile import Profile, from_document, load
from deid.quarantine import Quarantined
from deid.tables import Published, TableCleaner, pattern_for
from deid.vault import Pseudonyms
from synthetic import dicom_files
from tests.deid.conftest import KEY

NAMES = Pseudonyms(KEY)
SUBJECT = NAMES.patient("7712345K")


@pytest.fixture
def table() -> TableCleaner:
    published = Published()
    published.add("Hwangbo/RCC.dcm", f"{SUBJECT}/0001.dcm")
    published.add("Hwangbo/LCC.dcm", f"{SUBJECT}/0002.dcm")
    return TableCleaner(NAMES, published)


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode())))


KINDS = {"file": "file", "subject": "subject", "label": "keep", "note": "text", "when": "date",
         "reader": "identifier"}  # fmt: skip


def test_columns_go_by_their_kind(table: TableCleaner) -> None:
    data = (
        b"file,subject,label,secret,note,when,reader\n"
        b"Hwangbo/RCC.dcm,7712345K,lesion,010-2345-6789,dense breast of Hwangbo,2019-08-07,kim01\n"
    )
    name, cleaned = table.clean("labels.csv", "labels.csv", KINDS, data)
    assert name == "labels.csv"
    (row,) = rows(cleaned)
    assert row["file"] == f"{SUBJECT}/0001.dcm" and row["subject"] == SUBJECT
    assert row["label"] == "lesion" and row["note"] == "dense breast of"
    assert row["when"] not in ("", "20190807") and row["reader"] == NAMES.accession("kim01")
    assert "secret" not in row and b"2345" not in cleaned


def test_rows_of_what_was_not_published_go(table: TableCleaner) -> None:
    data = b"file,subject,label\nHwangbo/MISSING.dcm,7712345K,x\nHwangbo/LCC.dcm,7712345K,y\n"
    assert [row["label"] for row in rows(table.clean("l.csv", "l.csv", KINDS, data)[1])] == ["y"]
    clinical = b"subject,label\n7712345K,a\n9999999,b\n"
    assert [row["label"] for row in rows(table.clean("c.csv", "c.csv", KINDS, clinical)[1])] == [
        "a"
    ]


@pytest.mark.parametrize("written", ["./Hwangbo/RCC.dcm", "Hwangbo\\RCC.dcm", "RCC.dcm"])
def test_a_file_is_known_by_its_usual_spellings(written: str, table: TableCleaner) -> None:
    data = f"file,label\n{written},x\n".encode()
    assert rows(table.clean("l.csv", "l.csv", KINDS, data)[1])[0]["file"] == f"{SUBJECT}/0001.dcm"


@pytest.mark.parametrize(
    "value", ["771234567", "kim@hospital.kr", "1977-03-15", "KIM^CHULSOO", "x" * 501, "of 7712345K"]
)
def test_a_kept_column_does_not_carry_what_identifies(value: str, table: TableCleaner) -> None:
    data = f"subject,label\n7712345K,{value}\n".encode()
    assert rows(table.clean("c.csv", "c.csv", KINDS, data)[1]) == [
        {"subject": SUBJECT, "label": ""}
    ]


def test_korean_spreadsheets_are_read(table: TableCleaner) -> None:
    data = "subject,label\n7712345K,정상\n".encode("cp949")
    assert rows(table.clean("c.csv", "c.csv", KINDS, data)[1])[0]["label"] == "정상"


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\x00 broken", b'a,"b\nunclosed', b"", b"other,columns\n1,2\n"]
)
def test_a_table_that_cannot_be_read_is_held(data: bytes, table: TableCleaner) -> None:
    with pytest.raises(Quarantined, match="bad-table"):
        table.clean("l.csv", "l.csv", KINDS, data)


def test_an_annotation_keeps_its_polygon_and_loses_its_reader(table: TableCleaner) -> None:
    kinds = load("research").tables["annotations/*.json"]
    document = {
        "user_id": "Kim^Yeonmin", "case_id": "7712345K", "file": "Hwangbo/RCC.dcm",
        "view_location": "RCC", "lesion_id": 1, "contour": [[1, 2], [3.5, 4], ["Kim", True]],
        "discard_yn": "N", "comment": "Hwangbo", "nested": {"name": "Hwangbo"},
    }  # fmt: skip
    name, cleaned = table.clean(
        "annotations/7712345K_RCC.json", "annotations/*.json", kinds, json.dumps(document).encode()
    )
    after = json.loads(cleaned)
    assert after["contour"] == [[1, 2], [3.5, 4], [None, None]]
    assert after["case_id"] == SUBJECT and after["file"] == f"{SUBJECT}/0001.dcm"
    assert set(after) == set(document) - {"comment", "nested"}
    assert name.startswith("annotations/") and "7712345K" not in name
    assert b"Kim" not in cleaned and b"Hwangbo" not in cleaned


def test_a_pattern_belongs_to_its_folder_at_any_depth() -> None:
    tables = load("research").tables
    assert pattern_for("labels.csv", tables) == "labels.csv"
    assert pattern_for("export/annotations/x.json", tables) == "annotations/*.json"
    assert pattern_for("other/x.json", tables) == ""


def test_a_published_tree_says_nothing_of_the_original(tmp_path: Path) -> None:
    document = dict(load("research").document)
    document["options"] = [name for name in document["options"] if name != "clean_pixel_data"]
    profile: Profile = from_document(document)
    src = tmp_path / "src"
    (src / "Hwangbo").mkdir(parents=True)
    (src / "Hwangbo" / "RCC.dcm").write_bytes(dicom_files.written(dicom_files.base()))
    (src / "Hwangbo" / "bad.dcm").write_bytes(b"not an image")
    (src / "labels.csv").write_text(
        f"file,subject,label,split\nHwangbo/RCC.dcm,{dicom_files.NUMBER},lesion,sealed\n"
        f"Hwangbo/bad.dcm,{dicom_files.NUMBER},normal,train\n"
    )
    (src / "secrets.csv").write_text("name\nHwangbo\n")
    (src / "dataset.toml").write_text('kind = "mammography"\nowner = "Hwangbo"\n')
    summary = pipeline.run(src, tmp_path / "out", key=KEY, profile=profile)
    assert summary.statuses == {"written": 3, "quarantined": 2}
    (row,) = rows((tmp_path / "out" / "labels.csv").read_bytes())
    assert row["subject"] == SUBJECT and (tmp_path / "out" / row["file"]).is_file()
    assert (row["label"], row["split"]) == ("lesion", "sealed")
    assert (tmp_path / "out" / "dataset.toml").read_text() == 'kind = "mammography"\n'
