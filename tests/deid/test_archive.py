"""A thousand files, four workers, a kill: references, intervals and pictures are as they were."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from deid import output
from synthetic import hospital
from tests.deid.conftest import KEY

ROOT = Path(__file__).resolve().parents[2]
KEPT = (
    "Modality", "SOPClassUID", "Rows", "Columns", "ImagePositionPatient", "PatientPosition",
    "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness",
    "ViewPosition", "ImageLaterality", "BodyPartExamined", "InstanceNumber", "SeriesNumber",
    "RescaleSlope", "RescaleIntercept", "PatientSex", "PatientAge", "StudyTime", "ImageType",
    "BitsStored", "PhotometricInterpretation",
)  # fmt: skip
DAYS = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime")
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


def command(src: Path, folder: Path, workers: int) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "key").write_text(KEY.hex())
    return [
        sys.executable, "-m", "deid", str(src), str(folder / "out"), "--key", str(folder / "key"),
        "--report", str(folder / "report"), "--workers", str(workers), "--json",
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def killed_in_the_middle(arguments: list[str], folder: Path, after: int) -> int:
    """End the whole group by force once there are so many outputs; how many there were."""
    process = subprocess.Popen(
        arguments, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while len(list((folder / "out").rglob("*.dcm"))) < after:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return len(list((folder / "out").rglob("*.dcm")))


def finished(arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run(arguments, env=environment(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): output.digest_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def day(text: str) -> datetime.date:
    return datetime.datetime.strptime(text[:8], "%Y%m%d").date()


@pytest.mark.slow
def test_a_thousand_files_hold_together_over_workers_and_a_kill(tmp_path: Path) -> None:
    patients = 50
    count = patients * hospital.A_PATIENT
    assert count == 1000
    src = tmp_path / "src"
    hospital.write(src, patients)

    arguments = command(src, tmp_path / "killed", 4)
    left = killed_in_the_middle(arguments, tmp_path / "killed", count // 3)
    assert count // 3 <= left < count
    summary = finished([*arguments, "--resume"])
    assert summary["inputs"] == count
    # Nothing of an ordinary archive is held.
    assert summary["written"] + summary["unchanged"] == count, summary

    whole = finished(command(src, tmp_path / "whole", 1))
    assert whole["written"] == count
    assert digests(tmp_path / "killed" / "out") == digests(tmp_path / "whole" / "out")
    pairs = _pairs(src, tmp_path / "killed")
    assert len(pairs) == count
    _same_use(pairs)
    _same_intervals(pairs)
    _same_references(pairs)


Pairs = list[tuple[pydicom.Dataset, pydicom.Dataset, dict[str, Any]]]


def _pairs(src: Path, folder: Path) -> Pairs:
    rows = [json.loads(line) for line in (folder / "report").read_text().splitlines()]
    targets = {row["source"]: row for row in rows}
    found = []
    for path in sorted(src.rglob("*.dcm")):
        row = targets[hashlib.sha256(path.read_bytes()).hexdigest()]
        found.append((pydicom.dcmread(path), pydicom.dcmread(folder / "out" / row["target"]), row))
    return found


def _same_use(pairs: Pairs) -> None:
    for before, after, row in pairs:
        for keyword in KEPT:
            assert after.get(keyword) == before.get(keyword), keyword
        if "PixelData" in before:
            old, new = before.pixel_array, after.pixel_array
            outside = np.ones(old.shape, bool)
            for box in row["boxes"].get("text", []):
                outside[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]] = 0
            assert np.array_equal(old[outside], new[outside])
            assert outside.mean() > 0.5


def _same_intervals(pairs: Pairs) -> None:
    """One shift a patient for every day in every file; not everybody's the same."""
    shifts: dict[str, set[int]] = defaultdict(set)
    for before, after, _row in pairs:
        for keyword in DAYS:
            if before.get(keyword):
                moved = day(after[keyword].value) - day(before[keyword].value)
                shifts[before.PatientID].add(moved.days)
    assert all(len(days) == 1 and 0 not in days for days in shifts.values())
    assert len(set.union(*shifts.values())) > len(shifts) // 2


def _same_references(pairs: Pairs) -> None:
    became: dict[str, set[str]] = defaultdict(set)
    patients: dict[str, set[str]] = defaultdict(set)
    for before, after, _row in pairs:
        patients[before.PatientID].add(after.PatientID)
        for keyword in UIDS:
            if keyword in before:
                became[before[keyword].value].add(after[keyword].value)
    assert all(len(new) == 1 for new in (*became.values(), *patients.values()))
    assert len(set.union(*became.values())) == len(became)
    assert len(set.union(*patients.values())) == len(patients)
    seen = 0
    for before, after, _row in pairs:
        old, new = list(hospital.references(before)), list(hospital.references(after))
        assert [became[uid] for uid in old] == [{uid} for uid in new]
        seen += len(new)
    # Slices to the first, views to a slice, reports to all: none was lost on the way.
    assert seen == 39 * len(patients)
