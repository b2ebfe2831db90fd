"""A worker's memory does not grow with its file: at most 600 MiB, its decoder included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import iter_pixels

from deid.profile import load
from deid.spill import LARGE
from synthetic import large

MIB = 1 << 20
LIMIT_MIB = 600
NOTE = "HONG GILDONG 12345678"
ROOT = Path(__file__).resolve().parents[2]


def children(process: int) -> list[int]:
    """The processes below one, itself first."""
    found = [process]
    try:
        listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return found
    for child in listed:
        found += children(int(child))
    return found


def highest(process: int) -> int:
    """The most memory that a process has held so far, in MiB."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)


def cleaned(folder: Path, *, masked: bool) -> tuple[dict[str, object], dict[int, int], Path]:
    """Run the command; its report row, each process's highest memory, and the output."""
    document = json.loads(json.dumps(dict(load("research").document)))
    if not masked:
        document["options"].remove("clean_pixel_data")
    profile = folder / "profile.toml"
    profile.write_text(
        f'name = "test"\noptions = {json.dumps(document["options"])}\nhead_volumes = "hold"\n'
    )
    key = folder / "key"
    key.write_text("07" * 32)
    key.chmod(0o600)
    report, target = folder / "report", folder / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "deid", str(folder / "in"), str(target), "--key", str(key),
         "--profile", str(profile), "--report", str(report)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    size = sum(path.stat().st_size for path in (folder / "in").iterdir())
    peaks: dict[int, int] = {}
    while process.poll() is None:
        # The first only walks, counts and reports where the file is cleaned in a second.
        listed = children(process.pid)
        for each in listed[1:] if size > LARGE else listed:
            peaks[each] = max(peaks.get(each, 0), highest(each))
        time.sleep(0.02)
    assert process.returncode == 0, process.stderr and process.stderr.read()
    row = json.loads(report.read_text())
    return row, peaks, target / row["target"]


def frames_of(path: Path, numbers: list[int]) -> list[np.ndarray]:
    if pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID.is_deflated:
        # pydicom inflates the whole file; its frames are known without it.
        made = enumerate(large.pictures(max(numbers) + 1))
        return [frame for number, frame in made if number in numbers]
    return list(iter_pixels(path, indices=numbers))


def native(path: Path) -> None:
    large.native(path, 1024, note=NOTE)


def jpeg(path: Path) -> None:
    large.jpeg(path, 500, note=NOTE)


def rle(path: Path) -> None:
    large.rle(path, 200, note=NOTE)


def deflated(path: Path) -> None:
    large.deflated(path, 400)


def zipped(path: Path) -> None:
    large.native(path, 400)
    with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        z.write(path, "a.dcm")
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "masked"),
    [(native, False), (native, True), (jpeg, True), (rle, True), (deflated, False),
     (zipped, False)],
)  # fmt: skip
def test_memory_stays_below_its_limit(
    make: Callable[[Path], None], masked: bool, tmp_path: Path
) -> None:
    source = tmp_path / "in" / "a.dcm"
    source.parent.mkdir()
    make(source)
    row, peaks, target = cleaned(tmp_path, masked=masked)
    assert row["status"] == "written", row["reason"]
    print(make.__name__, "masked" if masked else "whole", sorted(peaks.values()), "MiB")
    # Each one's highest at its own time: together they never held more than this.
    assert peaks and sum(peaks.values()) <= LIMIT_MIB
    if source.exists():
        _same_outside(source, target, row["boxes"].get("text", []))  # type: ignore[attr-defined]
        assert bool(row["boxes"]) is masked
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.unlink()


def _same_outside(source: Path, target: Path, boxes: list[dict[str, int]]) -> None:
    header = pydicom.dcmread(target, stop_before_pixels=True)
    assert header.NumberOfFrames == pydicom.dcmread(source, stop_before_pixels=True).NumberOfFrames
    numbers = [0, 7, int(header.NumberOfFrames) // 2, int(header.NumberOfFrames) - 1]
    outside = np.ones((large.SIDE, large.SIDE), bool)
    for box in boxes:
        outside[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]] = False
    for old, new in zip(frames_of(source, numbers), frames_of(target, numbers), strict=True):
        assert np.array_equal(old[outside], new[outside])
        assert boxes == [] or new[~outside].max() < old[~outside].max()
