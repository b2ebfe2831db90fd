"""The folder of originals: whole or not there, once, one intake at a time, within its bounds."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deid.sources import originals
from deid.sources.originals import Full, Refused
from policies.errors import CannotRun, Conflict, Invalid
from tests.deid.sources.counterparts import ROOT, manifest, opened, taken


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "in"


def test_an_original_is_named_by_its_digest_and_listed_once(folder: Path) -> None:
    with opened(folder) as held:
        assert held.take([b"one", b" file"], "s3")[1]
        assert not held.take([b"one file"], "dicomweb")[1]
        assert held.take([b"another"], "dimse")[1]
    assert sorted(taken(folder).values()) == [b"another", b"one file"]
    row = manifest(folder)[0]
    assert set(row) == {"digest", "bytes", "source", "when"}
    assert row["source"] == "s3"


def test_others_may_not_read_what_was_taken(folder: Path) -> None:
    with opened(folder) as held:
        held.take([b"one"], "s3")
    for path in [folder, *folder.parent.rglob("*")]:
        assert not path.stat().st_mode & 0o077


def cut_off() -> Iterator[bytes]:
    yield b"begins"
    raise Refused("truncated")


def test_what_ends_early_or_fails_leaves_nothing(folder: Path) -> None:
    def wrong(part: Path) -> None:
        assert part.read_bytes() == b"content"
        raise Refused("other-instance")

    with opened(folder) as held:
        with pytest.raises(Refused, match="truncated"):
            held.take(cut_off(), "s3")
        with pytest.raises(Refused, match="empty"):
            held.take([], "s3")
        with pytest.raises(Refused, match="other-instance"):
            held.take([b"content"], "s3", wrong)
        assert not list(held.parts.iterdir())
    assert taken(folder) == {}


@pytest.mark.parametrize(
    ("bounds", "error"),
    [
        ({"file_bytes": 9}, Refused),
        ({"files": 1}, Full),
        ({"total_bytes": 19}, Full),
        ({"free": 1 << 60}, Full),
    ],
)
def test_bounds_hold_over_runs_and_leave_what_was_there(
    bounds: dict[str, int], error: type[Exception], folder: Path
) -> None:
    with opened(folder) as held:
        held.take([b"0123456789"], "s3")
    with opened(folder, **bounds) as held, pytest.raises(error):
        held.take([b"abcde", b"fghij"], "s3")
    assert list(taken(folder).values()) == [b"0123456789"]


def test_a_disk_that_fills_while_a_file_comes_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(originals, "STEP", 4)
    with opened(folder) as held:

        def pieces() -> Iterator[bytes]:
            yield b"12345"
            monkeypatch.setattr(held, "bounds", originals.Bounds(free=1 << 60))
            yield b"67890"

        with pytest.raises(Full, match="less free space"):
            held.take(pieces(), "s3")
    assert taken(folder) == {}


def test_two_intakes_do_not_share_a_folder(folder: Path) -> None:
    with opened(folder), pytest.raises(Conflict), opened(folder):
        pass
    with opened(folder):
        pass


def test_a_folder_with_files_of_others_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes").write_text("mine")
    with pytest.raises(Conflict), opened(folder):
        pass
    assert (folder / "notes").read_text() == "mine"


KILLED = """
import os, sys
from pathlib import Path
from deid.sources import originals
STEP = int(sys.argv[2])
calls = 0

def counted(function):
    def inner(*args, **more):
        global calls
        calls += 1
        if calls == STEP:
            os.kill(os.getpid(), 9)
        return function(*args, **more)
    return inner

with originals.Originals(Path(sys.argv[1]), originals.Bounds(free=1)) as held:
    held.take([b"first"], "s3")
    os.fsync, Path.replace, Path.mkdir = map(counted, (os.fsync, Path.replace, Path.mkdir))
    originals.json.dumps = counted(originals.json.dumps)
    held.take([b"second"], "dicomweb")
    print(calls)
