"""What an attack is: a hostile program, how its success would show, and how it is run."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox_runner.backends.local import outer_uid
from sandbox_runner.spec import SandboxResult

ESCAPED = "GLOVEBOX-ESCAPED"

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

    ``bare`` says whether it is first shown to get through without a sandbox; False where that
    would harm the machine or needs something it may not have. ``ends`` is how its sandbox must
    end, None where that does not matter.
    """

    name: str
    code: str
    bare: bool = True
    ends: tuple[str, str] | None = ("finished", "exit")
    gvisor_ends: tuple[str, str] | None = None
    own_kernel: bool = False
    limits: Mapping[str, Any] = field(default_factory=dict)

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
        """Return what it left on the machine: processes, control groups, mounts, locks."""
        found: set[str] = set()
        user = outer_uid(self.identifier)
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if process.name.isdigit() and process.stat().st_uid == user:
                    found.add(f"process {process.name}")
        for place in (Path("/sys/fs/cgroup"), Path("/run/glovebox")):
            found |= {str(path) for path in place.rglob(f"{self.identifier}*")}
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        return found | {f"mount {row}" for row in mounts if self.identifier in row}


def run_bare(directory: Path, output: Path, environment: Mapping[str, str]) -> str:
    """Run a submission with no sandbox and return what it printed."""
    output.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, str(directory / "train.py")],
        env={
            **environment,
            "GLOVEBOX_CODE": str(directory),
            "GLOVEBOX_OUTPUT": str(output),
        },
        cwd=output,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout
