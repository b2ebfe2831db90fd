"""The benches find their parts, keep to their folder, and measure the work they say."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench import cleaners, deid, peers, portal_folder, portal_rows
from bench.__main__ import BENCHES
from policies.errors import CannotRun
from policies.workflow import JOB


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_is_a_module_with_one_entrance(name: str) -> None:
    assert callable(importlib.import_module(f"bench.{name}").run)


def test_an_unknown_bench_is_wrong_use() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "speed"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no such bench: speed" in done.stderr


def test_a_portal_of_the_bench_takes_nothing_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOVEBOX_POSTGRES_DB", "the real one")
    monkeypatch.setenv("GLOVEBOX_HOME", "/srv/the-real-one")
    found = portal_folder.environment(tmp_path)
    assert "GLOVEBOX_POSTGRES_DB" not in found
    for name in ("GLOVEBOX_HOME", "GLOVEBOX_KEYS", "GLOVEBOX_CHECKPOINTS"):
        assert Path(found[name]).is_relative_to(tmp_path)


def test_a_hundred_jobs_have_the_shares_that_are_said() -> None:
    found = Counter(portal_rows._states(100))
    assert found == {**portal_rows.STATES, "finished": 70}
    assert set(found) <= set(JOB.states)


def test_tools_clean_the_same_files_and_what_they_cannot_read_does_not_count(
    tmp_path: Path,
) -> None:
    readable = tmp_path / "readable"
    count = deid._readable_files(readable)
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    for path in sorted(readable.iterdir())[:3]:
        (chosen / path.name).write_bytes(path.read_bytes())
    (chosen / "zz.dcm").write_bytes(b"no image")
    assert count > 100
    answers = {}
    for name in ("pydicom", "cleaner", "pipeline"):
        out = tmp_path / name
        out.mkdir()
        answers[name] = cleaners.TOOLS[name]()(chosen, out)()
        assert sum(path.is_file() for path in out.rglob("*")) == len(answers[name])
    assert "zz.dcm" not in {each for written in answers.values() for each in written}
    assert len(answers["pydicom"]) == 3
    assert answers["pipeline"] == answers["cleaner"] != []


def test_peers_that_cannot_be_installed_are_said_and_not_half_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path / "peers")
    monkeypatch.setattr(peers, "PINNED", ("not a requirement at all",))
    for _time in range(2):  # the second time must not believe the leftovers of the first
        with pytest.raises(CannotRun):
            peers.python()
