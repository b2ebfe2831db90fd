"""Places that change, fill up, refuse or are shared: a clear error, and nothing lost or said."""

from __future__ import annotations

import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deid import intake, output, pipeline
from deid.decoding import Decoder
from deid.profile import Profile
from deid.quarantine import Quarantined
from deid.verify import verify
from policies.errors import Invalid
from synthetic import dicom_files
from tests.deid.conftest import KEY
from tests.deid.test_pipeline import ROOT, digests, headers_only, rows_of, run, tree

__all__ = ["headers_only"]
SECRETS = (b"HWANGBO", b"MYUNGHEE", b"77123", dicom_files.PREFIX.encode())


@pytest.fixture
def mount() -> Iterator[Callable[..., Path]]:
    """Return a function that mounts a small disk of its own."""
    mounted: list[Path] = []

    def put(place: Path, size: str) -> Path:
        place.mkdir(parents=True)
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)],
            capture_output=True, check=False,
        )  # fmt: skip
        if made.returncode:
            pytest.skip("a disk of its own needs the right to mount one")
        mounted.append(place)
        return place

    yield put
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def command(src: Path, out: Path, *more: str) -> list[str]:
    key = out.parent / "key"
    if not key.exists():
        key.write_text(KEY.hex())
    report = ["--report", str(out.parent / "report.jsonl")]
    return [sys.executable, "-m", "deid", str(src), str(out), "--key", str(key), *report, *more]


def ran(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    found = subprocess.run(arguments, cwd=ROOT, capture_output=True, check=False, **options)
    for secret in SECRETS:
        assert secret not in found.stdout + found.stderr
    return found


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_disk_that_fills_in_the_middle_loses_nothing(
    workers: str, tmp_path: Path, mount: Callable[..., Path]
) -> None:
    src = tree(tmp_path / "src", 24)
    disk = mount(tmp_path / "disk", "96k")
    (tmp_path / "key").write_text(KEY.hex())
    report = ["--report", str(tmp_path / "report.jsonl"), "--key", str(tmp_path / "key")]
    arguments = [str(src), str(disk / "out"), *report, "--workers", workers, "--resume"]
    full = ran(sys.executable, "-m", "deid", *arguments)
    assert full.returncode == 3
    assert b"is full" in full.stderr and b"Traceback" not in full.stderr
    made = digests(disk / "out")
    assert made and not list(disk.rglob(f"*{output.PART_SUFFIX}"))
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    assert ran(sys.executable, "-m", "deid", *arguments).returncode == 0
    whole = digests(disk / "out")
    assert len(whole) == 24 and made.items() <= whole.items()


def test_a_place_that_only_reads_is_refused_at_once(
    tmp_path: Path, mount: Callable[..., Path]
) -> None:
    src = tree(tmp_path / "src", 2)
    disk = mount(tmp_path / "disk", "1m")
    (disk / "out").mkdir()
    arguments = command(src, tmp_path / "out")
    arguments[4] = str(disk / "out")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    refused = ran(*arguments)
    assert refused.returncode == 2 and b"DST: The output directory cannot be" in refused.stderr
    arguments[4] = str(tmp_path / "out")
    arguments[8] = str(disk / "report.jsonl")
    refused = ran(*arguments)
    assert refused.returncode == 2 and b"--report: The report cannot be" in refused.stderr


def test_a_place_that_stops_taking_files_ends_the_run_and_not_the_files(
    tmp_path: Path, mount: Callable[..., Path]
) -> None:
    src = tree(tmp_path / "src", 40)
    disk = mount(tmp_path / "disk", "16m")
    arguments = command(src, tmp_path / "out", "--workers", "2")
    arguments[4] = str(disk / "out")
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE)
    while len(list(disk.rglob("*.dcm"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    while subprocess.run(["mount", "-o", "remount,ro", str(disk)], stderr=-3).returncode:
        assert process.poll() is None
    said = process.communicate()[1]
    assert process.returncode == 3 and b"--resume" in said and b"Traceback" not in said
    assert all(row["status"] == "written" for row in rows_of(tmp_path / "report.jsonl"))
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert ran(*arguments, "--resume").returncode == 0
    assert len(digests(disk / "out")) == 40


def test_two_runs_into_one_place_are_told_apart(tmp_path: Path) -> None:
    src = tree(tmp_path / "src", 30)
    first = subprocess.Popen(command(src, tmp_path / "out"), cwd=ROOT, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "out").rglob("*.dcm")):
        assert first.poll() is None
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)
    second = ran(*command(src, tmp_path / "out"))
    assert second.returncode == 2 and b"DST: Another run is writing there" in second.stderr
    elsewhere = ran(*command(src, tmp_path / "other"))
    assert elsewhere.returncode == 2 and b"--report: Another run writes" in elsewhere.stderr
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 0
    assert len(rows_of(tmp_path / "report.jsonl")) == len(digests(tmp_path / "out")) == 30


def test_what_is_no_file_or_becomes_none_is_held_and_waited_for_by_nobody(
    tmp_path: Path, headers_only: Profile
) -> None:
    src = tree(tmp_path / "src", 4)
    victim = sorted(src.rglob("*.dcm"))[-1]
    os.mkfifo(src / "HWANGBO pipe")
    os.mknod(src / "HWANGBO null", 0o600 | 0o020000, os.makedev(1, 3))
    (src / "link").symlink_to("/etc")
    (src / os.fsdecode(b"\xff\xfe HWANGBO.dcm")).write_bytes(b"no image")

    def swap(done: int, _all: int, _row: Any) -> None:
        if done == 1:
            victim.unlink()
            os.mkfifo(victim)

    summary = run(src, tmp_path / "out", headers_only, progress=swap)
    assert summary.reasons == {"device": 2, "link": 1, "not-dicom": 1, "changed": 1}
    assert summary.inputs == 8 and summary.statuses["written"] == 3


def test_a_zip_of_members_that_share_their_bytes_is_not_unfolded(
    tmp_path: Path, headers_only: Profile
) -> None:
    src = tmp_path / "src"
    src.mkdir()
    with zipfile.ZipFile(src / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kernel", bytes(intake.SMALL_BYTES))
        kernel = archive.infolist()[0]
        for number in range(40):
            member = zipfile.ZipInfo(f"HWANGBO{number}.dcm")
            for name in ("compress_type", "compress_size", "file_size", "CRC", "header_offset"):
                setattr(member, name, getattr(kernel, name))
            archive.filelist.append(member)
    began = time.monotonic()
    summary = run(src, tmp_path / "out", headers_only)
    assert summary.reasons == {"too-large": 1} and time.monotonic() - began < 5


def test_nothing_of_anybody_is_said_or_left_in_temporary_places(tmp_path: Path) -> None:
    src = tree(tmp_path / "HWANGBO src", 6)
    bad = next(src.rglob("*.dcm")).read_bytes()
    (src / "MYUNGHEE cut.dcm").write_bytes(bad[: len(bad) // 2])
    (src / "MYUNGHEE.jpg").write_bytes(b"\xff\xd8\xff\xe1HWANGBO MYUNGHEE")
    with zipfile.ZipFile(src / "MYUNGHEE.zip", "w") as archive:
        archive.writestr("HWANGBO/77123.dcm", bad[:200])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        command(src, tmp_path / "out", "--workers", "2", "--json"), cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    seen = b""
    while process.poll() is None:
        for path in scratch.rglob("*"):
            try:
                seen += path.name.encode() + (path.read_bytes() if path.is_file() else b"")
            except OSError:
                continue
        listed = subprocess.run(
            ["ps", "-o", "args=", "-g", str(os.getpgid(0))], capture_output=True, check=False
        ).stdout
        workers = b"\n".join(line for line in listed.splitlines() if b"deid." in line)
        assert not any(secret in workers for secret in SECRETS)
    said = b"".join(process.communicate())
    said += (tmp_path / "report.jsonl").read_bytes() + seen
    said += " ".join(digests(tmp_path / "out")).encode()
    assert process.returncode == 0
    for secret in SECRETS:
        assert secret not in said
    assert not list(scratch.iterdir())
    assert tempfile.gettempdir() not in (tmp_path / "report.jsonl").read_text()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSEGV])
def test_a_decoder_that_dies_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: signal.Signals
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    decoder = Decoder()
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), "grey").save(picture, "PNG")
    question = {"operation": "photo", "text": False, "faces": False, "plates": False}
    try:
        assert decoder.ask(question, picture.getvalue())[1]
        decoder._process.send_signal(end)  # type: ignore[union-attr]
        with pytest.raises(Quarantined):
            decoder.ask(question, picture.getvalue())
        assert decoder.ask(question, picture.getvalue())[1]
        assert not list(tmp_path.iterdir())
    finally:
        decoder.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", ["SRC", "DST", "--report", "--quarantine", "--html"])
