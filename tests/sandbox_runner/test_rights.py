"""What each process around a sandbox may do on this machine: as little as it can."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox_runner.backends import BACKENDS
from sandbox_runner.backends.choice import backend as backend_of
from sandbox_runner.backends.choice import missing
from sandbox_runner.backends.local import children
from sandbox_runner.backends.supervisor import NEEDED, NEEDED_APART
from sandbox_runner.place import FIRST_UID
from sandbox_runner.running import Running
from sandbox_runner.spec import Limits, MiB, SandboxSpec

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(os.geteuid() != 0, reason="what root gives up"),
]


def _bounding() -> int:
    rows = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(row.split()[1], 16) for row in rows if row.startswith("CapBnd:"))


OURS = _bounding()


@dataclass(frozen=True)
class Seen:
    """A process as the kernel sees it; ``within`` is its user namespace."""

    name: str
    uid: int
    capabilities: int
    bounding: int
    no_new_privileges: bool
    within: str


def _see(process: int) -> Seen:
    rows = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    words = dict(row.split(":", 1) for row in rows if ":" in row)
    return Seen(
        name=words["Name"].strip(),
        uid=int(words["Uid"].split()[1]),
        capabilities=int(words["CapPrm"], 16) | int(words["CapEff"], 16) | int(words["CapAmb"], 16),
        bounding=int(words["CapBnd"], 16),
        no_new_privileges=words["NoNewPrivs"].strip() == "1",
        within=str(Path(f"/proc/{process}/ns/user").readlink()),
    )


def _tree(process: int) -> Iterator[Seen]:
    for child in children(process):
        yield _see(child)
        yield from _tree(child)


def _mask(capabilities: dict[int, str]) -> int:
    return sum(1 << number for number in capabilities)


@pytest.fixture(
    params=[pytest.param(n, marks=pytest.mark.slow if n == "gvisor" else ()) for n in BACKENDS]
)
def seen(request: pytest.FixtureRequest) -> tuple[str, list[Seen]]:
    """The backend, and every process from the supervisor down to a running program."""
    name: str = request.param
    if missing(name):
        pytest.skip(f"{name} is not whole here: {', '.join(missing(name))}")
    running = backend_of(name).start(
        SandboxSpec(
            id=f"rights-{uuid.uuid4().hex[:12]}",
            argv=("python", "-c", "print('here', flush=True)\nimport time\ntime.sleep(60)"),
            limits=Limits(wall_seconds=60, memory_bytes=512 * MiB),
        )
    )
    try:
        assert running.stdout.readline() == b"here\n"
        # The supervisor gives up its own rights beside the program; gVisor's stubs come and go.
        until = time.monotonic() + 5
        tree: list[Seen] = []
        handle = running._handle  # type: ignore[attr-defined]
        while (len(tree) < 3 or tree[0].bounding) and time.monotonic() < until:
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                tree = [_see(handle.supervisor.pid), *_tree(handle.supervisor.pid)]
        return name, tree
    finally:
        running.kill()
        running.wait(20)
        running.stdin.close()
        running.stdout.close()


def test_nothing_but_runsc_itself_keeps_a_right_on_this_machine(
    seen: tuple[str, list[Seen]],
) -> None:
    name, (supervisor, *below) = seen
    ours = str(Path("/proc/self/ns/user").readlink())
    kill = 1 << 5

    assert supervisor.no_new_privileges and supervisor.bounding == 0
    assert supervisor.uid >= FIRST_UID
    assert supervisor.capabilities == (kill if name == "gvisor" else 0)
    assert len(below) >= 2
    for process in below:
        assert process.no_new_privileges, process
        if process.within == ours and process.name == "runsc":
            # It ends with its sandbox, and what it starts has namespaces of its own.
            assert process.capabilities == process.bounding == _mask(NEEDED_APART) & OURS
        elif process.within == ours and process.uid == 0:
            # Who will pass SIGTERM on: of gVisor's own user, and without a single right.
            assert process.capabilities == process.bounding == 0, process
        elif process.within == ours:
            assert process.uid >= FIRST_UID and not process.capabilities, process
        elif process.uid != 65534:  # whom Debian 12's runsc makes its kernel's user
            assert process.uid >= FIRST_UID, process
    assert sum(process.uid == 0 for process in below) == (2 if name == "gvisor" else 0)


@pytest.fixture
def asleep() -> Iterator[tuple[Running, int]]:
    """A program under gVisor, and who will pass SIGTERM on to it."""
    if missing("gvisor"):
        pytest.skip(f"gvisor is not whole here: {', '.join(missing('gvisor'))}")
    running = backend_of("gvisor").start(
        SandboxSpec(
            id=f"asleep-{uuid.uuid4().hex[:12]}",
            argv=("python", "-c", "print('here', flush=True)\nimport time\ntime.sleep(60)"),
            limits=Limits(wall_seconds=60, memory_bytes=512 * MiB),
        )
    )
    try:
        assert running.stdout.readline() == b"here\n"
        [sleeping] = [
            child
            for child in children(running._handle.supervisor.pid)  # type: ignore[attr-defined]
            if _see(child).name != "runsc"
        ]
        yield running, sleeping
    finally:
        running.kill()
        running.wait(20)
        running.stdin.close()
        running.stdout.close()


@pytest.mark.slow
def test_who_passes_the_signal_on_holds_its_bell_and_nothing_else(
    asleep: tuple[Running, int],
) -> None:
    _running, sleeping = asleep

    held = [str(each.readlink()) for each in Path(f"/proc/{sleeping}/fd").iterdir()]

    assert held.count("/dev/null") == 3
    assert [each.split(":")[0] for each in held if each != "/dev/null"] == ["pipe"]


@pytest.mark.slow
def test_who_passes_the_signal_on_dies_with_the_supervisor(asleep: tuple[Running, int]) -> None:
    running, sleeping = asleep
    handle = os.pidfd_open(sleeping)

    running._handle.supervisor.kill()  # type: ignore[attr-defined]

    assert select.select([handle], [], [], 10)[0], "it is alive"
    os.close(handle)


@pytest.mark.slow
def test_a_program_goes_on_when_who_passes_the_signal_on_is_killed(
    asleep: tuple[Running, int],
) -> None:
    running, sleeping = asleep

    os.kill(sleeping, signal.SIGKILL)

    with pytest.raises(TimeoutError):
        running.wait(1)
    # Nobody is left to hear of the end: then it comes without warning, and is buried.
    running._channels.control.send(b"term")  # type: ignore[attr-defined]
    running.kill()
    assert running.wait(20).state == "stopped"


def _names(capabilities: Iterable[int]) -> str:
    """Return the words that give a command these capabilities, as far as we have them."""
    here = [number for number in sorted(capabilities) if OURS >> number & 1]
    return ",".join(["-all", *("+" + NEEDED_APART[n].split(":")[0].lower() for n in here)])


RUN = """
import sys
from pathlib import Path
from sandbox_runner.backends.choice import backend, missing
from sandbox_runner.spec import Limits, Mount, SandboxSpec
name, here = sys.argv[1], Path(sys.argv[2])
assert not missing(name), missing(name)
(here / "lent").mkdir()
spec = SandboxSpec(id="few-" + name, argv=("python", "-c", "open('/made/x', 'w').write('x')"),
                   limits=Limits(wall_seconds=30), mounts=(Mount(here / "lent", "/made", True),))
result = backend(name).run(spec)
assert result.state == "finished", result
assert (here / "lent" / "x").stat().st_uid == 0
print("few rights were enough")
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("bubblewrap", {*NEEDED, 0, 3, 5}),
        pytest.param("gvisor", NEEDED_APART, marks=pytest.mark.slow),
    ],
)
def test_a_runner_of_root_needs_these_capabilities_and_no_other(
    name: str, more: Iterable[int], tmp_path: Path
) -> None:
    if missing(name):
        pytest.skip(f"{name} is not whole here: {', '.join(missing(name))}")
    done = subprocess.run(
        [
            "setpriv",
            f"--bounding-set={_names(more)}",
            sys.executable,
            "-c",
            RUN,
            name,
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert "few rights were enough" in done.stdout, done.stderr


def test_a_supervisor_without_its_rights_starts_nothing(tmp_path: Path) -> None:
    given = _names(NEEDED_APART.keys() - {21})

    done = subprocess.run(
        [
            "setpriv",
            f"--bounding-set={given}",
            sys.executable,
            "-c",
            RUN,
            "bubblewrap",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode != 0 and "starts" in done.stderr
