"""The batch: nothing lost, nothing half-written, nothing of anybody in the report or the names."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from deid import intake, output, pipeline, report, worker_process
from deid.profile import Profile, from_document, load
from deid.vault import Crosswalk, Pseudonyms
from policies.errors import Invalid
from synthetic import dicom_files
from tests.deid.conftest import KEY

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def headers_only() -> Profile:
    """The default profile without the search for text in pixels: these tests are of the batch."""
    document = dict(load("research").document)
    document["options"] = [name for name in document["options"] if name != "clean_pixel_data"]
    return from_document(document)


def tree(folder: Path, files: int = 6) -> Path:
    """A hospital's export: folders and files with names in them, two images a patient."""
    for number in range(files):
        data = dicom_files.base()
        patient = number // 2
        data.PatientID, data.PatientName = f"77123{patient:03d}", f"HWANGBO{patient}^MYUNGHEE"
        data.SOPInstanceUID = f"{dicom_files.PREFIX}.1.{number}"
        path = folder / f"HWANGBO{patient}_77123{patient:03d}" / f"MYUNGHEE_{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dicom_files.written(data))
    return folder


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): output.digest_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(src: Path, dst: Path, profile: Profile, **options: Any) -> report.Summary:
    options.setdefault("report", dst.parent / f"{dst.name}.jsonl")
    return pipeline.run(src, dst, key=KEY, profile=profile, **options)


def test_every_input_has_one_row_and_no_row_says_whose_it_is(
    tmp_path: Path, headers_only: Profile
) -> None:
    src = tree(tmp_path / "src")
    (src / "notes HWANGBO.txt").write_text("HWANGBO MYUNGHEE")
    (src / "empty.dcm").touch()
    (src / "link.dcm").symlink_to(next(src.rglob("*.dcm")))
    summary = run(src, tmp_path / "out", headers_only, workers=2)
    rows = rows_of(tmp_path / "out.jsonl")
    assert summary.inputs == len(rows) == 9
    assert summary.statuses == {"written": 6, "quarantined": 3}
    assert summary.reasons == {"not-dicom": 1, "empty": 1, "link": 1}
    everything = (tmp_path / "out.jsonl").read_text() + " ".join(digests(tmp_path / "out"))
    for secret in ("HWANGBO", "MYUNGHEE", "77123", dicom_files.PREFIX, str(tmp_path)):
        assert secret not in everything
    by_source = {row["source"]: row for row in rows}
    for path in src.rglob("MYUNGHEE*.dcm"):
        row = by_source[hashlib.sha256(path.read_bytes()).hexdigest()]
        assert output.digest_of(tmp_path / "out" / row["target"]) == row["digest"]


def test_outputs_are_byte_identical_whoever_makes_them(
    tmp_path: Path, headers_only: Profile
) -> None:
    src = tree(tmp_path / "src", 12)
    run(src, tmp_path / "one", headers_only, workers=1)
    run(src, tmp_path / "four", headers_only, workers=4)
    assert digests(tmp_path / "one") == digests(tmp_path / "four")
    assert len({name.split("/")[0] for name in digests(tmp_path / "one")}) == 6
    again = run(src, tmp_path / "one", headers_only)
    assert again.statuses == {"unchanged": 12}
    assert digests(tmp_path / "one") == digests(tmp_path / "four")


def test_another_key_gives_other_names(tmp_path: Path, headers_only: Profile) -> None:
    src = tree(tmp_path / "src", 2)
    run(src, tmp_path / "one", headers_only)
    pipeline.run(src, tmp_path / "two", key=bytes(32), profile=headers_only)
    assert not set(digests(tmp_path / "one")) & set(digests(tmp_path / "two"))


def test_a_killed_run_is_resumed(tmp_path: Path) -> None:
    src = tree(tmp_path / "src", 60)
    (tmp_path / "key").write_text(KEY.hex())
    command = [
        sys.executable, "-m", "deid", str(src), str(tmp_path / "out"),
        "--key", str(tmp_path / "key"), "--report", str(tmp_path / "out.jsonl"), "--workers", "2",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").rglob("*.dcm"))) < 5:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    made = digests(tmp_path / "out")
    assert len(made) < 60
    done = {row["target"] for row in report.read(tmp_path / "out.jsonl")}
    done_at = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in done}
    finished = subprocess.run([*command, "--resume", "--json"], cwd=ROOT, capture_output=True)
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    assert summary["inputs"] == 60 and summary["written"] + summary["unchanged"] == 60
    assert summary["unchanged"] >= len(done)
    for name, at in done_at.items():
        assert (tmp_path / "out" / name).stat().st_mtime_ns == at
    run(src, tmp_path / "whole", load("research"), workers=2)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_what_a_kill_left_half_written_goes(tmp_path: Path, headers_only: Profile) -> None:
    src = tree(tmp_path / "src", 2)
    left = tmp_path / "out" / "P" / f"{output.PART_PREFIX}0{output.PART_SUFFIX}"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    run(src, tmp_path / "out", headers_only)
    assert not left.exists()


