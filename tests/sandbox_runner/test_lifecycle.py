"""A job from submission to artefacts: right words at the end, and no step twice or lost."""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from policies.document import Policy
from policies.errors import Conflict
from sandbox_runner import lifecycle, running
from sandbox_runner.backends import Backend, cgroups
from sandbox_runner.lifecycle import OUTCOME, RAW, TRAINED, run_job, sweep
from sandbox_runner.place import Claim, outer_uid
from sandbox_runner.spec import JobSpec, Limits, Mount, Outcome, SandboxSpec

pytestmark = [pytest.mark.sandbox, pytest.mark.usefixtures("bubblewrap")]

Job = Callable[..., JobSpec]

TRAIN = """
import glovebox, os
assert os.path.exists("/data/mini/s1/1.png") and not os.path.exists("/data/mini/s2/1.png")
glovebox.log(1, loss=0.123456789)
glovebox.output("model.safetensors").write_bytes(b"weights")
glovebox.output("metrics.json").write_text("{}")
glovebox.output("diary.txt").write_text("s1 was here")
"""


def test_a_job_ends_with_its_declared_artefacts(job: Job, policy: Policy, tmp_path: Path) -> None:
    ticks: list[tuple[int, dict[str, float]]] = []
    spec = job(TRAIN)

    outcome = run_job(
        spec, policy, tmp_path / "work", progress=lambda s, v: ticks.append((s, dict(v)))
    )

    assert (outcome.state, outcome.reason, outcome.exit_code) == ("finished", "exit", 0)
    assert {each.path for each in outcome.artefacts} == {"model.safetensors", "metrics.json"}
    assert [each.path for each in outcome.rejected] == ["diary.txt"]
    assert (spec.output / "model.safetensors").read_bytes() == b"weights"
    assert len(ticks) == 1 and ticks[0][1]["loss"] != 0.123456789, "rounded"
    assert outcome.backend == "bubblewrap" and outcome.backend_version


def test_nothing_plain_is_left_but_log_and_outcome(
    job: Job, policy: Policy, tmp_path: Path
) -> None:
    run_job(job(TRAIN), policy, tmp_path / "work")

    assert {path.name for path in (tmp_path / "work").iterdir()} == {"log", OUTCOME}


def test_a_job_that_has_ended_is_not_run_again(job: Job, policy: Policy, tmp_path: Path) -> None:
    spec = job(TRAIN)
    first = run_job(spec, policy, tmp_path / "work")
    (spec.output / "model.safetensors").unlink()

    assert run_job(spec, policy, tmp_path / "work") == first
    assert not (spec.output / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("code", "limits", "ends"),
    [
        ("raise SystemExit(3)", {}, ("failed", "exit")),
        ("x = [0] * 10**9", {"memory_bytes": 96 << 20}, ("failed", "memory")),
        ("while True: __import__('os').fork()", {"processes": 12}, ("failed", "processes")),
        (
            "open('/output/model.safetensors', 'wb').write(b'x' * (4 << 20))",
            {"output_bytes": 1 << 20},
            ("failed", "output-limit"),
        ),
        ("import time; time.sleep(60)", {"wall_seconds": 0.5}, ("stopped", "timeout")),
    ],
)
def test_each_limit_ends_with_its_own_reason(
    job: Job, policy: Policy, tmp_path: Path, code: str, limits: dict[str, float],
    ends: tuple[str, str],
) -> None:  # fmt: skip
    outcome = run_job(job(code, **limits), policy, tmp_path / "work")

    assert (outcome.state, outcome.reason) == ends
    assert outcome.artefacts == ()


def test_a_graceful_program_hears_that_its_time_is_over(
    job: Job, policy: Policy, tmp_path: Path
) -> None:
    spec = job(
        "import signal, time\n"
        "def end(*_):\n    print('saved', flush=True); raise SystemExit(0)\n"
        "signal.signal(signal.SIGTERM, end)\ntime.sleep(60)",
        wall_seconds=1,
        grace_seconds=10,
    )

    outcome = run_job(spec, policy, tmp_path / "work")

    assert (outcome.state, outcome.reason) == ("stopped", "timeout")
    assert "saved" in (tmp_path / "work" / "log").read_text(encoding="utf-8")


