"""kill -9 of the runner at random moments: one right outcome a job, and nothing left over.

``GLOVEBOX_SEED`` draws other moments; what was drawn is printed with the summary (``pytest -s``).
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import pickle
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from policies.document import Policy
from sandbox_runner.backends.choice import missing
from sandbox_runner.backends.local import SUPERVISOR
from sandbox_runner.lifecycle import OUTCOME, sweep
from sandbox_runner.place import FIRST_UID
from sandbox_runner.scratch import PREFIX
from sandbox_runner.spec import JobSpec
from tests.trail import Trail

pytestmark = [pytest.mark.sandbox]

SEED = int(os.environ.get("GLOVEBOX_SEED", "4"))
WEIGHTS = 4 << 20
# Long enough in each step that every one of them is hit.
TRAIN = f"""
import glovebox, time
glovebox.log(1, loss=0.5)
time.sleep(0.3)
glovebox.output("model.safetensors").write_bytes(bytes(range(256)) * {WEIGHTS // 256})
glovebox.output("metrics.json").write_text("{{}}")
"""
RIGHT = hashlib.sha256(bytes(range(256)) * (WEIGHTS // 256)).hexdigest()
RUNNER = """
import pickle, sys
from pathlib import Path
from sandbox_runner.lifecycle import run_job
spec, policy, workdir = pickle.load(open(sys.argv[1], "rb"))
outcome = run_job(spec, policy, workdir)
print(outcome.state, outcome.reason)
"""


def start(*command: object) -> subprocess.Popen[bytes]:
    """Start a runner of its own."""
    words = [sys.executable, *map(str, command)]
    return subprocess.Popen(words, stdout=subprocess.PIPE)  # its complaints are shown if it fails


def killed_at(command: tuple[object, ...], seconds: float) -> Trail:
    """Kill a runner after so many seconds, or let it end where it was faster."""
    runner = start(*command)
    trail = Trail(runner.pid)
    try:
        runner.wait(seconds)
    except subprocess.TimeoutExpired:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    trail.end()
    return trail


@pytest.mark.skipif(os.geteuid() != 0, reason="lays out mounts without a user namespace")
@pytest.mark.parametrize("how", ["the runner dies", "its first process ends"])
def test_a_process_that_its_starter_did_not_take_along_ends_too(how: str) -> None:
    """bwrap, killed in the moment before its child asked to die with it, leaves such a one."""
    seconds = 60 if how == "the runner dies" else 0.3
    plan = {
        **{name: [] for name in ("cgroups", "directories", "binds", "memory", "keep")},
        **{name: {} for name in ("files", "links", "rlimits", "env")},
        **dict.fromkeys(("uid", "gid"), FIRST_UID),
        "program": "/bin/sh",
        "argv": ["sh", "-c", f"setsid sleep 60 & sleep {seconds}"],
    }
    given = os.memfd_create("plan", 0)
    os.write(given, marshal.dumps(plan))
    os.lseek(given, 0, os.SEEK_SET)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = [sys.executable, "-I", "-S", str(SUPERVISOR), str(given), str(theirs.fileno())]
    supervisor = subprocess.Popen(words, pass_fds=[given, theirs.fileno()])
    trail = Trail(supervisor.pid)
    theirs.close()
    os.close(given)
    try:
        assert b"started" in ours.recv(4096)
        wait_until(lambda: len(trail.living()) >= 2)
        if how == "the runner dies":
            ours.close()
        supervisor.wait(5)
    finally:
        supervisor.kill()
        ours.close()
    trail.end()
    assert trail.wait(5) < 5


TRY = """
import sys
from sandbox_runner.backends import gvisor
print("ready", flush=True)
gvisor._works(sys.argv[1], "kvm")
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("runsc") is None or not os.access("/dev/kvm", os.R_OK),
    reason="tries a platform of gVisor",
)
def test_a_platform_that_is_tried_ends_with_who_tries_it() -> None:
    runner = subprocess.Popen(
        [sys.executable, "-c", TRY, str(shutil.which("runsc"))], stdout=subprocess.PIPE
    )
    trail = Trail(runner.pid)
    assert runner.stdout is not None and runner.stdout.readline() == b"ready\n"
    wait_until(lambda: len(trail.living()) >= 2 or runner.poll() is not None)
    runner.kill()
    runner.wait()
    trail.end()
    assert len(trail.processes) > 1
    assert trail.wait(5) < 5
    assert not +Counter(trail.left())


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def where(workdir: Path) -> str:
    """Return how far a job had come when its runner was killed."""
    steps = {"outcome.json": "ended", "trained.json": "collecting", "log": "running",
             "code": "staged", "data": "staging", "code.partial": "staging"}  # fmt: skip
    return next((step for name, step in steps.items() if (workdir / name).exists()), "before")


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "moments"), [("bubblewrap", 50), ("gvisor", 50)])
def test_a_runner_killed_at_random_moments(
    job: Callable[..., JobSpec],
    policy: Policy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    backend: str,
    moments: int,
) -> None:
    if missing(backend):
        pytest.skip(f"{backend} is not whole here: {', '.join(missing(backend))}")
    one = replace(job(TRAIN, memory_bytes=512 << 20), backend=backend)
    drawn = random.Random(SEED)
    given = tmp_path / "given"
    command = ("-c", RUNNER, given)

    def give(number: int) -> Path:
        name = f"{one.id}-{number}"
        workdir = tmp_path / "jobs" / name
        spec = replace(one, id=name, output=tmp_path / f"artefacts-{number}")
        given.write_bytes(pickle.dumps((spec, policy, workdir)))
        return workdir

    wholes = []
    for number in range(3):
        give(-number)
        began = time.monotonic()
        assert start(*command).wait() == 0
        wholes.append(time.monotonic() - began)
    # The shortest: moments after the end would kill nobody.
    whole = min(wholes)
    steps: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    left: Counter[str] = Counter()
    slowest = 0.0
    for number in range(1, moments + 1):
        workdir = give(number)
        trail = killed_at(command, drawn.uniform(0, whole))
        steps[where(workdir)] += 1
        if number % 2:
            # Every other successor comes while the dead one's processes are still ending.
            slowest = max(slowest, trail.wait(10))
        second = start(*command)
        after = Trail(second.pid)
        words, _ = second.communicate(timeout=120)
        after.end()
        outcomes[words.decode().strip()] += 1
        # What a runner notes of every sandbox that it only tried goes with the next start's sweep.
        sweep(tmp_path / "jobs")
        for each in (trail, after):
            left.update(each.left(workdir.name))
        plain = {path.name for path in workdir.iterdir()} - {"log", OUTCOME}
        left["plaintext"] += len(plain)
        weights = tmp_path / f"artefacts-{number}" / "model.safetensors"
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == RIGHT
        assert {path.name for path in weights.parent.iterdir()} == {
            "model.safetensors",
            "metrics.json",
        }
        document = json.loads((workdir / OUTCOME).read_text(encoding="utf-8"))
        assert [row["path"] for row in document["artefacts"]] == [
            "model.safetensors",
            "metrics.json",
        ]
    with capsys.disabled():
        print(
            f"\n{backend}: {moments} kills in {whole:.1f} s of a job, seed {SEED}; "
            f"hit {dict(steps)}; outcomes {dict(outcomes)}; left {dict(left)}; "
            f"the last process was gone after at most {slowest:.2f} s"
        )
    assert outcomes == {"finished exit": moments}
    assert slowest < 5
    assert not +left