def test_outputs_of_inputs_that_are_gone_go_too(tmp_path: Path, headers_only: Profile) -> None:
    src = tree(tmp_path / "src", 4)
    run(src, tmp_path / "out", headers_only)
    next(src.rglob("*.dcm")).unlink()
    summary = run(src, tmp_path / "out", headers_only)
    assert summary.statuses == {"unchanged": 3} and summary.foreign == 0
    assert len(digests(tmp_path / "out")) == 3


def test_files_that_no_run_made_are_told_and_not_removed(
    tmp_path: Path, headers_only: Profile
) -> None:
    src = tree(tmp_path / "src", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert run(src, tmp_path / "out", headers_only).foreign == 1
    assert (tmp_path / "out" / "mine.txt").exists()


def test_a_report_cannot_remove_or_vouch_for_anything_outside(
    tmp_path: Path, headers_only: Profile
) -> None:
    src = tree(tmp_path / "src", 2)
    run(src, tmp_path / "out", headers_only)
    victim = tmp_path / "victim.dcm"
    victim.write_text("mine")
    rows = rows_of(tmp_path / "out.jsonl")
    rows[0]["target"] = "../victim.dcm"
    rows[0]["digest"] = output.digest_of(victim)
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(src, tmp_path / "out", headers_only, resume=True)
    assert victim.exists()
    assert all(not row["target"].startswith("..") for row in rows_of(tmp_path / "out.jsonl"))


def test_two_copies_of_one_file_are_one_output(tmp_path: Path, headers_only: Profile) -> None:
    src = tree(tmp_path / "src", 2)
    first = next(src.rglob("*.dcm"))
    (src / "copy.dcm").write_bytes(first.read_bytes())
    summary = run(src, tmp_path / "out", headers_only, workers=2)
    assert summary.inputs == 3 and summary.reasons == {"duplicate": 1}
    assert len(digests(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("empty", lambda file: b"", "empty"),
        ("truncated in the middle", lambda file: file[: len(file) // 2], "truncated"),
        ("truncated in the header", lambda file: file[:180], "truncated"),
        ("text", lambda file: b"no image at all", "not-dicom"),
        ("zeros", lambda file: bytes(4096), "not-dicom"),
        ("trailing bytes", lambda file: file + b"TRAILING BYTES", "trailing-bytes"),
        ("bad VR", lambda file: file.replace(b"\x10\0\x20\0LO", b"\x10\0\x20\0QQ"), "bad-vr"),
        ("doubled", lambda file: dicom_files.before(
            file, (0x10, 0x20), dicom_files.raw(0x10, 0x10, b"PN", b"X")), "doubled-tag"),
        ("too deep", lambda file: dicom_files.before(file, (0x10, 0x10), _nest(200)),
            "bad-structure"),
        ("a huge length", lambda file: file.replace(
            struct.pack("<HH2s", 0x7FE0, 0x10, b"OW"), struct.pack("<HH2s", 0x7FE0, 0x10, b"OB")
            )[:-8192 - 4] + b"\xf0\xff\xff\xff", "truncated"),
        ("no pixels left", lambda file: _short(file), "truncated-pixels"),
        ("a PDF", lambda file: b"%PDF-1.7 ...", "document"),
        ("gzip", lambda file: b"\x1f\x8b\x08" + bytes(30), "archive"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_bad_file_is_held_with_its_reason_and_the_batch_goes_on(
    name: str, make: Any, reason: str, tmp_path: Path, headers_only: Profile
) -> None:
    src = tree(tmp_path / "src", 2)
    good = next(src.rglob("*.dcm")).read_bytes()
    bad = make(good)
    (src / "AAA bad.dcm").write_bytes(bad)
    summary = run(src, tmp_path / "out", headers_only, quarantine=tmp_path / "held")
    assert summary.reasons == {reason: 1}
    assert summary.statuses == {"written": 2, "quarantined": 1}
    digest = hashlib.sha256(bad).hexdigest()
    assert (tmp_path / "held" / digest).read_bytes() == bad
    assert len(digests(tmp_path / "out")) == 2


def _nest(depth: int) -> bytes:
    inner = b""
    for _level in range(depth):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
        inner = struct.pack("<HH2s2xI", 0x0008, 0x1140, b"SQ", len(item)) + item
    return inner


def _short(file: bytes) -> bytes:
    header = struct.pack("<HH2s2x", 0x7FE0, 0x10, b"OW")
    place = file.index(header)
    return file[:place] + header + struct.pack("<I", 64) + file[place + 12 : place + 76]


def test_a_zip_is_read_as_if_it_were_unpacked(tmp_path: Path, headers_only: Profile) -> None:
    src = tree(tmp_path / "src")
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(src.rglob("*.dcm")):
            target.write(path, path.relative_to(src).as_posix())
    run(src, tmp_path / "tree", headers_only)
    run(archive, tmp_path / "zip", headers_only)
    assert digests(tmp_path / "tree") == digests(tmp_path / "zip")


def test_a_hostile_zip_puts_nothing_anywhere(tmp_path: Path, headers_only: Profile) -> None:
    src = tmp_path / "src"
    tree(src, 2)
    file = next(src.rglob("*.dcm")).read_bytes()
    with zipfile.ZipFile(src / "evil.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escaped.dcm", file)
        archive.writestr("/absolute.dcm", file)
        link = zipfile.ZipInfo("link.dcm")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        device = zipfile.ZipInfo("device")
        device.external_attr = 0o020666 << 16
        archive.writestr(device, "")
        archive.writestr("bomb.dcm", bytes(intake.SMALL_BYTES + 1))
        inner = tmp_path / "inner.zip"
        with zipfile.ZipFile(inner, "w") as nested:
            nested.writestr("x.dcm", file)
        archive.write(inner, "nested.zip")
    (src / "broken.zip").write_bytes(b"PK\x03\x04 not a zip")
    summary = run(src, tmp_path / "out", headers_only)
    assert summary.reasons == {
        "path-outside": 2, "link": 2, "too-large": 1, "nested-zip": 1, "bad-zip": 1,
    }  # fmt: skip
    assert summary.statuses == {"written": 2, "quarantined": 7}
    assert not list(tmp_path.rglob("escaped.dcm"))


@pytest.mark.parametrize("where", ["in src", "around src", "report in dst", "held in dst"])
def test_places_that_would_mix_originals_and_outputs_are_refused(
    where: str, tmp_path: Path, headers_only: Profile
) -> None:
    src = tree(tmp_path / "a" / "src", 2)
    out = tmp_path / "out"
    with pytest.raises(Invalid):
        if where == "in src":
            run(src, src / "out", headers_only)
        elif where == "around src":
            run(src, tmp_path / "a", headers_only)
        elif where == "report in dst":
            run(src, out, headers_only, report=out / "report.jsonl")
        else:
            run(src, out, headers_only, quarantine=out / "held")


def test_a_full_disk_is_named_and_a_retry_completes(tmp_path: Path) -> None:
    src = tree(tmp_path / "src", 8)
    (tmp_path / "key").write_text(KEY.hex())
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
        "from deid.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [str(src), str(tmp_path / "out"), "--key", str(tmp_path / "key"), "--workers", "1"]
    full = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert full.returncode == 3
    assert "A disk is full: that of the output directory" in full.stderr
    assert "HWANGBO" not in full.stderr and str(tmp_path) not in full.stderr
    assert digests(tmp_path / "out") == {}
    retried = subprocess.run(
        [sys.executable, "-m", "deid", *arguments, "--resume"], cwd=ROOT, capture_output=True
    )
    assert retried.returncode == 0
    assert len(digests(tmp_path / "out")) == 8


def test_a_file_that_ends_its_worker_is_held_and_the_batch_goes_on(
    tmp_path: Path, headers_only: Profile
) -> None:
    src = tree(tmp_path / "src", 6)
    stopped: list[int] = []

    def kill_one(done: int, _total: int, _row: Any) -> None:
        if done == 1:
            children = subprocess.run(
                ["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="],
                capture_output=True, text=True, check=True,
            ).stdout.splitlines()  # fmt: skip
            worker = next(line for line in children if "deid.worker" in line)
            os.kill(int(worker.split()[0]), signal.SIGKILL)
            stopped.append(1)

    summary = run(src, tmp_path / "out", headers_only, workers=2, progress=kill_one)
    assert stopped and summary.inputs == 6
    assert summary.statuses["written"] + summary.reasons["worker-crash"] == 6
    again = run(src, tmp_path / "out", headers_only, workers=2, resume=True)
    assert again.statuses["quarantined"] == 0 and len(digests(tmp_path / "out")) == 6


def test_the_crosswalk_knows_every_patient_and_opens_with_its_key_only(
    tmp_path: Path, headers_only: Profile
) -> None:
    src = tree(tmp_path / "src", 4)
    walk = Crosswalk(bytes(range(32, 64)))
    run(src, tmp_path / "out", headers_only, crosswalk=walk)
    path = tmp_path / "walk"
    walk.save(path)
    assert b"77123" not in path.read_bytes()
    opened = Crosswalk.load(path, bytes(range(32, 64)))
    assert opened.entries["patient"]["77123000"] == Pseudonyms(KEY).patient("77123000")
    assert opened.export("patient").startswith("id_old,id_new\n77123000,P")
    assert f"{dicom_files.PREFIX}.1.0," in opened.export("uid")
    with pytest.raises(Invalid):
        Crosswalk.load(path, bytes(32))


@pytest.mark.slow
def test_every_file_of_pydicom_is_accounted_for_without_a_crash(tmp_path: Path) -> None:
    import data_store
    import pydicom.data

    src = tmp_path / "src"
    src.mkdir()
    for number, folder in enumerate((pydicom.data.__path__[0], *data_store.__path__)):
        (src / str(number)).mkdir()
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and ".py" not in path.suffix:
                digest = output.digest_of(path)[:8]
                (src / str(number) / f"{digest} {path.name}").write_bytes(path.read_bytes())
    summary = run(src, tmp_path / "out", load("research"), workers=2)
    assert summary.statuses["failed"] == 0
    assert summary.inputs == sum(1 for path in src.rglob("*") if path.is_file())
    assert summary.statuses["written"] > 200
    unexpected = set(summary.reasons) - {
        "archive", "cannot-decode", "dicomdir", "doubled-tag", "duplicate", "head-volume",
        "no-sop-class", "not-dicom", "structured-report", "truncated", "waveform",
    }  # fmt: skip
    assert not unexpected


def test_every_zip_and_every_name_in_it_has_a_row(tmp_path: Path, headers_only: Profile) -> None:
    src = tmp_path / "src"
    src.mkdir()
    with zipfile.ZipFile(src / "nothing.zip", "w"):
        pass
    with zipfile.ZipFile(src / "folders.zip", "w") as archive:
        archive.writestr("HWANGBO/", b"")
    first, second = dicom_files.base(), dicom_files.base()
    first.PatientID, second.PatientID = "FIRST", "SECOND"
    with pytest.warns(UserWarning), zipfile.ZipFile(src / "twice.zip", "w") as archive:
        for data in (first, second):
            archive.writestr("a.dcm", dicom_files.written(data))
    summary = pipeline.run(src, tmp_path / "out", key=KEY, profile=headers_only)
    # Of two members of one name a reader opens one: which, nobody can say from outside.
    assert summary.reasons == {"empty": 2, "doubled-member": 2}
    assert summary.inputs == 4
    assert digests(tmp_path / "out") == {}


def test_shards_together_are_what_one_run_makes(tmp_path: Path, headers_only: Profile) -> None:
    src = tree(tmp_path / "src", 16)
    names = [path.relative_to(src).as_posix() for path in sorted(src.rglob("*.dcm"))]
    lines = "".join(f"{name},P{number // 2},x,train\n" for number, name in enumerate(names))
    (src / "labels.csv").write_text("file,subject,label,split\n" + lines)
    (src / "held.dcm").write_text("no image")
    run(src, tmp_path / "whole", headers_only)
    rows = ""
    for number in (3, 1, 2):
        part = run(src, tmp_path / "parts", headers_only, shard=pipeline.Shard(number, 3),
                   report=tmp_path / f"{number}.jsonl")  # fmt: skip
        assert 0 < part.inputs < 17 and part.statuses["unchanged"] == 0
        rows += (tmp_path / f"{number}.jsonl").read_text()
    assert len(rows.splitlines()) == 17 and "labels.csv" not in digests(tmp_path / "parts")
    (tmp_path / "parts.jsonl").write_text(rows)
    last = run(src, tmp_path / "parts", headers_only, resume=True)
    assert last.statuses == {"unchanged": 16, "written": 1, "quarantined": 1}
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    own = [(row["source"], row["target"]) for row in rows_of(tmp_path / "parts.jsonl")]
    assert own == [(row["source"], row["target"]) for row in rows_of(tmp_path / "whole.jsonl")]


def test_the_process_that_holds_the_key_loads_no_decoder() -> None:
    shown = "import sys; print([name for name in sys.modules if sys.modules[name] is not None])"
    serve = f"from deid import worker_process; worker_process.main(); {shown}"
    done = subprocess.run(
        [sys.executable, "-c", serve], stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    loaded = done.stdout.decode()
    assert "'deid.worker'" in loaded
    for name in (*worker_process.KEPT_OUT, "cv2", "onnxruntime"):
        assert f"'{name}'" not in loaded
