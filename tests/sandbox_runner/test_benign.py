"""What honest training does must work as it does outside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox_runner.backends import Backend
from sandbox_runner.backends.choice import backend as backend_of
from sandbox_runner.backends.choice import missing
from sandbox_runner.image import ROOM
from sandbox_runner.spec import GiB, Limits, MiB, Mount, SandboxSpec
from tests.sandbox_runner import honest

pytestmark = pytest.mark.sandbox


@pytest.fixture(
    params=[pytest.param("gvisor", marks=pytest.mark.slow), "bubblewrap"],
)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend of one machine that is here."""
    name: str = request.param
    if missing(name):
        pytest.skip(f"{name} is not whole here: {', '.join(missing(name))}")
    return backend_of(name)


@pytest.fixture(scope="module")
def large() -> Iterator[Path]:
    """2 GiB of data in one file that takes no room on the disk."""
    folder = Path(tempfile.mkdtemp(prefix="glovebox-large-", dir="/var/tmp"))
    folder.chmod(0o755)
    with (folder / "numbers.bin").open("wb") as file:
        file.truncate(2 << 30)
        for number in range(32):
            file.seek(number * (64 << 20))
            file.write((number + 1).to_bytes(8, "little"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in honest.LONG else ())
        for name in honest.PROGRAMS
    ],
)
def test_honest_programs_work(
    backend: Backend,
    name: str,
    large: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    program = honest.PROGRAMS[name]
    if "torch" in program:
        pytest.importorskip("torch")
    record_property("honest", (backend.name, name))
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(program, encoding="utf-8")
    graceful = name == "a graceful end"

    result = backend.run(
        SandboxSpec(
            id=f"benign-{uuid.uuid4().hex[:12]}",
            argv=("python", "/opt/glovebox/start.py", "/code/train.py"),
            limits=Limits(
                cpus=2,
                memory_bytes=2 * GiB,
                # The program must have come to its loop, and gVisor starts slowly.
                wall_seconds=({"gvisor": 12, "bubblewrap": 4}[backend.name] if graceful else 400),
                grace_seconds=20,
                shm_bytes=256 * MiB,
            ),
            mounts=(
                Mount(code, "/code"),
                Mount(ROOM / "inside", "/opt/glovebox"),
                Mount(large, "/data/large"),
            ),
            env={"GLOVEBOX_CODE": "/code", "GLOVEBOX_OUTPUT": "/output"},
            output=tmp_path / "output",
            log=tmp_path / "log",
        )
    )

    log = (tmp_path / "log").read_text(encoding="utf-8")
    ends = ("stopped", "timeout") if graceful else ("finished", "exit")
    assert (result.state, result.reason) == ends, log
    assert "worked" in log
    assert "warning" not in log.lower()
    assert not graceful or (tmp_path / "output/saved").read_text(encoding="utf-8") == "state"


def test_a_program_talks_over_pipes_while_it_runs(bubblewrap: Backend) -> None:
    running = bubblewrap.start(
        SandboxSpec(
            id=f"talk-{uuid.uuid4().hex[:12]}",
            argv=(
                "python",
                "-u",
                "-c",
                "import sys\nfor row in sys.stdin: print(row.upper(), end='')",
            ),
            limits=Limits(wall_seconds=30),
        )
    )
    try:
        running.stdin.write(b"hello\n")
        assert running.stdout.readline() == b"HELLO\n"
        running.stdin.write(b"again\n")
        assert running.stdout.readline() == b"AGAIN\n"
        running.stdin.close()
        result = running.wait(20)
    finally:
        running.kill()
        running.stdout.close()

    assert (result.state, result.exit_code) == ("finished", 0)


def test_a_secret_travels_on_standard_input_only(bubblewrap: Backend, tmp_path: Path) -> None:
    result = bubblewrap.run(
        SandboxSpec(
            id=f"secret-{uuid.uuid4().hex[:12]}",
            argv=(
                "python",
                "-c",
                "import sys, os\n"
                "secret = sys.stdin.buffer.read()\n"
                "assert len(secret) == 32\n"
                "for p in ('cmdline', 'environ'):\n"
                "    for n in ('1', 'self'):\n"
                "        assert secret not in open(f'/proc/{n}/{p}', 'rb').read()\n",
            ),
            limits=Limits(wall_seconds=30),
            stdin=uuid.uuid4().hex.encode(),
            log=tmp_path / "log",
        )
    )

    assert result.state == "finished", (tmp_path / "log").read_text(encoding="utf-8")


def test_a_writable_mount_is_lent_and_taken_back(bubblewrap: Backend, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()

    result = bubblewrap.run(
        SandboxSpec(
            id=f"lend-{uuid.uuid4().hex[:12]}",
            argv=(
                "python",
                "-c",
                "import os; os.mkdir('/made/a'); open('/made/a/b', 'w').write('x')",
            ),
            limits=Limits(wall_seconds=30),
            mounts=(Mount(work, "/made", writable=True),),
            log=tmp_path / "log",
        )
    )

    assert result.state == "finished", (tmp_path / "log").read_text(encoding="utf-8")
    assert (work / "a" / "b").read_text(encoding="utf-8") == "x"
    owners = {path.stat().st_uid for path in (work, work / "a", work / "a" / "b")}
    assert owners == {os.geteuid()}


def test_a_writable_mount_has_a_limit(bubblewrap: Backend, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()

    result = bubblewrap.run(
        SandboxSpec(
            id=f"fill-{uuid.uuid4().hex[:12]}",
            argv=(
                "python",
                "-c",
                "import time\nwith open('/made/a', 'wb', buffering=0) as f:\n"
                "    for _ in range(600):\n        f.write(b'x' * (1 << 20)); time.sleep(0.01)",
            ),
            limits=Limits(wall_seconds=60, output_bytes=8 * MiB),
            mounts=(Mount(work, "/made", writable=True),),
        )
    )

    assert (result.state, result.reason) == ("failed", "output-limit")
    assert (work / "a").stat().st_size < 500 * MiB


ROOTLESS = """
import sys
from pathlib import Path
from sandbox_runner.backends.choice import backend, missing
from sandbox_runner.spec import Limits, MiB, SandboxSpec
assert not missing("bubblewrap"), missing("bubblewrap")
lines = {line.name: line.state for line in backend("bubblewrap").check()}
assert lines["memory is bounded, swap included"] == "weak", lines
assert lines["processes and threads are bounded"] == "weak", lines
assert lines["a user of its own outside, too"] == "weak", lines
assert lines["nothing survives the end"] == "held", lines
from sandbox_runner.backends.choice import choose
from policies.errors import CannotRun
try:
    choose("gvisor", "gvisor")
    raise SystemExit("gVisor without root")
except CannotRun:
    pass
def run(code, **limits):
    here = Path(sys.argv[1])
    spec = SandboxSpec(id="rootless-test", argv=("python", "-c", code), output=here / "output",
                       log=here / "log", limits=Limits(wall_seconds=20, **limits))
    return backend("bubblewrap").run(spec)
assert run("open('/output/x', 'w').write('x')").state == "finished"
full = run("open('/output/y', 'wb').write(b'x' * (4 << 20))", output_bytes=MiB)
assert full.reason == "output-limit", full
grown = run("import os, time\\nx = b'x' * (60 << 20)\\nif os.fork(): os.fork()\\n"
            "x = b'y' * (60 << 20)\\ntime.sleep(10)", memory_bytes=128 * MiB)
assert grown.reason == "memory", grown
# A thread's children are the process's own, and so is what they hold.
hold = "import time; x = b'x' * (60 << 20); time.sleep(10)"
hidden = run("import subprocess, sys, threading, time\\n"
             f"hold = [sys.executable, '-c', {hold!r}]\\n"
             "for _ in range(3): threading.Thread(target=subprocess.run, args=(hold,)).start()\\n"
             "time.sleep(10)", memory_bytes=128 * MiB)
assert hidden.reason == "memory", hidden
print("rootless worked")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user first")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_it_works_without_root(tmp_path_factory: pytest.TempPathFactory) -> None:
    base, here = Path(sys.base_prefix).resolve(), Path.cwd()
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # Another user cannot enter root's home, where the interpreter may be: show it elsewhere.
    script = f"""
        set -e
        mount -t tmpfs tmpfs /mnt
        mkdir /mnt/python /mnt/project /mnt/work
        mount --bind {base} /mnt/python
        mount --bind {here} /mnt/project
        chown 54321 /mnt/work
        cd /mnt/project
        exec setpriv --reuid 54321 --regid 54321 --clear-groups env -i PATH=/usr/bin:/bin \
            PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/mnt/project HOME=/mnt/work \
            XDG_RUNTIME_DIR=/mnt/work TMPDIR=/mnt/work \
            /mnt/python/bin/{python} -c "$PROGRAM" /mnt/work
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env={**os.environ, "PROGRAM": ROOTLESS},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "rootless worked" in done.stdout, done.stderr
