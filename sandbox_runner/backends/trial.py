"""The doctor of one backend: each promise is tried in a real sandbox, not read from a file."""

# "/tmp is bounded" is a sentence here.
# ruff: noqa: S108

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from policies.errors import GloveboxError
from sandbox_runner import scratch
from sandbox_runner.backends.cgroups import Group, Hierarchy
from sandbox_runner.backends.interface import Line
from sandbox_runner.place import UIDS, WAIT_SECONDS, Claim, outer_uid
from sandbox_runner.spec import GiB, KiB, Limits, MiB, SandboxResult, SandboxSpec

if TYPE_CHECKING:
    from sandbox_runner.backends.interface import Backend

# Runs inside and answers one JSON object of what it managed to do. Every key is a promise broken
# when true, except those under "facts".
PROBE: Final = Path(__file__).with_name("probe.py")

LIMITS: Final = Limits(
    cpus=1,
    memory_bytes=256 * MiB,
    processes=16,
    wall_seconds=20,
    output_bytes=64 * KiB,
    output_inodes=32,
    tmp_bytes=1 * MiB,
    shm_bytes=1 * MiB,
    open_files=64,
    log_bytes=64 * KiB,
)

#: Time enough to start, and on a very busy machine.
WALLS: Final = (1.5, 8.0)
#: How late an end may be on a busy machine, the grace period included, before it is none.
LATE: Final = 5.0
EXITING: Final = 0x4  # PF_EXITING in /proc/<pid>/stat: such a process runs no program any more
DELEGATE: Final = "run as root, or inside a delegated group that GLOVEBOX_CGROUP names"

# What the probe reports, what it means, and what to do when it did not hold.
PROMISES: Final = (
    ("network", "no network: only local sockets can be made", ""),
    ("interfaces", "no network device but loopback", ""),
    ("files", "none of the host's home, run or var can be seen", ""),
    ("root_writable", "the root file system is read-only", ""),
    ("processes", "no other process can be seen", ""),
    ("root_user", "an unprivileged user inside", ""),
    ("capabilities", "no capabilities", ""),
    ("new_privileges", "no new privileges by set-uid programs", ""),
    ("namespaces", "no new namespaces", "bubblewrap 0.8 or newer is needed"),
    ("system_calls", "dangerous system calls are refused", ""),
    ("descriptors", "no inherited descriptors", ""),
    ("output_bytes", "/output is bounded in bytes", ""),
    ("output_inodes", "/output is bounded in files", ""),
    ("tmp_bytes", "/tmp is bounded", ""),
    ("shm_bytes", "/dev/shm is bounded", ""),
    ("open_files", "open files are bounded", ""),
    ("core_dumps", "no core dumps", ""),
)

# Holds what it can get until it is ended for it.
HOG: Final = "held = []\nwhile True:\n    held.append(b'x' * (16 << 20))\n"

# Starts processes until it is refused and says how many; fills the log; spins; then will not end.
STUBBORN: Final = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
made = 0
try:
    while made < 4 * 16:
        if os.fork() == 0:
            time.sleep(600)
        made += 1
except OSError:
    pass
os.write(1, b"%d\\n" % made)
os.write(1, b"x" * (128 << 10))
until = time.monotonic() + 0.6
while time.monotonic() < until:
    pass
