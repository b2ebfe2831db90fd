"""Originals from an S3 prefix, through the real client against a server of the test's own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deid.sources import fetching
from deid.sources.credentials import Credentials
from deid.sources.fetching import Summary
from deid.sources.originals import Full
from deid.sources.s3 import S3
from policies.errors import CannotRun, Invalid
from tests.deid.sources.counterparts import (
    NAME,
    Handler,
    Server,
    Store,
    command,
    dicom,
    opened,
    serving,
    taken,
)

SECRET = "very-secret-key"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "PAUSE_SECONDS", 0)
    with serving(Store) as server:
        for number in range(9):
            server.files[f"study/{NAME}/{number} 한.dcm"] = dicom(number)
        server.files["other/9"] = b"not asked for"
        monkeypatch.setenv("GLOVEBOX_INTAKE_S3_ENDPOINT", server.address)
        yield server


def source() -> S3:
    return S3("s3://bucket/study/", Credentials(access_key="key", secret_key=SECRET))


def fetched(folder: Path, **bounds: int) -> Summary:
    with opened(folder, **bounds) as originals:
        return fetching.fetch(source(), originals)


def asked(store: Server) -> list[str]:
    return [path for path in store.requests if path.count("/") > 1]


def test_all_of_a_prefix_arrives_and_a_second_run_asks_for_nothing(
    store: Server, tmp_path: Path
) -> None:
    assert fetched(tmp_path / "in").new == 9
    expected = {body for name, body in store.files.items() if name.startswith("study/")}
    assert set(taken(tmp_path / "in").values()) == expected
    store.requests.clear()
    again = fetched(tmp_path / "in")
    assert (again.new, again.already) == (0, 9)
    assert not asked(store)
    assert "AWS4-HMAC-SHA256" in store.headers[0]["Authorization"]


def test_what_changed_at_the_store_is_taken_as_well_and_nothing_twice(
    store: Server, tmp_path: Path
) -> None:
    fetched(tmp_path / "in")
    store.files[f"study/{NAME}/0 한.dcm"] = dicom(77)
    store.files["study/copy"] = dicom(1)
    again = fetched(tmp_path / "in")
    assert (again.new, again.doubled, again.already) == (1, 1, 8)
    assert len(taken(tmp_path / "in")) == 10


@pytest.mark.parametrize("name", ["study/../../../etc/x", "study//a", "study/a\n{}", "study/.."])
def test_a_name_that_climbs_changes_nothing_outside(
    name: str, store: Server, tmp_path: Path
) -> None:
    store.files[name] = b"hostile"
    summary = fetched(tmp_path / "deep" / "in")
    assert summary.new + summary.refused.total() == summary.listed == 10
    assert summary.new >= 9
    taken(tmp_path / "deep" / "in")
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {
        "in", "in.intake.jsonl", ".in.intake",
    }  # fmt: skip


def one(store: Server) -> str:
    return f"/bucket/study/{NAME}/4 한.dcm"


def hostile(kind: str, elsewhere: str) -> object:
    body = dicom(4)

    def answer(handler: Handler) -> None:
        if kind == "truncated":
            handler.answer(200, body[:-9], length=str(len(body)))
        elif kind == "shorter":
            handler.answer(200, body[:-9])
        elif kind == "longer":
            handler.answer(200, body + b"x")
        elif kind == "changed":
            handler.answer(200, body, ETag='"other"')
        elif kind == "gone":
            handler.answer(404, b"<Error><Code>NoSuchKey</Code><Message>n</Message></Error>")
        elif kind == "denied":
            handler.answer(403, b"<Error><Code>AccessDenied</Code><Message>n</Message></Error>")
        elif kind == "busy":
            handler.answer(503, b"<Error><Code>SlowDown</Code><Message>n</Message></Error>")
        elif kind == "proxy":
            handler.answer(502, b"<html>no</html>", "text/html")
        elif kind == "odd":
            handler.answer(500, b"\xff" * 100, "text/html")
        else:
            handler.answer(302, b"", Location=elsewhere)

    return answer


@pytest.mark.parametrize(
    ("kind", "reason", "asks"),
    [
        ("truncated", "unreachable", 3), ("shorter", "truncated", 3), ("longer", "changed", 1),
        ("changed", "changed", 1), ("gone", "gone", 1), ("denied", "denied", 1),
        ("busy", "busy", 3), ("proxy", "busy", 3), ("odd", "denied", 1), ("redirect", "denied", 1),
    ],
)  # fmt: skip
def test_one_bad_answer_is_counted_and_taken_the_next_time(
    kind: str, reason: str, asks: int, store: Server, tmp_path: Path
) -> None:
    with serving(Store) as elsewhere:
        elsewhere.files["x"] = dicom(4)
        store.answers[one(store)] = hostile(kind, f"{elsewhere.address}/bucket/x")  # type: ignore[assignment]
        first = fetched(tmp_path / "in")
        assert not elsewhere.requests
    assert dict(first.refused) == {reason: 1}
    assert store.requests.count(one(store)) == asks
    assert len(taken(tmp_path / "in")) == 8
    store.answers.clear()
    assert fetched(tmp_path / "in").new == 1
    assert len(taken(tmp_path / "in")) == 9


def test_a_list_that_leads_to_another_host_is_not_followed(store: Server, tmp_path: Path) -> None:
    with serving(Store) as elsewhere:
        store.answers["/bucket"] = hostile("redirect", f"{elsewhere.address}/bucket")  # type: ignore[assignment]
        with pytest.raises(CannotRun, match="gave no list"):
            fetched(tmp_path / "in")
        assert not elsewhere.requests


def test_what_is_too_large_is_not_even_asked_for(store: Server, tmp_path: Path) -> None:
    store.files["study/huge"] = bytes(100_000)
    assert dict(fetched(tmp_path / "in", file_bytes=50_000).refused) == {"too-large": 1}
    assert "/bucket/study/huge" not in store.requests


def test_more_than_the_folder_may_hold_ends_the_run(store: Server, tmp_path: Path) -> None:
    with pytest.raises(Full, match="--files"):
        fetched(tmp_path / "in", files=5)
    assert len(taken(tmp_path / "in")) == 5
    assert fetched(tmp_path / "in").new == 4


def test_a_store_that_goes_away_ends_the_run(store: Server, tmp_path: Path) -> None:
    for number in range(12):
        store.files[f"study/z{number:02}"] = b"%d" % number
        store.answers[f"/bucket/study/z{number:02}"] = hostile("busy", "")  # type: ignore[assignment]
    with pytest.raises(CannotRun, match="stopped answering"):
        fetched(tmp_path / "in")
    assert len(taken(tmp_path / "in")) == 9


def test_killed_in_the_middle_the_next_run_loses_nothing_and_takes_nothing_twice(
    store: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    for number in range(30):
        store.files[f"study/{NAME}/more {number}"] = dicom(100 + number, 300_000)
    store.before_file = lambda: time.sleep(0.02)
    killed = 0
    for _round in range(3):
        process = command("fetch", "s3://bucket/study/", str(folder))
        before = len(asked(store))
        end = time.monotonic() + 20
        while len(asked(store)) < before + 6 and time.monotonic() < end:
            time.sleep(0.005)
        process.kill()
        killed += process.wait() == -9
        process.communicate()
        for path in folder.rglob("*"):
            assert path.is_dir() or path.read_bytes() in store.files.values()
    assert killed == 3
    assert 0 < len([path for path in folder.rglob("*") if path.is_file()]) < 39
    store.before_file = lambda: None
    process = command("fetch", "s3://bucket/study/", str(folder), "--json")
    document = json.loads(process.communicate()[0])
    assert process.returncode == 0
    assert document["new"] + document["already"] + document["doubled"] == 39
    assert len(taken(folder)) == 39
    # What was whole before is not fetched again, but for the one that each kill cut off.
    assert len(asked(store)) <= 39 + 2 * killed


def test_the_command_says_no_name_and_no_secret(store: Server, tmp_path: Path) -> None:
    store.answers[one(store)] = hostile("redirect", f"http://{NAME}.example.org/")  # type: ignore[assignment]
    process = command(
        "fetch", f"s3://bucket/study/{NAME}", str(tmp_path / "in"), "--json",
        GLOVEBOX_INTAKE_ACCESS_KEY="key", GLOVEBOX_INTAKE_SECRET_KEY=SECRET,
    )  # fmt: skip
    out, err = process.communicate()
    assert process.returncode == 1
    assert json.loads(out)["refused"] == {"denied": 1}
    assert NAME not in out + err
    assert SECRET not in out + err
    kept = b"".join(
        path.read_bytes()
        for path in [tmp_path / "in.intake.jsonl", *(tmp_path / ".in.intake").rglob("*")]
        if path.is_file()
    )
    assert NAME.encode() not in kept
    assert SECRET.encode() not in kept


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("s3://", "http://127.0.0.1:1"), ("s3://UPPER/x", "http://127.0.0.1:1"),
        ("s3://key:secret@bucket/x", "http://127.0.0.1:1"), ("s3://bucket/x", ""),
        ("s3://bucket/x", "http://s3.example.org"), ("s3://bucket/x", "https://a:b@s3.example.org"),
        ("s3://bucket/x", "https://s3.example.org/path"), ("s3://bucket/x", "ftp://s3.example.org"),
    ],
)  # fmt: skip
def test_a_wrong_or_open_address_is_refused(
    address: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOVEBOX_INTAKE_S3_ENDPOINT", endpoint)
    with pytest.raises(Invalid):
        S3(address, Credentials())
