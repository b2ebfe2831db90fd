"""What an attack is: a hostile program, how its success would show, and how it is run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from sandbox_runner.backends.local import outer_uid
from sandbox_runner.image import ROOM
from sandbox_runner.spec import Limits, MiB, Mount, SandboxResult, SandboxSpec

ESCAPED = "GLOVEBOX-ESCAPED"
LIMITS = Limits(
    cpus=1,
    memory_bytes=512 * MiB,
    processes=64,
    wall_seconds=20,
    output_bytes=8 * MiB,
    output_inodes=1000,
    tmp_bytes=8 * MiB,
    shm_bytes=8 * MiB,
    open_files=256,
    log_bytes=256 * 1024,
    grace_seconds=1,
)
A = TypeVar("A", bound="Attack")

PRELUDE = '''
import ctypes, errno, json, os, resource, signal, socket, stat, struct, subprocess, sys, threading
import time
TARGET = json.load(open(os.environ["GLOVEBOX_CODE"] + "/target.json"))
OUTPUT = os.environ["GLOVEBOX_OUTPUT"]
CODE = os.environ["GLOVEBOX_CODE"]
libc = ctypes.CDLL(None, use_errno=True)

def escaped(what=""):
    print("{escaped}", what, flush=True)

def call(number, *arguments):
    """A raw system call; None when it failed."""
    answer = libc.syscall(ctypes.c_long(number), *[
        ctypes.c_ulong(a & (2**64 - 1)) if isinstance(a, int) else a for a in arguments])
    return None if answer == -1 else answer

def in_child(function):
    """Run in a forked child, which says by exit code 7 that it got through."""
    pid = os.fork()
    if pid == 0:
        try:
            ok = function()
        except BaseException:
            ok = False
        os._exit(7 if ok else 1)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7:
        escaped()
'''.replace("{escaped}", ESCAPED)


@dataclass(frozen=True)
class Attack:
    """A hostile program. It prints a marker when it got through.

    ``row`` is the row of the threat model's table that it belongs to. ``bare`` says whether it is
    first shown to get through without a sandbox; False where that would harm the machine or needs
    something it may not have. ``ends`` is how its sandbox must end, None where that does not
    matter, several where any of them is right. ``own_kernel`` is granted by gVisor's kernel within
    itself. ``slow`` ones are for `make verify-attacks`. ``known`` are backends on which it gets
    through, as the threat model says.
    """

    name: str
    code: str
    bare: bool = True
    ends: tuple[str, str] | frozenset[tuple[str, str]] | None = ("finished", "exit")
    gvisor_ends: tuple[str, str] | frozenset[tuple[str, str]] | None = None
    own_kernel: bool = False
    limits: Mapping[str, Any] = field(default_factory=dict)
    row: str = ""
    known: frozenset[str] = frozenset()
    slow: bool = False

    def ends_rightly(self, backend: str, ended: tuple[str, str]) -> bool:
        """Return whether a sandbox of this backend may end so."""
        ends = self.gvisor_ends if self.gvisor_ends and backend == "gvisor" else self.ends
        return ends is None or ended == ends or (isinstance(ends, frozenset) and ended in ends)

    def write(self, directory: Path, target: Mapping[str, Any]) -> None:
        """Write it as a submission's ``train.py``, with what it knows of its target."""
        directory.mkdir(parents=True, exist_ok=True)
        program = PRELUDE + textwrap.dedent(self.code)
        (directory / "train.py").write_text(program, encoding="utf-8")
        (directory / "target.json").write_text(json.dumps(dict(target)), encoding="utf-8")


@dataclass(frozen=True)
class Assault:
    """What came of an attack in a sandbox."""

    result: SandboxResult
    log: str
    output: Path
    identifier: str

    def leftovers(self) -> set[str]:
        """Return what it left on the machine."""
        return leftovers(self.identifier)


def under(row: str, attacks: Iterable[A]) -> list[A]:
    """Return the attacks as belonging to one row of the threat model's table."""
    return [replace(attack, row=attack.row or row) for attack in attacks]


def leftovers(identifier: str) -> set[str]:
    """Return what a sandbox of this name left: processes with their namespaces, groups, mounts.

    Also namespaces that are held open by a mount or by this process, and files and locks.
    """
    found: set[str] = set()
    user = outer_uid(identifier)
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            words = (process / "cmdline").read_bytes() + (process / "cgroup").read_bytes()
            if process.stat().st_uid == user or identifier.encode() in words:
                found.add(f"process {process.name}")
                found |= {f"namespace {each.readlink()}" for each in process.glob("ns/*")}
    for place in ("/sys/fs/cgroup", "/run/glovebox"):
        # Not glob: what others have there comes and goes meanwhile.
        for top, folders, files in os.walk(place):
            found |= {f"{top}/{name}" for name in (*folders, *files) if identifier in name}
    for place in (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/dev/mqueue")):
        found |= {str(path) for path in place.glob(f"*{identifier}*")}
        found |= {str(each) for each in place.glob("*") if _owned_by(each, user)}
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    found |= {f"mount {row}" for row in mounts if identifier in row}
    found |= {f"namespace {row}" for row in mounts if row.split()[2] == "nsfs"}
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(descriptor.readlink())
            if re.match(r"(?!socket|pipe)[a-z_]+:\[\d+\]$", target):
                found.add(f"namespace {target}")
    for kind in ("shm", "sem", "msg"):
        rows = Path(f"/proc/sysvipc/{kind}").read_text(encoding="ascii").splitlines()
        found |= {f"{kind} {row.split()[1]}" for row in rows[1:] if str(user) in row.split()}
    return found


def _owned_by(path: Path, user: int) -> bool:
    try:
        return path.lstat().st_uid == user
    except OSError:
        return False


def sandbox(attack: Attack, target: Mapping[str, Any], data: Path, home: Path) -> SandboxSpec:
    """Write an attack below ``home`` and return the sandbox that runs it on some data."""
    attack.write(home / "code", target)
    return SandboxSpec(
        id=f"attack-{uuid.uuid4().hex[:12]}",
        argv=("python", "/opt/glovebox/start.py", "/code/train.py"),
        limits=replace(LIMITS, **attack.limits),
        mounts=(
            Mount(home / "code", "/code"),
            Mount(ROOM / "inside", "/opt/glovebox"),
            Mount(data, "/data/mini"),
        ),
        env={"GLOVEBOX_CODE": "/code", "GLOVEBOX_OUTPUT": "/output"},
        workdir="/code",
        output=home / "output",
        log=home / "log",
    )


def start_bare(
    directory: Path, output: Path, environment: Mapping[str, str], inherited: Sequence[int] = ()
) -> subprocess.Popen[str]:
    """Start a submission with no sandbox, with the descriptors that were left open."""
    output.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(directory / "train.py")],
        env={
            **environment,
            "GLOVEBOX_CODE": str(directory),
            "GLOVEBOX_OUTPUT": str(output),
        },
        cwd=output,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=inherited,
    )


def run_bare(
    directory: Path, output: Path, environment: Mapping[str, str], inherited: Sequence[int] = ()
) -> str:
    """Run a submission with no sandbox and return what it printed."""
    with start_bare(directory, output, environment, inherited) as process:
        try:
            return process.communicate(timeout=30)[0]
        finally:
            process.kill()