time.sleep(600)
"""


# The driver's answer to being started, and how many GPUs it shows.
GPU: Final = """
import ctypes
driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(-1)
print(driver.cuInit(0), (driver.cuDeviceGetCount(ctypes.byref(count)), count.value)[1])
"""


@dataclass(frozen=True)
class _Tried:
    """How a program ended, what it said, and whether anything of it lived on."""

    result: SandboxResult
    said: str
    log_bytes: int
    survivors: bool


def _try(backend: Backend, program: str, **limits: Any) -> _Tried:
    """Run a program sealed. Raises what the backend raises."""
    # Swept, where we are killed in between.
    with scratch.folder() as folder:
        identifier = f"doctor-{os.getpid()}-{secrets.token_hex(4)}"
        spec = SandboxSpec(
            id=identifier,
            argv=("python", "-I", "-S", "-c", program, identifier),
            limits=replace(LIMITS, **limits),
            output=folder / "output",
            log=folder / "log",
        )
        result = backend.run(spec)
        said = (folder / "log").read_bytes()
        return _Tried(result, said.decode(errors="replace"), len(said), _survives(identifier))


def _survives(identifier: str) -> bool:
    """Return whether a process of this sandbox still runs, by its arguments or its users."""
    user = outer_uid(identifier)
    word = identifier.encode()
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            fields = (process / "stat").read_text(encoding="utf-8", errors="replace")
            words = fields.rpartition(")")[2].split()
            if words[0] in "ZX" or int(words[6]) & EXITING:
                continue
            theirs = process.stat().st_uid in (user, user + UIDS)
            if theirs or word in (process / "cmdline").read_bytes().split(b"\0"):
                return True
    return False


def _why(error: Exception) -> str:
    """Return why a trial could not be had: this machine may be short of something for a moment."""
    if isinstance(error, OSError):
        return f"the trial could not be had: {error.strerror or type(error).__name__}"
    return str(error)


def _probe(backend: Backend) -> tuple[dict[str, Any], str]:
    """Run the probe; return its answers, or why there are none."""
    try:
        tried = _try(backend, PROBE.read_text(encoding="utf-8"))
        if tried.result.state != "finished":
            return {}, f"the trial ended with {tried.result.state}, {tried.result.reason}"
        answers = json.loads(tried.said.strip().splitlines()[-1])
        return (answers, "") if isinstance(answers, dict) else ({}, "no answer")
    except GloveboxError as error:
        return {}, str(error)
    except (OSError, ValueError, IndexError):
        return {}, "the trial gave no answer"


def lines(backend: Backend, hierarchy: Hierarchy, *, root: bool, advice: str = "") -> list[Line]:
    """Return the doctor's lines of one backend."""
    if not backend.version():
        return [Line("installed", "missing", "not found on PATH", advice)]
    answers, why = _probe(backend)
    if why:
        return [Line("starts", "missing", why, advice or _advice())]
    found = [Line("starts", "held", f"{backend.name} {backend.version()}")]
    for key, meaning, what_to_do in PROMISES:
        broken = answers.get(key, True)
        found.append(
            Line(meaning, "missing" if broken else "held", "", what_to_do if broken else "")
        )
    limits = _limits(backend, _controllers(hierarchy))
    return [*found, *limits, *_machine(root), _gpus(backend)]


def _advice() -> str:
    setting = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if setting.exists() and setting.read_text(encoding="ascii").strip() == "1":
        return "AppArmor forbids user namespaces: give bwrap a profile that allows userns"
    maximum = Path("/proc/sys/user/max_user_namespaces")
    if maximum.exists() and maximum.read_text(encoding="ascii").strip() == "0":
        return "set user.max_user_namespaces above 0 (sysctl)"
    return ""


def _controllers(hierarchy: Hierarchy) -> frozenset[str]:
    """Return what the kernel takes limits for from us."""
    # Claimed, or a sweep of another process would take it for an orphan's.
    claim = Claim(f"doctor-{os.getpid()}-{secrets.token_hex(4)}", wait=WAIT_SECONDS)
    group = Group(claim.path.stem, hierarchy)
    try:
        return group.create(LIMITS)
    except OSError:
        return frozenset()
    finally:
        group.remove()
        claim.release()


