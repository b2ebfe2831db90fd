"""The doctor believes what it met: a limit that a kernel only claims to hold is missing."""

from __future__ import annotations

import errno
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, cast

import pytest

from sandbox_runner.backends import Backend, cgroups, choice, trial
from sandbox_runner.backends.bubblewrap import Bubblewrap
from sandbox_runner.backends.interface import Line
from sandbox_runner.lifecycle import sweep


def _lines(backend: Backend) -> dict[str, Line]:
    return {line.name: line for line in trial._limits(backend, frozenset(cgroups.CONTROLLERS))}


@pytest.mark.sandbox
def test_every_limit_is_exceeded_and_holds(bubblewrap: Backend) -> None:
    lines = _lines(bubblewrap)

    assert {name: line.state for name, line in lines.items()} == {
        "memory is bounded, swap included": "held",
        "processes and threads are bounded": "held",
        "processor time is bounded": "held",
        "its time ends what will not end": "held",
        "nothing survives the end": "held",
        "its log is bounded": "held",
    }, lines


@pytest.mark.sandbox
@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize(
    ("lie", "line"),
    [
        ("_pids", "processes and threads are bounded"),
        ("_memory", "memory is bounded, swap included"),
    ],
)
def test_a_kernel_that_only_says_so_is_found_out(
    lie: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups.Group, lie, lambda *_: True)
    # What has no limit must end here by itself.
    monkeypatch.setattr(trial, "HOG", "held = b'x' * (300 << 20)")

    found = _lines(Bubblewrap())[line]

    assert (found.state, found.required) == ("missing", True)


def test_a_survivor_is_seen_by_its_name() -> None:
    identifier = f"doctor-{secrets.token_hex(8)}"
    assert not trial._survives(identifier)

    process = subprocess.Popen([sys.executable, "-c", "input()", identifier], stdin=subprocess.PIPE)
    try:
        assert trial._survives(identifier)
    finally:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not trial._survives(identifier), "the dead may wait for their burial"
    process.wait()


@pytest.mark.parametrize(
    ("name", "files", "encrypted"),
    [
        ("dm-0", {"dm/uuid": "CRYPT-LUKS2-0123-swap\n"}, True),
        ("dm-1", {"dm/uuid": "LVM-0123\n"}, False),
        ("zram0", {"backing_dev": "none\n"}, True),
        ("zram1", {"backing_dev": "/dev/sda3\n"}, False),
        ("sda2", {}, False),
        ("swapfile", {}, False),
    ],
)
def test_swap_is_open_unless_it_is_known_to_be_closed(
    name: str, files: dict[str, str], encrypted: bool, tmp_path: Path
) -> None:
    for path, text in files.items():
        (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / path).write_text(text, encoding="ascii")

    assert trial._encrypted(f"/dev/{name}", tmp_path) is encrypted


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Return a function that starts a new process's choice and counts what it tried."""
    monkeypatch.setattr(choice, "directory", lambda: tmp_path)
    held = [Line("starts", "held")]

    def start(*lines: Line, version: str = "1") -> int:
        count: list[int] = []
        choice._held.clear()
        found = list(lines) or held
        monkeypatch.setattr(Bubblewrap, "check", lambda _: count.append(1) or found)
        monkeypatch.setattr(Bubblewrap, "version", lambda _: version)
        assert choice.missing("bubblewrap") == tuple(
            line.name for line in found if line.state == "missing"
        )
        assert choice.missing("bubblewrap") is not None
        choice._held.clear()
        return len(count)

    return start


def test_what_held_is_tried_once_a_boot_and_version(tries: Callable[..., int]) -> None:
    assert tries() == 1
    assert tries() == 0
    assert tries(version="2") == 1
    assert tries(version="2") == 0


def test_what_did_not_hold_is_tried_again_each_time(tries: Callable[..., int]) -> None:
    lacks = Line("starts", "missing")

    assert tries(lacks) == 2
    assert tries(lacks) == 2
    assert tries() == 1


def test_another_boot_is_another_machine(
    tries: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tries() == 1
    monkeypatch.setattr(cgroups, "find", lambda: cgroups.Hierarchy({}, None, frozenset()))
    assert tries() == 1, "nor what has other control groups"


def test_two_threads_that_find_the_same_note_it_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither takes the other's note away from under it."""
    write, both = Path.write_text, threading.Barrier(2)
    monkeypatch.setattr(choice, "directory", lambda: tmp_path)

    def check_together(_: object) -> list[Line]:
        both.wait(10)
        return [Line("starts", "held")]

    def write_together(path: Path, text: str, encoding: str) -> int:
        count = write(path, text, encoding)
        both.wait(10)
        return count

    monkeypatch.setattr(Bubblewrap, "check", check_together)
    monkeypatch.setattr(Path, "write_text", write_together)
    choice._held.clear()
    try:
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(choice.missing, ["bubblewrap"] * 2)) == [(), ()]
    finally:
        choice._held.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["held-bubblewrap"]


class _Short:
    """A backend on a machine that has no process left to give."""

    name = "bubblewrap"

    def run(self, *_: object) -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_a_machine_that_is_short_of_something_lacks_a_line() -> None:
    short = cast(Backend, _Short())

    [limits] = trial._limits(short, frozenset())
    gpus = trial._gpus(short)

    assert (limits.state, limits.required) == ("missing", True)
    assert (gpus.state, gpus.required) == ("missing", False)
    assert os.strerror(errno.EAGAIN) in limits.detail


KILLED = """
import os
from sandbox_runner.backends import trial
from sandbox_runner.backends.bubblewrap import Bubblewrap
trial._try(Bubblewrap(), "import time; time.sleep(60)", wall_seconds=60)
"""


@pytest.mark.sandbox
def test_a_doctor_that_is_killed_leaves_no_folder(
    bubblewrap: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    doctor = subprocess.Popen(
        [sys.executable, "-c", KILLED], env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    until = time.monotonic() + 20
    while not list(tmp_path.glob("*/log")) and time.monotonic() < until:
        time.sleep(0.01)
    assert list(tmp_path.glob("*/log"))
    doctor.kill()
    doctor.wait()

    sweep(None)

    assert not list(tmp_path.iterdir())
