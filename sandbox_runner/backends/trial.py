"""The doctor of one backend: each promise is tried in a real sandbox, not read from a file."""

# "/tmp is bounded" is a sentence here.
# ruff: noqa: S108

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from policies.errors import GloveboxError
from sandbox_runner.backends.cgroups import Group, Hierarchy
from sandbox_runner.backends.interface import Line
from sandbox_runner.place import Claim
from sandbox_runner.spec import KiB, Limits, MiB, SandboxSpec

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
    ("core_dumps", "no core dumps", ""),
)


def _run(backend: Backend) -> tuple[dict[str, Any], str]:
    """Run the probe; return its answers, or why there are none."""
    folder = Path(tempfile.mkdtemp(prefix="glovebox-doctor-"))
    try:
        spec = SandboxSpec(
            id=f"doctor-{os.getpid()}-{secrets.token_hex(4)}",
            argv=("python", "-I", "-S", "-c", PROBE.read_text(encoding="utf-8")),
            limits=LIMITS,
            output=folder / "output",
            log=folder / "log",
        )
        result = backend.run(spec)
        text = (folder / "log").read_text(encoding="utf-8", errors="replace")
        if result.state != "finished":
            return {}, f"the trial ended with {result.state}, {result.reason}"
        answers = json.loads(text.strip().splitlines()[-1])
        return (answers, "") if isinstance(answers, dict) else ({}, "no answer")
    except GloveboxError as error:
        return {}, str(error)
    except (OSError, ValueError, IndexError):
        return {}, "the trial gave no answer"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lines(backend: Backend, hierarchy: Hierarchy, *, root: bool, advice: str = "") -> list[Line]:
    """Return the doctor's lines of one backend."""
    if not backend.version():
        return [Line("installed", "missing", "not found on PATH", advice)]
    answers, why = _run(backend)
    if why:
        return [Line("starts", "missing", why, advice or _advice())]
    found = [Line("starts", "held", f"{backend.name} {backend.version()}")]
    for key, meaning, what_to_do in PROMISES:
        broken = answers.get(key, True)
        found.append(
            Line(meaning, "missing" if broken else "held", "", what_to_do if broken else "")
        )
    found += _limits(hierarchy, root)
    return found


def _advice() -> str:
    setting = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if setting.exists() and setting.read_text(encoding="ascii").strip() == "1":
        return "AppArmor forbids user namespaces: give bwrap a profile that allows userns"
    maximum = Path("/proc/sys/user/max_user_namespaces")
    if maximum.exists() and maximum.read_text(encoding="ascii").strip() == "0":
        return "set user.max_user_namespaces above 0 (sysctl)"
    return ""


def _limits(hierarchy: Hierarchy, root: bool) -> list[Line]:
    # Claimed, or a sweep of another process would take it for an orphan's.
    claim = Claim(f"doctor-{os.getpid()}-{secrets.token_hex(4)}")
    group = Group(claim.path.stem, hierarchy)
    try:
        enforced = group.create(LIMITS)
    except OSError:
        enforced = frozenset()
    finally:
        group.remove()
        claim.release()
    run_delegated = "run as root, or inside a delegated group that GLOVEBOX_CGROUP names"
    found = []
    for controller, meaning, otherwise in (
        ("memory", "memory is bounded, swap included", "watched ten times a second"),
        ("pids", "processes and threads are bounded", "RLIMIT_NPROC in a user namespace"),
        ("cpu", "processor time is bounded", "not bounded"),
    ):
        held = controller in enforced
        found.append(
            Line(
                meaning,
                "held" if held else "weak",
                "control group" if held else otherwise,
                "" if held else run_delegated,
                required=controller != "cpu",
            )
        )
    swap = len(Path("/proc/swaps").read_text(encoding="ascii").splitlines()) > 1
    found.append(
        Line(
            "no swap that plain data could reach",
            "weak" if swap else "held",
            "swap is on; the control group keeps jobs out of it" if swap else "",
            "encrypt or disable swap" if swap else "",
            required=False,
        )
    )
    found.append(
        Line(
            "a user of its own outside, too",
            "held" if root else "weak",
            "one a sandbox" if root else "the runner's own user, in a user namespace",
            "" if root else "run as root for a user of its own",
            required=False,
        )
    )
    found.append(
        Line(
            "names of host directories stay unseen",
            "weak",
            "/proc/self/mountinfo shows where a mount comes from; contents stay unseen",
            "keep personal names out of the paths of datasets",
            required=False,
        )
    )
    return found