def test_a_cancelled_job_stops(job: Job, policy: Policy, tmp_path: Path) -> None:
    cancel = threading.Event()
    threading.Timer(0.5, cancel.set).start()

    outcome = run_job(job("import time; time.sleep(60)"), policy, tmp_path / "work", cancel=cancel)

    assert (outcome.state, outcome.reason) == ("stopped", "cancelled")


def test_a_submission_with_a_link_is_refused(job: Job, policy: Policy, tmp_path: Path) -> None:
    spec = job("pass")
    (spec.submission / "model.py").symlink_to("/etc/passwd")

    outcome = run_job(spec, policy, tmp_path / "work")

    assert (outcome.state, outcome.reason) == ("refused", "manifest")
    assert "model.py" in outcome.detail


def test_a_dataset_with_a_link_fails_for_its_data(
    job: Job, policy: Policy, dataset: Path, tmp_path: Path
) -> None:
    (dataset / "s1" / "2.png").symlink_to("/etc/passwd")

    outcome = run_job(job("pass"), policy, tmp_path / "work")

    assert (outcome.state, outcome.reason) == ("failed", "data")


def test_more_isolation_than_there_is_refuses(job: Job, policy: Policy, tmp_path: Path) -> None:
    outcome = run_job(replace(job("pass"), minimum_isolation="kata"), policy, tmp_path / "work")

    assert (outcome.state, outcome.reason) == ("refused", "isolation")
    assert outcome.detail


def test_a_gpu_that_is_not_there_refuses(job: Job, policy: Policy, tmp_path: Path) -> None:
    outcome = run_job(job("pass", gpus=1), policy, tmp_path / "work")

    assert (outcome.state, outcome.reason) == ("refused", "resources")


def test_two_runners_do_not_run_one_job(
    job: Job, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "WAIT_SECONDS", 0.2)
    spec = job("import time; time.sleep(60)")
    cancel = threading.Event()
    first = threading.Thread(
        target=run_job, args=(spec, policy, tmp_path / "work"), kwargs={"cancel": cancel}
    )
    first.start()
    try:
        while not (tmp_path / "work" / "code").exists():
            time.sleep(0.01)
        with pytest.raises(Conflict):
            run_job(spec, policy, tmp_path / "work")
    finally:
        cancel.set()
        first.join()


@pytest.mark.parametrize("what", ["the sandbox", "the folder"])
def test_a_job_waits_for_who_sweeps_after_its_dead_runner(
    job: Job, policy: Policy, tmp_path: Path, what: str
) -> None:
    """Another process's sweep holds both for as long as it removes what the dead one left."""
    spec = job(TRAIN)
    (tmp_path / "work").mkdir(mode=0o700)
    with contextlib.ExitStack() as held:
        if what == "the sandbox":
            held.callback(Claim(spec.id).release)
        else:
            held.enter_context(lifecycle._alone(tmp_path / "work"))
        swept = threading.Timer(1, held.pop_all().close)
        swept.start()

        outcome = run_job(spec, policy, tmp_path / "work")

    swept.join()
    assert outcome.state == "finished"


def test_a_collection_that_was_killed_goes_on_without_training_again(
    job: Job, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = job(TRAIN)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "take_out", die)
        with pytest.raises(KeyboardInterrupt):
            run_job(spec, policy, tmp_path / "work")
    assert (tmp_path / "work" / TRAINED).exists() and (tmp_path / "work" / RAW).is_dir()
    monkeypatch.setattr(lifecycle, "prepare", die)

    outcome = run_job(spec, policy, tmp_path / "work")

    assert outcome.state == "finished"
    assert len(outcome.artefacts) == 2


def test_what_a_runner_left_that_was_killed_while_it_cleared_is_cleared(
    job: Job, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = job(TRAIN)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "_clear", die)
        with pytest.raises(KeyboardInterrupt):
            run_job(spec, policy, tmp_path / "work")
    assert (tmp_path / "work" / "data").exists()

    assert run_job(spec, policy, tmp_path / "work").state == "finished"
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"log", OUTCOME}


RUNNER = """
import pickle, sys
from pathlib import Path
from sandbox_runner.lifecycle import run_job
spec, policy, workdir = pickle.load(open(sys.argv[1], "rb"))
print(run_job(spec, policy, workdir).state)
"""