def _limits(backend: Backend, enforced: frozenset[str]) -> list[Line]:
    """Return the lines of what was exceeded on purpose."""
    try:
        hog = _try(backend, HOG, memory_bytes=64 * MiB, processes=64)
        for wall in WALLS:
            stubborn = _try(backend, STUBBORN, cpus=0.5, wall_seconds=wall, grace_seconds=0.2)
            if stubborn.said:
                break
    except (GloveboxError, OSError) as error:
        return [Line("limits", "missing", _why(error), _advice())]
    ended = hog.result
    made = stubborn.said.partition("\n")[0]
    used = stubborn.result.cpu_seconds / stubborn.result.wall_seconds
    timed_out = (stubborn.result.state, stubborn.result.reason) == ("stopped", "timeout")
    late = stubborn.result.wall_seconds - wall
    rows = (
        (
            "memory",
            "memory is bounded, swap included",
            # Where no group bounds it, the C library is refused more (RLIMIT_DATA) before that.
            (ended.state, ended.reason) == ("failed", "memory") or "MemoryError" in hog.said,
            "watched ten times a second",
            f"more than its share ended it as: {ended.state}, {ended.reason}",
        ),
        (
            "pids",
            "processes and threads are bounded",
            made.isdigit() and int(made) < LIMITS.processes,
            "RLIMIT_NPROC in a user namespace",
            f"started {made or 'none'} with a limit of {LIMITS.processes}",
        ),
        (
            "cpu",
            "processor time is bounded",
            # The start of a backend's own program is not held back everywhere.
            used < 0.5 + 0.4,
            "not bounded",
            f"used {used:.2f} of a limit of 0.5",
        ),
    )
    found = []
    for controller, meaning, held, otherwise, seen in rows:
        kernel = controller in enforced
        state: Literal["held", "weak", "missing"] = "held" if kernel else "weak"
        found.append(
            Line(
                meaning,
                state if held else "missing",
                f"control group: {seen}" if kernel else f"{otherwise}: {seen}",
                "" if kernel and held else DELEGATE,
                required=controller != "cpu",
            )
        )
    found.append(
        Line(
            "its time ends what will not end",
            "held" if timed_out and late < LATE else "missing",
            f"ended {max(0.0, late):.1f} s after its time: {stubborn.result.reason}",
        )
    )
    survivors = hog.survivors or stubborn.survivors
    found.append(Line("nothing survives the end", "missing" if survivors else "held"))
    full = stubborn.log_bytes > LIMITS.log_bytes + KiB
    found.append(Line("its log is bounded", "missing" if full else "held"))
    return found


def _gpus(backend: Backend) -> Line:
    """Return the line about GPUs: one is asked for, and the driver inside says what it sees."""
    name = "GPUs, each for one job alone"
    try:
        tried = _try(backend, GPU, gpus=1, memory_bytes=8 * GiB, processes=64, wall_seconds=30)
    except (GloveboxError, OSError) as error:
        return Line(name, "missing", _why(error), "", required=False)
    seen = tried.said.split("\n")[0]
    alone = (tried.result.state, seen) == ("finished", "0 1")
    detail = "one asked for, one seen" if alone else f"the driver inside answers {seen[:40]}"
    advice = "" if alone else "look whether the same works outside: nvidia-smi"
    return Line(name, "held" if alone else "missing", detail, advice, required=False)


def _machine(root: bool) -> list[Line]:
    """Return the lines that are about this machine and not about a program."""
    open_swap = [name for name in _swap() if not _encrypted(name)]
    return [
        Line(
            "no swap that plain data could reach",
            "weak" if open_swap else "held",
            "swap is on; the control group keeps jobs out of it" if open_swap else "",
            "swap into memory (zram) or an encrypted disk, or switch it off" if open_swap else "",
            required=False,
        ),
        Line(
            "a user of its own outside, too",
            "held" if root else "weak",
            "one a sandbox" if root else "the runner's own user, in a user namespace",
            "" if root else "run as root for a user of its own",
            required=False,
        ),
        Line(
            "names of host directories stay unseen",
            "weak",
            "/proc/self/mountinfo shows where a mount comes from; contents stay unseen",
            "keep personal names out of the paths of datasets",
            required=False,
        ),
    ]


def _swap() -> list[str]:
    """Return what this machine swaps to, by path."""
    rows = Path("/proc/swaps").read_text(encoding="ascii").splitlines()[1:]
    return [row.split()[0] for row in rows]


def _encrypted(path: str, devices: Path = Path("/sys/class/block")) -> bool:
    """Return whether pages written here are in memory or encrypted (zram, dm-crypt)."""
    name = Path(path).resolve().name
    if re.fullmatch(r"zram\d+", name):
        # Unless it has a disk behind it, to which it writes what is idle.
        backing = devices / name / "backing_dev"
        return not backing.exists() or backing.read_text(encoding="ascii").strip() == "none"
    with contextlib.suppress(OSError):
        return (devices / name / "dm" / "uuid").read_text(encoding="ascii").startswith("CRYPT-")
    return False