@pytest.mark.slow
def test_the_command_killed_at_random_moments_leaves_no_plaintext(
    job: Callable[..., JobSpec],
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``glovebox sandbox run`` works in a folder of its own, which the next command removes."""
    spec = job(TRAIN)
    rooms = tmp_path / "rooms"
    rooms.mkdir()
    monkeypatch.setenv("TMPDIR", str(rooms))
    moments, drawn = 12, random.Random(SEED)
    left: Counter[str] = Counter()
    codes: Counter[int] = Counter()

    def command(output: Path) -> tuple[object, ...]:
        return ("-m", "glovebox_cli", "sandbox", "run", spec.submission, "--data",
                f"mini={dataset}", "--output", output, "--backend", "bubblewrap",
                "--json")  # fmt: skip

    began = time.monotonic()
    assert start(*command(tmp_path / "first")).wait() == 0
    whole = time.monotonic() - began
    for number in range(moments):
        output = tmp_path / f"out-{number}"
        trail = killed_at(command(output), drawn.uniform(0, whole))
        trail.wait(10)
        second = start(*command(output))
        after = Trail(second.pid)
        words, _ = second.communicate(timeout=120)
        after.end()
        codes[second.returncode] += 1
        assert json.loads(words)["state"] == "finished"
        for each in (trail, after):
            left.update(each.left())
        left["plaintext"] += len(list(rooms.glob(f"{PREFIX}*")))
    with capsys.disabled():
        print(f"\nglovebox sandbox run: {moments} kills in {whole:.1f} s, seed {SEED}; "
              f"exit codes {dict(codes)}; left {dict(left)}")  # fmt: skip
    assert codes == {0: moments}
    assert not +left