@pytest.mark.parametrize("after", [0.05, 0.2, 0.5, 0.9])
def test_a_killed_runner_takes_its_sandbox_with_it_and_the_job_ends_once(
    job: Job, policy: Policy, tmp_path: Path, after: float
) -> None:
    spec = job("import time; time.sleep(0.4)\n" + TRAIN)
    given = tmp_path / "given"
    given.write_bytes(pickle.dumps((spec, policy, tmp_path / "work")))
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, str(given)], cwd=Path.cwd())
    time.sleep(after)
    runner.send_signal(signal.SIGKILL)
    runner.wait()

    sweep(None)
    claim = Claim(spec.id)
    claim.release()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/glovebox/{spec.id}"))
    until = time.monotonic() + 10
    while _processes_with(spec.id) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _processes_with(spec.id)

    outcome = run_job(spec, policy, tmp_path / "work")

    assert outcome.state == "finished"
    assert {each.path for each in outcome.artefacts} == {"model.safetensors", "metrics.json"}
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"log", OUTCOME}


def _processes_with(identifier: str) -> list[str]:
    """Return the living processes of a sandbox's user; the dead may wait for their burial."""
    user = outer_uid(identifier)
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ending = words[0] == "Z" or int(words[6]) & 4  # PF_EXITING: it runs no program any more
            if process.stat().st_uid == user and not ending:
                found.append(process.name)
    return found


def _supervisor_of(identifier: str) -> int:
    """Return the process id of a running sandbox's supervisor, which is our own child."""
    for thread in Path("/proc/self/task").iterdir():
        for child in (thread / "children").read_text(encoding="ascii").split():
            if outer_uid(identifier) == Path(f"/proc/{child}").stat().st_uid:
                return int(child)
    raise AssertionError("no supervisor is running")


@pytest.mark.skipif(os.geteuid() != 0, reason="the supervisor is known by its user")
def test_a_job_whose_supervisor_is_killed_is_stopped_and_leaves_nothing(
    job: Job, policy: Policy, tmp_path: Path
) -> None:
    spec = job("import time; print('began', flush=True); time.sleep(60)")
    outcomes: list[Outcome] = []
    runner = threading.Thread(
        target=lambda: outcomes.append(run_job(spec, policy, tmp_path / "work"))
    )
    runner.start()
    log = tmp_path / "work" / "log"
    while not (log.exists() and b"began" in log.read_bytes()):
        time.sleep(0.01)
    os.kill(_supervisor_of(spec.id), signal.SIGKILL)
    runner.join()

    assert [(each.state, each.reason) for each in outcomes] == [("stopped", "node-lost")]
    assert not _processes_with(spec.id)
    assert not list(Path("/sys/fs/cgroup").glob(f"*/glovebox/{spec.id}"))


@pytest.mark.parametrize(
    ("name", "length"), [("a{}", 1 << 40), (".a{}", 0)], ids=["too long", "hidden"]
)
def test_thousands_of_files_that_are_refused_are_counted_and_not_listed(
    job: Job, policy: Policy, tmp_path: Path, name: str, length: int
) -> None:
    """They cost the job next to nothing, and must cost neither a record nor its artefacts."""
    leave = f"""
for number in range(3000):
    with open(f"/output/{name.format("{number}")}", "wb") as file:
        file.truncate({length})
"""

    outcome = run_job(job(leave + TRAIN), policy, tmp_path / "work")

    assert outcome.state == "finished"
    assert {each.path for each in outcome.artefacts} == {"model.safetensors", "metrics.json"}
    assert len(outcome.rejected) < 1200
    assert [each.why for each in outcome.rejected if each.path == "..."] == ["and 2000 more"]


def test_a_submission_of_too_much_that_is_not_taken_is_refused(
    job: Job, policy: Policy, tmp_path: Path
) -> None:
    """Else what lies behind the last one that is listed would be left out without a word."""
    spec = job(TRAIN)
    for number in range(1500):
        (spec.submission / f".hidden-{number}").touch()

    outcome = run_job(spec, policy, tmp_path / "work")

    assert (outcome.state, outcome.reason) == ("refused", "manifest")
    assert "more than 1000" in outcome.detail