def test_a_link_that_leads_to_itself_is_a_clear_error_without_a_place(
    tmp_path: Path, wrong: str
) -> None:
    loop = tmp_path / "HWANGBO"
    loop.symlink_to(loop)
    src = tree(tmp_path / "src", 1)
    places = {"SRC": src, "DST": tmp_path / "out"}
    arguments = command(places.get(wrong, src), tmp_path / "out")
    if wrong in places:
        arguments[arguments.index(str(places[wrong]))] = str(loop)
    else:
        arguments += [wrong, str(loop / "x")]
    found = ran(*arguments)
    assert found.returncode in (2, 3) and found.stderr.startswith(b"deid: ")
    assert b"Traceback" not in found.stderr


def test_a_key_without_end_is_no_key(tmp_path: Path) -> None:
    src = tree(tmp_path / "src", 1)
    arguments = command(src, tmp_path / "out")
    arguments[arguments.index("--key") + 1] = "/dev/zero"
    found = ran(
        *arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30,) * 2)
    )
    assert found.returncode == 2 and b"64 hex digits" in found.stderr


@pytest.mark.parametrize("left", ["an empty folder", "nothing"])
def test_a_source_that_goes_away_takes_no_output_with_it(
    tmp_path: Path, headers_only: Profile, left: str
) -> None:
    src = tree(tmp_path / "src", 6)
    run(src, tmp_path / "out", headers_only)
    before = digests(tmp_path / "out")

    def take_away(done: int, _total: int, _row: object) -> None:
        if done == 1:
            shutil.rmtree(src)
            if left != "nothing":
                src.mkdir()

    with pytest.raises(pipeline.SourceGone):
        run(src, tmp_path / "out", headers_only, progress=take_away)
    assert digests(tmp_path / "out") == before
    with pytest.raises(Invalid):
        run(src, tmp_path / "out", headers_only)
    assert digests(tmp_path / "out") == before
    if left != "nothing":
        with pytest.raises(Invalid, match="nothing to read"):
            verify(tmp_path / "out", src)
    tree(src, 6)
    assert run(src, tmp_path / "out", headers_only, resume=True).statuses == {"unchanged": 6}
    assert digests(tmp_path / "out") == before
