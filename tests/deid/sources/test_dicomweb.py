"""Originals over DICOMweb, from an archive of the test's own."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from deid.__main__ import main as deid
from deid.sources import dicomweb, fetching
from deid.sources.credentials import Credentials, read
from deid.sources.dicomweb import DicomWeb
from deid.sources.fetching import Summary
from policies.errors import CannotRun, Invalid
from synthetic import dicom_files
from tests.deid.sources.counterparts import (
    NAME,
    Archive,
    Handler,
    Server,
    command,
    dicom,
    opened,
    serving,
    taken,
)

TOKEN = "very-secret-token"


def named(number: int) -> str:
    prefix = dicom_files.PREFIX
    return f"{prefix}.100.{number % 3}/{prefix}.200.{number % 3}/{prefix}.300.{number}"


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "PAUSE_SECONDS", 0)
    with serving(Archive) as server:
        for number in range(10):
            server.files[named(number)] = dicom(number)
        yield server


def fetched(archive: Server, folder: Path, **bounds: int) -> Summary:
    source = DicomWeb(f"{archive.address}/web/", Credentials(token=TOKEN), [])
    with opened(folder, **bounds) as originals:
        return fetching.fetch(source, originals)


def asked(archive: Server) -> list[str]:
    return [path for path in archive.requests if "/series/" in path]


def place(number: int) -> str:
    study, series, instance = named(number).split("/")
    return f"/web/studies/{study}/series/{series}/instances/{instance}"


def test_all_instances_arrive_and_a_second_run_asks_for_none(
    archive: Server, tmp_path: Path
) -> None:
    assert fetched(archive, tmp_path / "in").new == 10
    assert sorted(taken(tmp_path / "in").values()) == sorted(archive.files.values())
    assert {each["Authorization"] for each in archive.headers} == {f"Bearer {TOKEN}"}
    archive.requests.clear()
    assert fetched(archive, tmp_path / "in").already == 10
    assert not asked(archive)


def test_what_was_fetched_is_de_identified_as_any_folder(archive: Server, tmp_path: Path) -> None:
    fetched(archive, tmp_path / "in")
    assert deid(["keygen", str(tmp_path / "key")]) == 0
    words = [str(tmp_path / "in"), str(tmp_path / "out"), "--key", str(tmp_path / "key")]
    assert deid([*words, "--workers", "1"]) == 0
    clean = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(clean) == 10
    assert not any(NAME.encode() in path.read_bytes() for path in clean)
    assert all(pydicom.dcmread(path).PatientIdentityRemoved == "YES" for path in clean)


def answering(kind: str, elsewhere: str) -> object:
    body = dicom(4)

    def answer(handler: Handler) -> None:
        assert isinstance(handler, Archive)
        head = b"--b0undary\r\nContent-Type: application/dicom\r\n\r\n"
        related = 'multipart/related; type="application/dicom"; boundary=b0undary'
        if kind == "boundary":
            handler.part(body, inner="another")
        elif kind == "plain":
            handler.answer(200, body, "application/dicom")
        elif kind == "truncated":
            handler.answer(200, head + body, related)
        elif kind == "cut":
            handler.answer(200, head + body[:-9], related, length=str(len(body) + 99))
        elif kind == "other":
            handler.part(dicom(5))
        elif kind == "not-dicom":
            handler.part(b"<html>log in</html>")
        elif kind == "huge":
            handler.part(body + bytes(200_000))
        elif kind == "gzip":
            data = gzip.compress(head + body + b"\r\n--b0undary--")
            handler.answer(200, data, related, **{"Content-Encoding": "gzip"})
        elif kind == "redirect":
            handler.answer(302, b"", Location=elsewhere)
        elif kind == "busy":
            handler.answer(503, b"")
        else:
            handler.answer(401, NAME.encode())

    return answer


@pytest.mark.parametrize(
    ("kind", "reason", "asks"),
    [
        ("boundary", "truncated", 3),
        ("plain", "not-multipart", 1),
        ("truncated", "truncated", 3),
        ("cut", "truncated", 3),
        ("other", "other-instance", 1),
        ("not-dicom", "not-dicom", 1),
        ("huge", "too-large", 1),
        ("gzip", "encoded", 1),
        ("redirect", "redirect", 1),
        ("busy", "busy", 3),
        ("denied", "denied", 1),
    ],
)
def test_one_bad_answer_is_counted_and_taken_the_next_time(
    kind: str, reason: str, asks: int, archive: Server, tmp_path: Path
) -> None:
    with serving(Archive) as elsewhere:
        archive.answers[place(4)] = answering(kind, elsewhere.address + place(4))  # type: ignore[assignment]
        first = fetched(archive, tmp_path / "in", file_bytes=100_000)
        assert not elsewhere.requests
    assert dict(first.refused) == {reason: 1}
    assert archive.requests.count(place(4)) == asks
    assert len(taken(tmp_path / "in")) == 9
    archive.answers.clear()
    assert fetched(archive, tmp_path / "in").new == 1
    assert len(taken(tmp_path / "in")) == 10


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"nothing",
        b"[" * 100_000,
        b'[{"0020000D": {"vr": "UI"}}]',
        b'[{"0020000D": {"vr": "UI", "Value": ["../../etc"]}}]',
        b'[{"0020000D": {"vr": "UI", "Value": ["1.2?limit=1"]}}]',
        b'[{"0020000D": {"vr": "UI", "Value": [12]}}]',
        b'[{"0020000D": {"vr": "UI", "Value": ["' + b"1" * 65 + b'"]}}]',
        b"[[]]",
    ],
)
def test_a_list_that_is_none_ends_the_run_before_anything_is_asked(
    body: bytes, archive: Server, tmp_path: Path
) -> None:
    archive.answers["/web/studies"] = lambda handler: handler.answer(200, body, "application/json")
    with pytest.raises(CannotRun, match="gave no list"):
        fetched(archive, tmp_path / "in")
    assert archive.requests == ["/web/studies"]


def test_a_list_that_leads_to_another_host_is_not_followed(archive: Server, tmp_path: Path) -> None:
    with serving(Archive) as elsewhere:
        to = elsewhere.address + "/web/studies"
        archive.answers["/web/studies"] = lambda handler: handler.answer(302, Location=to)
        with pytest.raises(CannotRun, match="redirect"):
            fetched(archive, tmp_path / "in")
        assert not elsewhere.requests


def test_a_list_larger_than_a_page_may_be_is_not_kept(
    archive: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "PAGE_BYTES", 1000)
    archive.answers["/web/studies"] = lambda handler: handler.answer(200, b" " * 2000)
    with pytest.raises(CannotRun, match="too-large"):
        fetched(archive, tmp_path / "in")


def test_an_archive_that_knows_no_offset_is_listed_once(archive: Server, tmp_path: Path) -> None:
    study = named(0).split("/")[0]
    page = json.dumps([{"0020000D": {"vr": "UI", "Value": [study]}}]).encode()
    archive.answers["/web/studies"] = lambda handler: handler.answer(200, page)
    assert fetched(archive, tmp_path / "in").listed == 4
    assert archive.requests.count("/web/studies") == 2


def test_a_list_without_end_is_left(archive: Server, tmp_path: Path) -> None:
    count = 0

    def endless(handler: Handler) -> None:
        nonlocal count
        rows = [{"0020000D": {"vr": "UI", "Value": [f"1.{count}.{n}"]}} for n in range(50)]
        count += 1
        handler.answer(200, json.dumps(rows).encode())

    archive.answers["/web/studies"] = endless
    source = DicomWeb(f"{archive.address}/web", Credentials(), [], rows=100)
    with pytest.raises(CannotRun, match="more than the folder"):
        list(source._list("/studies", [], (dicomweb.STUDY,)))
    assert count == 3


def test_killed_in_the_middle_the_next_run_loses_nothing_and_takes_nothing_twice(
    archive: Server, tmp_path: Path
) -> None:
    archive.before_file = lambda: time.sleep(0.03)
    folder, address = tmp_path / "in", f"{archive.address}/web"
    process = command("fetch", address, str(folder))
    end = time.monotonic() + 20
    while len(asked(archive)) < 5 and time.monotonic() < end:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -9
    process.communicate()
    process = command("fetch", address, str(folder), "--json")
    document = json.loads(process.communicate()[0])
    assert process.returncode == 0
    assert document["already"] >= 3
    assert sorted(taken(folder).values()) == sorted(archive.files.values())
    assert len(asked(archive)) <= 12


def test_the_command_takes_a_query_and_credentials_from_files_and_says_nothing(
    archive: Server, tmp_path: Path
) -> None:
    (tmp_path / "query").write_text(f"# one patient\nPatientID = {NAME}4\n")
    secret = tmp_path / "credentials.toml"
    secret.write_text(f'user = "{NAME}"\npassword = "{TOKEN}"\n')
    secret.chmod(0o600)
    archive.answers[place(4)] = answering("denied", "")  # type: ignore[assignment]
    process = command(
        "fetch", f"{archive.address}/web", str(tmp_path / "in"), "--json",
        "--query", str(tmp_path / "query"), "--credentials", str(secret),
    )  # fmt: skip
    out, err = process.communicate()
    assert process.returncode == 1
    assert json.loads(out)["refused"] == {"denied": 1}
    for word in (NAME, TOKEN, dicom_files.PREFIX):
        assert word not in out + err
    assert archive.headers[0]["Authorization"].startswith("Basic ")
    assert archive.queries[0]["PatientID"] == f"{NAME}4"


@pytest.mark.parametrize(
    "address",
    [
        "http://pacs.example.org/web", "https://user:word@pacs.example.org/web", "ftp://127.0.0.1",
        "https://pacs.example.org/web?PatientID=1", "https://", "https://a:99999/", "pacs/web",
    ],
)  # fmt: skip
def test_a_wrong_or_open_address_is_refused(address: str) -> None:
    with pytest.raises(Invalid) as caught:
        DicomWeb(address, Credentials(), [])
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("text", ["PatientID", "=1", "PatientID=", "limit=1", "a b=1", "a&b=1"])
def test_a_query_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "query").write_text(f"StudyDate=20250101-\n{text}\n")
    with pytest.raises(Invalid, match="Line 2"):
        dicomweb.read_query(tmp_path / "query")


@pytest.mark.parametrize(
    ("text", "mode"),
    [('token = "x"', 0o640), ("token = 1", 0o600), ('word = "x"', 0o600), ("=", 0o600)],
)  # fmt: skip
def test_credentials_that_others_may_read_or_that_are_none_are_refused(
    text: str, mode: int, tmp_path: Path
) -> None:
    path = tmp_path / "credentials"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(Invalid):
        read(path)
    assert "x" not in repr(Credentials(token="x", password="x", secret_key="x")).split("(")[1]