class _Hasty(selectors.DefaultSelector):
    """Says of every pipe that there is something to read, as if somebody took it in between."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        pipes = [key for key in self.get_map().values() if stat.S_ISFIFO(os.fstat(key.fd).st_mode)]
        known = {key.fd for key, _ in ready}
        return [*ready, *((key, selectors.EVENT_READ) for key in pipes if key.fd not in known)]


def test_who_takes_its_own_words_back_still_ends_in_time(
    bubblewrap: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without root a program can read from its own pipes, and be faster than the runner."""
    monkeypatch.setattr(running.selectors, "DefaultSelector", _Hasty)
    spec = SandboxSpec(
        id=f"back-{uuid.uuid4().hex[:12]}",
        argv=("python", "-I", "-S", "-c", "import time; time.sleep(30)"),
        limits=Limits(wall_seconds=1, grace_seconds=1),
        log=tmp_path / "log",
    )
    began = time.monotonic()

    result = bubblewrap.run(spec)

    assert (result.state, result.reason) == ("stopped", "timeout")
    assert time.monotonic() - began < 15


def test_a_start_that_fails_half_way_leaves_nothing(bubblewrap: Backend, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    spec = SandboxSpec(
        id=f"half-{uuid.uuid4().hex[:12]}",
        argv=("python", "-c", "import time; time.sleep(60)"),
        log=tmp_path / "file" / "log",  # the log cannot be opened
    )
    before = len(list(Path("/proc/self/fd").iterdir()))

    for _ in range(3):
        with pytest.raises(FileExistsError):
            bubblewrap.run(spec)

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not _processes_with(spec.id)
    assert not list(Path("/sys/fs/cgroup").glob(f"*/glovebox/{spec.id}"))
    Claim(spec.id).release()


def test_a_directory_to_lend_that_is_not_there_keeps_no_name(
    bubblewrap: Backend, tmp_path: Path
) -> None:
    spec = SandboxSpec(
        id=f"lend-{uuid.uuid4().hex[:12]}",
        argv=("python", "-c", ""),
        mounts=(Mount(tmp_path / "gone", "/lent", writable=True),),
    )

    with pytest.raises(FileNotFoundError):
        bubblewrap.run(spec)

    Claim(spec.id).release()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/glovebox/{spec.id}"))


FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.mark.skipif(
    not os.access(FREEZER / "cgroup.procs", os.W_OK), reason="freezes a process (cgroup version 1)"
)
def test_beside_a_process_that_does_not_end_nothing_starts(
    bubblewrap: Backend, tmp_path: Path
) -> None:
    """It would be in the new sandbox's control groups, and may hold what the last one read."""
    spec = SandboxSpec(
        id=f"cold-{uuid.uuid4().hex[:12]}", argv=("python", "-c", ""), log=tmp_path / "log"
    )
    freezer = FREEZER / spec.id
    freezer.mkdir()
    process = subprocess.Popen(["sleep", "60"])
    group = cgroups.Group(spec.id, cgroups.find())
    try:
        group.create(spec.limits)
        for entrance in (*group.entrances(), freezer / "cgroup.procs"):
            Path(entrance).write_text(str(process.pid), encoding="ascii")
        (freezer / "freezer.state").write_text("FROZEN", encoding="ascii")

        with pytest.raises(Conflict) as told:
            bubblewrap.run(spec)
        assert told.value.code == "sandbox.busy"
        assert not spec.log.exists()
    finally:
        (freezer / "freezer.state").write_text("THAWED", encoding="ascii")
        process.kill()
        process.wait()
        freezer.rmdir()

    assert bubblewrap.run(spec).state == "finished"


def test_no_program_of_ours_inherits_what_came_out_of_a_sandbox(
    bubblewrap: Backend, tmp_path: Path
) -> None:
    spec = SandboxSpec(
        id=f"doors-{uuid.uuid4().hex[:12]}",
        argv=("python", "-c", "input()"),
        output=tmp_path / "output",
        log=tmp_path / "log",
    )
    before = _inherited()
    sandbox = bubblewrap.start(spec)
    try:
        inherited = _inherited() - before
    finally:
        sandbox.kill()
        sandbox.wait(20)
        sandbox.stdin.close()
        sandbox.stdout.close()

    assert not inherited


def _inherited() -> set[int]:
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.get_inheritable(int(each.name)):
                found.add(int(each.name))
    return found
