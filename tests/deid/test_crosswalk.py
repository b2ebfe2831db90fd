"""The crosswalk at the command line: encrypted, complete after a kill, readable as two lists."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest

from deid.__main__ import main
from tests.deid.test_pipeline import ROOT, tree


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, str]:
    paths = str(tmp_path / "key"), str(tmp_path / "walk-key")
    for path in paths:
        assert main(["keygen", path]) == 0
    return paths


def pairs(path: Path) -> dict[str, str]:
    with path.open(newline="") as handle:
        lines = list(csv.reader(handle))
    assert lines[0] == ["id_old", "id_new"]
    return dict(lines[1:])  # type: ignore[arg-type]


def exported(walk: Path, key: str, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    uids, patients = folder / "uids.csv", folder / "patients.csv"
    command = ["crosswalk", str(walk), "--key", key, "--uids", str(uids)]
    assert main([*command, "--patients", str(patients)]) == 0
    assert (uids.stat().st_mode | patients.stat().st_mode) & 0o077 == 0
    return pairs(uids), pairs(patients)


def test_the_lists_say_what_became_of_each_identifier(
    tmp_path: Path, keys: tuple[str, str]
) -> None:
    src, out, walk = tree(tmp_path / "src", 4), tmp_path / "out", tmp_path / "walk"
    command = [str(src), str(out), "--key", keys[0], "--crosswalk", str(walk)]
    assert main([*command, "--crosswalk-key", keys[1], "--workers", "1"]) == 0
    assert b"77123" not in walk.read_bytes() and walk.stat().st_mode & 0o077 == 0
    uids, patients = exported(walk, keys[1], tmp_path)
    assert set(patients) == {"77123000", "77123001"}
    published = {}
    for path in out.rglob("*.dcm"):
        data = pydicom.dcmread(path)
        published[str(data.SOPInstanceUID)] = str(data.PatientID)
    for path in src.rglob("*.dcm"):
        data = pydicom.dcmread(path)
        assert published[uids[str(data.SOPInstanceUID)]] == patients[str(data.PatientID)]
        assert str(data.StudyInstanceUID) in uids


def test_a_killed_run_leaves_no_gap_in_the_crosswalk(tmp_path: Path, keys: tuple[str, str]) -> None:
    src, out, walk = tree(tmp_path / "src", 40), tmp_path / "out", tmp_path / "walk"
    command = [
        sys.executable, "-m", "deid", str(src), str(out), "--key", keys[0], "--workers", "2",
        "--crosswalk", str(walk), "--crosswalk-key", keys[1],
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(out.rglob("*.dcm"))) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not walk.exists()
    assert subprocess.run([*command, "--resume"], cwd=ROOT, capture_output=True).returncode == 0
    uids, patients = exported(walk, keys[1], tmp_path)
    assert len(patients) == 20
    assert {str(pydicom.dcmread(path).SOPInstanceUID) for path in src.rglob("*.dcm")} <= set(uids)


def test_a_later_run_adds_to_it(tmp_path: Path, keys: tuple[str, str]) -> None:
    walk = tmp_path / "walk"
    for name, files in (("one", 2), ("two", 4)):
        src = tree(tmp_path / name, files)
        if name == "two":
            for path in src.glob("HWANGBO0*/*"):
                path.unlink()
        command = [str(src), str(tmp_path / f"out-{name}"), "--key", keys[0], "--workers", "1"]
        assert main([*command, "--crosswalk", str(walk), "--crosswalk-key", keys[1]]) == 0
    assert set(exported(walk, keys[1], tmp_path)[1]) == {"77123000", "77123001"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["SRC", "OUT", "--key", "KEY", "--crosswalk", "WALK"],
        ["SRC", "OUT", "--key", "KEY", "--crosswalk-key", "WALK-KEY"],
        ["SRC", "OUT", "--key", "KEY", "--crosswalk", "WALK", "--crosswalk-key", "KEY"],
        ["SRC", "OUT", "--key", "KEY", "--crosswalk", "OUT/walk", "--crosswalk-key", "WALK-KEY"],
        ["SRC", "OUT", "--key", "KEY", "--crosswalk", "SRC/walk", "--crosswalk-key", "WALK-KEY"],
        ["SRC", "OUT", "--key", "KEY", "--uids", "OUT"],
        ["crosswalk", "WALK", "--key", "WALK-KEY"],
        ["crosswalk", "WALK", "--key", "WALK-KEY", "--uids", "OUT"],
        ["crosswalk", "KEY", "--key", "WALK-KEY", "--uids", "OUT"],
        ["crosswalk", "KEY", "--key", "WALK-KEY", "--uids", "OUT", "--resume"],
        ["crosswalk", "KEY", "--uids", "OUT"],
    ],
)
def test_wrong_use_is_refused_and_writes_nothing(
    arguments: list[str], tmp_path: Path, keys: tuple[str, str]
) -> None:
    src = tree(tmp_path / "src", 2)
    places = {
        "SRC": src, "OUT": tmp_path / "out", "KEY": keys[0], "WALK-KEY": keys[1],
        "WALK": tmp_path / "walk", "OUT/walk": tmp_path / "out" / "w", "SRC/walk": src / "w",
    }  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    assert main([str(places.get(each, each)) for each in arguments]) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bar_shows_rate_and_time_left_on_a_terminal_only(
    tmp_path: Path, keys: tuple[str, str]
) -> None:
    src = tree(tmp_path / "HWANGBO", 4)
    leader, follower = os.openpty()
    command = [sys.executable, "-m", "deid", str(src), str(tmp_path / "out"), "--key", keys[0]]
    subprocess.run([*command, "--workers", "1"], cwd=ROOT, stderr=follower, check=True)
    os.close(follower)
    said = b""
    while True:
        try:
            said += os.read(leader, 1 << 16)
        except OSError:
            break
    os.close(leader)
    assert b"4/4" in said and b"files/s" in said and b"<" in said
    assert b"HWANGBO" not in said and b"MYUNGHEE" not in said
    piped = subprocess.run([*command, "--workers", "1"], cwd=ROOT, capture_output=True, check=True)
    assert b"files/s" not in piped.stderr


def test_a_new_key_over_the_originals_leaves_no_pseudonym_of_the_old(
    tmp_path: Path, keys: tuple[str, str]
) -> None:
    src = tree(tmp_path / "src", 4)
    assert main(["keygen", str(tmp_path / "new")]) == 0
    lists = []
    for number, key in enumerate((keys[0], str(tmp_path / "new"))):
        out, walk = tmp_path / f"out{number}", tmp_path / f"walk{number}"
        command = [str(src), str(out), "--key", key, "--crosswalk", str(walk), "--workers", "1"]
        assert main([*command, "--crosswalk-key", keys[1]]) == 0
        lists.append(exported(walk, keys[1], tmp_path))
    (old_uids, old_patients), (new_uids, new_patients) = lists
    assert set(old_uids) == set(new_uids) and set(old_patients) == set(new_patients)
    old = [each.encode() for each in (*old_uids.values(), *old_patients.values())]
    for path in (tmp_path / "out1").rglob("*.dcm"):
        data = path.read_bytes() + str(path).encode()
        assert not any(each in data for each in old)
