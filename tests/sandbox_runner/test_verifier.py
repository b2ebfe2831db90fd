"""Pieces that are not what they should be are found by a process of its own, which never stays."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_runner.backends.local import children
from sandbox_runner.sealed_split import DataFault
from sandbox_runner.verifier import Verifier

PIECES = [b"first", b"", b"second" * 100_000, b"last"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "shard"
    path.write_bytes(b"before" + b"".join(PIECES))
    return path


def asked(verifier: Verifier, place: Path) -> None:
    digests = b"".join(hashlib.sha256(piece).digest() for piece in PIECES)
    verifier.check(place, len(b"before"), [len(piece) for piece in PIECES], digests)


def test_what_is_as_it_should_be_holds(place: Path) -> None:
    verifier = Verifier()
    for _time in range(50):
        asked(verifier, place)

    verifier.finish()

    verifier.close()


@pytest.mark.parametrize("at", [6, 11, 300_000, -1])
def test_a_changed_byte_is_found_wherever_it_is(place: Path, at: int) -> None:
    changed = bytearray(place.read_bytes())
    changed[at] ^= 1
    place.write_bytes(changed)
    verifier = Verifier()
    asked(verifier, place)

    with pytest.raises(DataFault):
        verifier.finish()


def test_a_file_that_is_too_short_is_found(place: Path) -> None:
    os.truncate(place, 1000)
    verifier = Verifier()
    asked(verifier, place)

    with pytest.raises(DataFault):
        verifier.finish()


def test_a_fault_is_told_while_more_is_being_asked(place: Path) -> None:
    os.truncate(place, 1000)
    verifier = Verifier()

    with pytest.raises(DataFault):
        for _time in range(5_000):
            asked(verifier, place)


def test_one_that_somebody_ended_has_verified_nothing(place: Path) -> None:
    verifier = Verifier()
    asked(verifier, place)
    verifier._process.send_signal(signal.SIGSTOP)  # before it can have come to its end
    asked(verifier, place)
    verifier._process.kill()

    with pytest.raises(OSError, match="ended"):
        verifier.finish()


def test_none_is_left_when_it_is_closed_or_its_parent_is_killed(place: Path) -> None:
    verifier = Verifier()
    asked(verifier, place)
    verifier.close()
    verifier.close()
    assert verifier._process.poll() is not None

    program = (
        "from sandbox_runner.verifier import Verifier\n"
        "import time\nv = Verifier()\nprint(v._process.pid, flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert child in children(parent.pid)
    handle = os.pidfd_open(child)
    parent.kill()
    parent.wait()

    assert select.select([handle], [], [], 10)[0], "it is alive"
    os.close(handle)
    parent.stdout.close()
