"""Waiting for a disk is seen from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from sandbox_runner import data_wait
from sandbox_runner.data_wait import DataWait

# vfork's parent waits in state D until its child has ended: a wait that needs no slow disk.
WAITS = """
import ctypes, sys
libc = ctypes.CDLL(None)
print("ready", flush=True)
if libc.vfork() == 0:
    libc.usleep(900_000)
    libc._exit(0)
libc.usleep(60_000_000)
"""


@pytest.fixture(autouse=True)
def every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_wait, "LOOK_SECONDS", 0.0)


def test_a_process_that_computes_or_sleeps_does_not_wait() -> None:
    watch = DataWait(lambda: [os.getpid()])
    assert watch.share is None
    watch.look()
    threading.Event().wait(0.01)
    watch.look()
    assert watch.share == 0


def test_a_process_in_an_uninterruptible_wait_does() -> None:
    process = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        watch = DataWait(lambda: [process.pid])
        watch.look()
        assert watch.share == 1
        time.sleep(1.5)
        watch.look()
        assert watch.share == 0.5
    finally:
        process.kill()
        process.wait()


NAMED = """
import ctypes
libc = ctypes.CDLL(None)
libc.prctl(15, b"\\xff) D \\xfe\\x80", 0, 0, 0)
print("ready", flush=True)
libc.usleep(60_000_000)
"""


def test_a_name_that_is_no_text_stops_nobody_from_looking() -> None:
    process = subprocess.Popen([sys.executable, "-c", NAMED], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        watch = DataWait(lambda: [process.pid])
        watch.look()
        assert watch.share == 0
    finally:
        process.kill()
        process.wait()


def test_what_has_gone_and_what_has_many_threads_costs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(data_wait, "THREADS", 1)
    watch = DataWait(lambda: [2**22 + 1, os.getpid(), os.getpid()])
    watch.look()
    assert watch.share == 0
