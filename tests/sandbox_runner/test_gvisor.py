"""What holds in gVisor's own kernel, and how it is asked for."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_runner import image as images
from sandbox_runner.backends import local
from sandbox_runner.backends.choice import backend as backend_of
from sandbox_runner.backends.choice import missing
from sandbox_runner.backends.gvisor import bundle
from sandbox_runner.backends.local import INNER_ID
from sandbox_runner.place import outer_uid
from sandbox_runner.spec import Limits, MiB, Mount, SandboxResult, SandboxSpec

Run = Callable[..., tuple[SandboxResult, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a program under gVisor and gives its result and log."""
    if missing("gvisor"):
        pytest.skip(f"gvisor is not whole here: {', '.join(missing('gvisor'))}")

    def run(program: str, **limits: float) -> tuple[SandboxResult, str]:
        asked = {"memory_bytes": 512 * MiB, "wall_seconds": 60, **limits}
        spec = SandboxSpec(
            id=f"gvisor-{uuid.uuid4().hex[:12]}",
            argv=("python", "-c", program),
            limits=Limits(**asked),  # type: ignore[arg-type]
            output=tmp_path / "output",
            log=tmp_path / "log",
        )
        return backend_of("gvisor").run(spec), (tmp_path / "log").read_text(encoding="utf-8")

    return run


THREADS = """
import os, threading
def work(): done.append(1)
done = []
threads = [threading.Thread(target=work) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
print(len(done))
"""

FORKS = """
import os, time
made, why = [], None
for _ in range(100):
    try:
        pid = os.fork()
    except OSError as error:
        why = error.errno
        break
    if pid == 0:
        time.sleep(60)
    made.append(pid)
for pid in made:
    os.kill(pid, 9)
print(len(made), why)
"""


@pytest.mark.sandbox
@pytest.mark.slow
def test_a_program_may_start_threads(run: Run) -> None:
    """clone3 must be answered "no such call", whatever the release's filter can say."""
    result, log = run(THREADS)

    assert result.state == "finished", log
    assert log.split() == ["8"]


@pytest.mark.sandbox
@pytest.mark.slow
def test_processes_are_bounded_by_its_own_kernel(run: Run) -> None:
    """The host's group counts threads of gVisor; RLIMIT_NPROC inside counts the program's."""
    result, log = run(FORKS, processes=16)

    assert result.state == "finished", log
    assert log.split() == ["15", "11"]


@pytest.mark.sandbox
@pytest.mark.slow
def test_what_it_writes_last_is_there(run: Run, tmp_path: Path) -> None:
    """Names and sizes are remembered inside, and bytes are not: even of one that is killed."""
    result, log = run(
        "import os\nfile = open('/output/a', 'wb')\nfile.write(b'x' * 3_000_001)\nfile.flush()\n"
        "map = __import__('mmap').mmap(os.open('/output/a', os.O_RDWR), 0)\nmap[:2] = b'yz'\n"
        "os.kill(os.getpid(), 9)"
    )

    assert (result.state, result.reason) == ("failed", "exit"), log
    written = (tmp_path / "output" / "a").read_bytes()
    assert len(written) == 3_000_001
    assert written[:3] == b"yzx"


def test_the_bundle_shows_nothing_that_was_not_given(tmp_path: Path) -> None:
    spec = SandboxSpec(
        id="bundle", argv=("python",), mounts=(Mount(tmp_path, "/data/mini"),), limits=Limits()
    )
    image = images.find(spec.image)
    uid = outer_uid(spec.id)

    config = bundle(spec, image, (*image.mounts, *spec.mounts), uid)

    process, linux = config["process"], config["linux"]
    assert config["root"]["readonly"]
    assert process["noNewPrivileges"] and not any(process["capabilities"].values())
    assert process["user"]["uid"] == INNER_ID
    assert {each["type"] for each in linux["namespaces"]} == {
        *("user", "pid", "network", "ipc", "uts", "mount", "cgroup")
    }
    mapped = {each["containerID"]: each["hostID"] for each in linux["uidMappings"]}
    assert mapped[INNER_ID] == uid and os.getuid() not in mapped.values()
    binds = {m["destination"]: m["options"] for m in config["mounts"] if m["type"] == "bind"}
    assert {"/data/mini", "/tmp", "/dev/shm", "/opt/doors"} <= binds.keys()
    assert not binds.keys() & {"/", "/etc", "/home", "/root", "/run", "/var", "/sys"}
    for target, options in binds.items():
        assert {"nosuid", "nodev"} <= set(options), target
        writable = target in ("/tmp", "/dev/shm", "/opt/doors")
        assert ("rw" if writable else "ro") in options, target


def test_a_mount_from_a_disk_without_programs_says_so(tmp_path: Path) -> None:
    """In a user namespace runsc must name what it may not take away, or it fails to start."""
    shared = Path("/dev/shm")
    if not os.statvfs(shared).f_flag & os.ST_NOEXEC:
        pytest.skip("/dev/shm may hold programs here")
    image = images.find("pytorch-cpu")
    spec = SandboxSpec(id="bundle", argv=("python",))

    config = bundle(spec, image, (Mount(shared, "/data/mini"),), outer_uid(spec.id))

    options = next(m["options"] for m in config["mounts"] if m["destination"] == "/data/mini")
    assert "noexec" in options


@pytest.mark.sandbox
def test_a_program_that_ends_before_its_supervisor_looks_has_ended_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A busy machine holds the supervisor up between the two processes that it starts."""
    if missing("gvisor"):
        pytest.skip(f"gVisor is not whole here: {', '.join(missing('gvisor'))}")
    slow, begin = tmp_path / "supervisor.py", "    bell, ring = os.pipe()\n"
    program = local.SUPERVISOR.read_text(encoding="utf-8")
    assert begin in program
    slow.write_text(program.replace(begin, f"{begin}    time.sleep(5)\n"), encoding="utf-8")
    monkeypatch.setattr(local, "SUPERVISOR", slow)
    spec = SandboxSpec(id=f"fast-{uuid.uuid4().hex[:12]}", argv=("/bin/sh", "-c", "true"))

    result = backend_of("gvisor").run(spec)

    assert (result.state, result.reason) == ("finished", "exit")
