"""What a job says: floods, forgeries, and the texts of its exceptions stay inside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox_runner.backends import Backend
from sandbox_runner.image import ROOM
from sandbox_runner.progress import ProgressReader
from sandbox_runner.running import _Log
from sandbox_runner.spec import Fault, Mount, SandboxResult, SandboxSpec
from tests.attacks.conftest import LIMITS

CODE = {"train.py": 10, "sub/model.py": 3}


def read(*lines: bytes) -> tuple[list[tuple[int, dict[str, float]]], ProgressReader]:
    seen: list[tuple[int, dict[str, float]]] = []
    reader = ProgressReader(
        frozenset({"loss"}), CODE, lambda step, values: seen.append((step, dict(values)))
    )
    for line in lines:
        reader.feed(line + b"\n")
    return seen, reader


def line(**document: Any) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "forged",
    [
        line(step=1, values={"patient Kim": 1.0}),
        line(step=1, values={"loss": "Kim"}),
        line(step=1, values={"loss": True}),
        line(step=1, values={"loss": [1, 2]}),
        line(step=1, values={"loss": 10**400}),
        b'{"step": 1, "values": {"loss": NaN}}',
        b'{"step": 1, "values": {"loss": Infinity}}',
        b'{"step": 1, "values": {"loss": 1e999}}',
        line(step=-1, values={"loss": 1.0}),
        line(step=10**30, values={"loss": 1.0}),
        line(step=1.5, values={"loss": 1.0}),
        line(step=True, values={"loss": 1.0}),
        line(step=1, values={"loss": 1.0}, note="Kim"),
        line(step=1, values=[1.0]),
        b"[" * 4000,
        b'{"step": 1, "values": {"loss": 1.0}' + b" " * 5000 + b"}",
        b"\xff\xfe\x00",
        b"null",
        b"",
    ],
)
def test_a_forged_tick_says_nothing(forged: bytes) -> None:
    seen, reader = read(forged)

    assert seen == []
    assert reader.refused
    assert reader.fault is None


def test_an_honest_tick_arrives_between_forged_ones_and_in_pieces() -> None:
    seen: list[int] = []
    reader = ProgressReader(frozenset({"loss"}), {}, lambda step, _: seen.append(step))
    stream = b"x" * 20_000 + b"\n" + line(step=3, values={"loss": 0.5}) + b"\nrubbish\n"
    for start in range(0, len(stream), 7):
        reader.feed(stream[start : start + 7])

    assert seen == [3]


@pytest.mark.parametrize(
    ("claimed", "learned"),
    [
        ({"type": "ValueError", "file": "train.py", "line": 3}, ("ValueError", "train.py", 3)),
        (
            {"type": "Patient Kim has cancer", "file": "train.py", "line": 3},
            ("other", "train.py", 3),
        ),
        ({"type": "ValueError", "file": "Kim.py", "line": 3}, ("ValueError", "", 0)),
        ({"type": "ValueError", "file": "train.py", "line": 11}, ("ValueError", "", 0)),
        ({"type": "ValueError", "file": "train.py", "line": 0}, ("ValueError", "", 0)),
        ({"type": "ValueError", "file": "train.py", "line": True}, ("ValueError", "", 0)),
        ({"type": "ValueError", "file": "../train.py", "line": 1}, ("ValueError", "", 0)),
        ({"type": "print", "file": "sub/model.py", "line": 3}, ("other", "sub/model.py", 3)),
        ({"type": ["ValueError"], "file": {}, "line": "3"}, ("other", "", 0)),
        ({}, ("other", "", 0)),
    ],
)
def test_of_a_fault_only_known_words_are_learned(
    claimed: dict[str, Any], learned: tuple[str, str, int]
) -> None:
    _, reader = read(line(fault=claimed))

    assert reader.fault == Fault(*learned)


def test_only_the_first_fault_counts() -> None:
    _, reader = read(
        line(fault={"type": "KeyError", "file": "train.py", "line": 1}),
        *(line(fault={"type": "ValueError", "file": "train.py", "line": n}) for n in range(1, 11)),
    )

    assert reader.fault == Fault("KeyError", "train.py", 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_takes_no_more_cuts_the_log_and_says_so(tmp_path: Path) -> None:
    options = ["-t", "tmpfs", "-o", "size=16k"]
    subprocess.run(["mount", *options, "none", str(tmp_path)], check=True)
    try:
        with contextlib.closing(_Log(tmp_path / "log", 1 << 20)) as log:
            for _ in range(10):
                log.write(b"x" * 3001)
        text = (tmp_path / "log").read_bytes()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)

    assert 8_000 < len(text) <= 16 << 10
    assert text.startswith(b"xxx") and text.endswith(b"[cut: the disk takes no more]\n")


@pytest.fixture
def run(backend: Backend, tmp_path: Path) -> Callable[..., tuple[SandboxResult, bytes, list[Any]]]:
    """Return a function that runs a program sealed: its result, log and ticks."""

    def run(
        program: str, log: Path = tmp_path / "log", **limits: Any
    ) -> tuple[SandboxResult, bytes, list[Any]]:
        code = tmp_path / "code"
        code.mkdir()
        (code / "train.py").write_text(program, encoding="utf-8")
        ticks: list[Any] = []
        spec = SandboxSpec(
            id=f"words-{tmp_path.name[-40:]}",
            argv=("python", "/opt/glovebox/start.py", "/code/train.py"),
            limits=replace(LIMITS, **limits),
            mounts=(Mount(code, "/code"), Mount(ROOM / "inside", "/opt/glovebox")),
            env={"GLOVEBOX_CODE": "/code", "GLOVEBOX_OUTPUT": "/output"},
            workdir="/code",
            output=tmp_path / "output",
            progress=lambda step, values: ticks.append((step, dict(values))),
            metrics=frozenset({"loss"}),
            code={"train.py": program.count("\n") + 1},
            log=log,
        )
        result = backend.run(spec)
        return result, log.read_bytes() if log.is_file() else b"", ticks

    return run


Run = Callable[..., tuple[SandboxResult, bytes, list[Any]]]


@pytest.mark.sandbox
def test_a_flood_of_words_is_cut_and_the_job_goes_on(run: Run) -> None:
    result, log, _ = run(
        "import sys\nfor _ in range(300): print('x' * 99_999)\nprint('end')", log_bytes=100_000
    )

    assert (result.state, result.reason) == ("finished", "exit")
    assert len(log) < 101_000
    assert b"cut after" in log


@pytest.mark.sandbox
def test_a_log_that_nobody_can_write_does_not_end_the_job(run: Run) -> None:
    result, _, _ = run("for _ in range(9): print('x' * 99_999)", log=Path("/dev/full"))

    assert (result.state, result.reason) == ("finished", "exit")


@pytest.mark.sandbox
def test_a_flood_of_ticks_does_not_stop_the_job(run: Run) -> None:
    result, _, ticks = run(
        "import os\nfd = int(os.environ['GLOVEBOX_PROGRESS_FD'])\n"
        "for n in range(20_000): os.write(fd, b'rubbish ' * 100 + b'\\n')\n"
        'os.write(fd, b\'{"step": 1, "values": {"loss": 0.5}}\\n\')\n'
    )

    assert result.state == "finished"
    assert ticks == [(1, {"loss": 0.5})]


@pytest.mark.sandbox
def test_of_an_exception_no_text_leaves(run: Run) -> None:
    result, log, _ = run(
        "class PatientKim(ValueError):\n    pass\n\n\n"
        "def f():\n    raise PatientKim('secret')\n\n\nf()"
    )

    assert (result.state, result.reason) == ("failed", "exit")
    assert result.fault == Fault("ValueError", "train.py", 6)
    assert b"PatientKim" in log, "the log inside has it all"


@pytest.mark.sandbox
def test_a_made_up_place_in_the_code_is_not_believed(run: Run) -> None:
    result, _, _ = run(
        "exec(compile('\\n' * 20 + 'raise KeyError(1)', '/code/patient-kim.py', 'exec'))"
    )

    assert result.fault == Fault("KeyError", "", 0)


@pytest.mark.sandbox
def test_a_full_pipe_is_not_taken_for_too_many_processes(run: Run) -> None:
    result, _, _ = run(
        "import os\nread, write = os.pipe()\nos.set_blocking(write, False)\n"
        "while True:\n    os.write(write, b'x' * 65536)"
    )

    assert result.fault == Fault("BlockingIOError", "train.py", 5)
    assert (result.state, result.reason) == ("failed", "exit")


@pytest.mark.sandbox
def test_who_writes_fast_to_both_streams_is_made_to_wait(run: Run) -> None:
    result, log, _ = run(
        "import os\nfor _ in range(400):\n    os.write(1, b'x' * 65536); os.write(2, b'y' * 65536)"
    )

    assert (result.state, result.reason) == ("finished", "exit"), log[-500:]


@pytest.mark.sandbox
def test_a_syntax_error_is_placed(run: Run) -> None:
    result, _, _ = run("x = 1\nif x\n")

    assert result.fault == Fault("SyntaxError", "train.py", 2)


@pytest.mark.sandbox
def test_a_forged_end_is_not_believed(run: Run) -> None:
    result, _, _ = run(
        "import os\n"
        "for fd in range(3, 200):\n"
        '    try: os.write(fd, b\'{"exit-code": 0}{"ended": 0}\')\n'
        "    except OSError: pass\n"
        "os._exit(9)"
    )

    assert (result.state, result.reason, result.exit_code) == ("failed", "exit", 9)