"""


def killed_at(folder: Path, step: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(step)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


def test_killed_at_any_step_a_folder_is_whole_when_it_is_opened_again(tmp_path: Path) -> None:
    steps = int(killed_at(tmp_path / "never", 0).stdout)
    assert steps >= 7
    kept = 0
    for step in range(1, steps + 1):
        folder = tmp_path / str(step)
        assert killed_at(folder, step).returncode == -9
        visible = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
        assert sorted(visible) in ([b"first"], [b"first", b"second"])
        with opened(folder):
            pass
        found = sorted(taken(folder).values())
        assert found in ([b"first"], [b"first", b"second"])
        kept += len(found) - 1
        with opened(folder) as held:
            held.take([b"second"], "dicomweb")
        assert sorted(taken(folder).values()) == [b"first", b"second"]
        assert [row["source"] for row in manifest(folder)] == ["s3", "dicomweb"]
    # Some kills came before the file was whole, some after: both ways back were gone.
    assert 0 < kept < steps


def test_half_a_row_is_cut_off_and_a_changed_manifest_is_refused(folder: Path) -> None:
    with opened(folder) as held:
        held.take([b"one"], "s3")
        path = held.manifest
    with path.open("a") as handle:
        handle.write('{"digest": "ab')
    with opened(folder) as held:
        held.take([b"two"], "s3")
    assert len(taken(folder)) == 2
    path.write_text(path.read_text().replace('"bytes"', '"b"', 1))
    with pytest.raises(Invalid, match="changed"), opened(folder):
        pass


def test_a_row_that_cannot_be_written_leaves_no_half(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short:
        def __init__(self, handle: object) -> None:
            self.handle = handle

        def write(self, line: bytes) -> int:
            return int(self.handle.write(line[:9]))  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.handle, name)

    with opened(folder) as held:
        held.take([b"one"], "s3")
        rows = held._rows
        held._rows = Short(rows)  # type: ignore[assignment]
        with pytest.raises(CannotRun):
            held.take([b"two"], "s3")
        held._rows = rows
        held.take([b"three"], "s3")
    with opened(folder):
        pass
    assert sorted(taken(folder).values()) == [b"one", b"three", b"two"]


def test_a_disk_that_is_full_when_it_is_noted_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, "full", "/secret/place")

    with opened(folder) as held:
        digest, _new = held.take([b"one"], "s3")
        monkeypatch.setattr(held, "_append", full)
        with pytest.raises(Full, match="Nothing was lost"):
            held.remember("token", digest)
        with pytest.raises(Full, match="Nothing was lost"):
            held.take([b"two"], "s3")
    monkeypatch.setattr(originals.Originals, "_append", full)
    with pytest.raises(Full), opened(folder):
        pass
    monkeypatch.undo()
    with opened(folder):
        pass
    assert sorted(taken(folder).values()) == [b"one", b"two"]


def test_what_was_removed_from_the_folder_is_asked_for_again(folder: Path) -> None:
    with opened(folder) as held:
        token = held.token("s3", "name")
        digest, _new = held.take([b"one"], "s3")
        held.remember(token, digest)
    with opened(folder) as held:
        assert held.has(token)
        os.truncate(held.path_of(digest), 1)
        assert not held.has(token)
        assert held.take([b"one"], "s3") == (digest, True)
    assert list(taken(folder).values()) == [b"one"]


def test_what_is_known_of_remote_names_cannot_be_guessed_without_the_folders_key(
    tmp_path: Path,
) -> None:
    with opened(tmp_path / "a") as one, opened(tmp_path / "b") as two:
        assert one.token("s3", "12345678") != two.token("s3", "12345678")
        assert one.token("a", "bc") != one.token("ab", "c")
        digest, _new = one.take([b"one"], "s3")
        one.remember(one.token("12345678"), digest)
    kept = (tmp_path / ".a.intake" / "seen.jsonl").read_text()
    assert "12345678" not in kept
    assert json.loads(kept)["digest"] == digest
