"""``glovebox deid`` as the architecture states it: words, exit codes, one JSON document."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pydicom
import pytest

from deid.__main__ import main
from deid.dicom.clean import DicomCleaner
from deid.verify import verify
from synthetic import dicom_files
from tests.deid.test_pipeline import tree


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    assert main(["keygen", str(tmp_path / "key")]) == 0
    return tmp_path / "key"


def test_keygen_writes_64_hex_digits_once(key_file: Path) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}\n", key_file.read_text())
    assert main(["keygen", str(key_file)]) == 2


def test_a_run_prints_one_json_document(
    tmp_path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    src = tree(tmp_path / "src", 4)
    (src / "bad").write_bytes(b"bad")
    arguments = [str(src), str(tmp_path / "out"), "--key", str(key_file), "--json"]
    assert main([*arguments, "--workers", "1"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {name: document[name] for name in ("inputs", "written", "quarantined", "failed")} == {
        "inputs": 5, "written": 4, "quarantined": 1, "failed": 0,
    }  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "out.report.jsonl").read_text().splitlines()]
    for row in rows:
        assert {"source", "status", "target", "reason", "actions", "boxes", "seconds"} <= set(row)
    assert main(["verify", str(tmp_path / "out"), "--against", str(src), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["held"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        ["SRC", "OUT"],
        ["SRC", "OUT", "--key", "MISSING"],
        ["SRC", "OUT", "--key", "KEY", "--profile", "nothing"],
        ["SRC", "OUT", "--key", "KEY", "--workers", "0"],
        ["SRC", "OUT", "--key", "KEY", "--against", "SRC"],
        ["SRC", "SRC/inside", "--key", "KEY"],
        ["MISSING", "OUT", "--key", "KEY"],
        ["keygen", "OUT", "--key", "KEY"],
        ["verify", "MISSING"],
        ["verify", "SRC", "--resume"],
    ],
)
def test_wrong_use_is_told_by_exit_code_2_and_names_nobody(
    arguments: list[str], tmp_path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    src = tree(tmp_path / "HWANGBO", 2)
    places = {
        "SRC": str(src), "OUT": str(tmp_path / "out"), "KEY": str(key_file),
        "SRC/inside": str(src / "inside"), "MISSING": str(tmp_path / "HWANGBO missing"),
    }  # fmt: skip
    assert main([places.get(each, each) for each in arguments]) == 2
    assert "HWANGBO" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_called_verify_can_still_be_read(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path / "verify", 2)
    monkeypatch.chdir(tmp_path)
    assert main(["./verify", "out", "--key", str(key_file), "--workers", "1"]) == 0


LEFTOVERS = {
    "00080080": lambda data: setattr(data, "InstitutionName", dicom_files.SECRET),
    "00100010": lambda data: setattr(data, "PatientName", "HWANGBO^MYUNGHEE"),
    "00081030": lambda data: setattr(data, "StudyDescription", "for HWANGBO"),
    "00091001": lambda data: data.private_block(9, "X", create=True).add_new(1, "LO", "left"),
    "00120062": lambda data: delattr(data, "PatientIdentityRemoved"),
    "0020000D": lambda data: setattr(data, "StudyInstanceUID", f"{dicom_files.PREFIX}.2"),
}


@pytest.mark.parametrize("tag", LEFTOVERS)
def test_verify_names_what_was_left(tag: str, tmp_path: Path, cleaner: DicomCleaner) -> None:
    src, out = tmp_path / "src", tmp_path / "out"
    src.mkdir()
    out.mkdir()
    original = dicom_files.base()
    original.InstitutionName = dicom_files.SECRET
    (src / "a.dcm").write_bytes(dicom_files.written(original))
    result = cleaner.clean((src / "a.dcm").read_bytes(), "0")
    (out / "a.dcm").write_bytes(b"".join(result.chunks))
    assert verify(out, src).held
    changed = pydicom.dcmread(out / "a.dcm")
    LEFTOVERS[tag](changed)
    changed.save_as(out / "a.dcm")
    found = verify(out, src)
    assert not found.held
    assert any(tag in finding.where for finding in found.findings)
    assert main(["verify", str(out), "--against", str(src)]) == 1
