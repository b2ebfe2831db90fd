"""Control groups: version 1 where this machine has it, version 2 on a machine that has.

A kernel has a controller in one of the two only. Where this machine's are in version 1, a Linux of
version 2 is started as a program (Debian's package user-mode-linux), and everything runs in there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest

from sandbox_runner.backends import Backend, cgroups
from sandbox_runner.spec import Limits, MiB, SandboxSpec

HERE = Path(__file__).resolve().parent
PROGRAM = HERE / "machines" / "version2.py"
PROJECT = HERE.parent.parent
USER = 54321


@pytest.fixture
def version2(tmp_path: Path) -> cgroups.Hierarchy:
    """Files as a machine of version 2 has them, in a folder: what is written stays to be read."""
    top = tmp_path / "cgroup"
    top.mkdir()
    (top / "cgroup.controllers").write_text("cpuset cpu io memory pids\n", encoding="ascii")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"cgroup2 {top} cgroup2 rw,nosuid 0 0\n", encoding="ascii")
    return cgroups.find(mounts)


def test_limits_are_written_as_version_2_reads_them(version2: cgroups.Hierarchy) -> None:
    group = cgroups.Group("one", version2)

    enforced = group.create(Limits(memory_bytes=64 * MiB, processes=7, cpus=0.5))

    assert enforced == {"memory", "pids", "cpu"}
    assert group.entrances() == [str(group.paths[0] / "cgroup.procs")]
    written = {path.name: path.read_text(encoding="ascii") for path in group.paths[0].iterdir()}
    assert written == {
        "memory.max": str(64 * MiB),
        "memory.swap.max": "0",
        "memory.oom.group": "0",
        "pids.max": "7",
        "cpu.max": "50000 100000",
    }
    above = group.paths[0].parent
    for parent in (above, above.parent):
        handed = (parent / "cgroup.subtree_control").read_text(encoding="ascii").split()
        assert set(handed) == {"+memory", "+pids", "+cpu"}


def test_counters_of_version_2_are_read(version2: cgroups.Hierarchy) -> None:
    group = cgroups.Group("one", version2)
    group.create(Limits())
    home = group.paths[0]
    assert not group.memory_exceeded() and not group.processes_exceeded()

    for name, text in (
        ("memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n"),
        ("pids.events", "max 3\n"),
        ("cpu.stat", "usage_usec 1500000\nuser_usec 1\nsystem_usec 1\n"),
        ("memory.peak", "4096\n"),
    ):
        (home / name).write_text(text, encoding="ascii")

    assert group.memory_exceeded() and group.processes_exceeded()
    assert group.cpu_seconds() == 1.5
    assert group.peak_memory_bytes() == 4096


KILLS = """
import sys
from pathlib import Path
from sandbox_runner.backends import cgroups
group = cgroups.Group("one", cgroups.find(Path(sys.argv[1])))
print(group.remove(0.1))
"""


def test_a_process_that_cannot_be_seen_from_here_ends_nobody_else(
    version2: cgroups.Hierarchy, tmp_path: Path
) -> None:
    """The kernel writes 0 for a process of another namespace, and kill(0) is our own group."""
    group = cgroups.Group("one", version2)
    group.create(Limits())
    (group.paths[0] / "cgroup.procs").write_text(f"0\n{2**22 + 1}\n", encoding="ascii")

    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path / "mounts")],
        capture_output=True, text=True, check=False, cwd=PROJECT, start_new_session=True,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_a_mount_that_may_not_be_written_is_no_home(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"cgroup2 {tmp_path / 'nowhere'} cgroup2 rw 0 0\n", encoding="ascii")

    hierarchy = cgroups.find(mounts)

    assert hierarchy.version2 is None
    assert cgroups.Group("one", hierarchy).create(Limits()) == frozenset()


@pytest.mark.sandbox
def test_every_limit_stands_in_the_kernel_s_files_while_a_program_runs(
    bubblewrap: Backend,
) -> None:
    hierarchy = cgroups.find()
    if set(hierarchy.version1) < set(cgroups.CONTROLLERS):
        pytest.skip("the controllers of this machine are not in version 1, or not ours to write")
    spec = SandboxSpec(
        id=f"limits-{uuid.uuid4().hex[:12]}",
        argv=("python", "-I", "-S", "-c", "import time; print('here', flush=True); time.sleep(60)"),
        limits=Limits(memory_bytes=128 * MiB, processes=9, cpus=0.5),
    )
    running = bubblewrap.start(spec)
    try:
        assert running.stdout.readline() == b"here\n"
        homes = {name: hierarchy.version1[name] / spec.id for name in cgroups.CONTROLLERS}
        inside = {name: (home / "cgroup.procs").read_text().split() for name, home in homes.items()}
        read = {
            name: (homes[name.partition(".")[0]] / name).read_text(encoding="ascii").strip()
            for name in ("memory.limit_in_bytes", "memory.swappiness", "pids.max",
                         "cpu.cfs_quota_us", "cpu.cfs_period_us")
        }  # fmt: skip
    finally:
        running.kill()
        running.wait(20)
        running.stdin.close()
        running.stdout.close()

    assert all(inside.values()), inside
    assert read == {
        "memory.limit_in_bytes": str(128 * MiB),
        "memory.swappiness": "0",
        "pids.max": "11",  # and bwrap's own two
        "cpu.cfs_quota_us": "50000",
        "cpu.cfs_period_us": "100000",
    }
    assert not any(home.exists() for home in homes.values())


# As root, and as a user to whom a group was delegated (docs/operations.md, start-worker). What may
# be the home of root is shown elsewhere, for another user cannot enter it.
INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
for place in /run /tmp /mnt; do mount -t tmpfs tmpfs $place; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
export PATH=/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/mnt/project
mkdir /mnt/python /mnt/project /mnt/root /mnt/user
mount --bind {base} /mnt/python
mount --bind {project} /mnt/project
chown {user} /mnt/user
cd /mnt/project
program=tests/sandbox_runner/machines/version2.py
echo root:; /mnt/python/bin/{python} $program /mnt/root 2>&1
group=/sys/fs/cgroup/site
mkdir -p $group/runner
echo '+memory +pids +cpu' > /sys/fs/cgroup/cgroup.subtree_control
for file in . cgroup.procs cgroup.subtree_control runner runner/cgroup.procs; do
    chown {user} $group/$file
done
echo $$ > $group/runner/cgroup.procs
echo user:; GLOVEBOX_CGROUP=$group XDG_RUNTIME_DIR=/mnt/user TMPDIR=/mnt/user \
    setpriv --reuid {user} --regid {user} --clear-groups \
    /mnt/python/bin/{python} $program /mnt/user 2>&1
echo o > /proc/sysrq-trigger
sleep 60
"""


def _machine(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the program saw, by who ran it; skip where there is no such machine."""
    if cgroups.find().version2_controllers == set(cgroups.CONTROLLERS):
        seen = subprocess.run(
            [sys.executable, str(PROGRAM), str(folder)],
            capture_output=True, text=True, check=True, cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )  # fmt: skip
        return {"root" if os.geteuid() == 0 else "user": json.loads(seen.stdout.splitlines()[-1])}
    linux = shutil.which("linux.uml")
    if linux is None or os.geteuid() != 0:
        pytest.skip("needs control groups of version 2, or root and Debian's user-mode-linux")
    init = folder / "init"
    init.write_text(
        INIT.format(
            base=Path(sys.base_prefix).resolve(),
            project=PROJECT,
            user=USER,
            python=f"python{sys.version_info.major}.{sys.version_info.minor}",
        ),
        encoding="utf-8",
    )
    init.chmod(0o755)
    done = subprocess.run(
        [linux, "mem=1G", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}", "quiet",
         "con=null", "con0=fd:0,fd:1"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=400,
        cwd=folder, env={"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    words = done.stdout.replace("\r", "")
    answers: dict[str, dict[str, Any]] = {}
    for who in ("root", "user"):
        rows = [row for row in words.partition(f"{who}:\n")[2].splitlines() if row[:1] == "{"]
        assert rows, f"{who}: {words[-3000:]}{done.stderr[-1000:]}"
        answers[who] = json.loads(rows[0])
    return answers


@pytest.mark.sandbox
@pytest.mark.slow
def test_version_2_enforces_every_limit_and_says_which() -> None:
    # On a disk: the other Linux has devices, and so a /dev/shm, of its own.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        answers = _machine(Path(folder))
    for who, seen in answers.items():
        about = f"{who}: {seen}"
        assert seen["controllers"] == ["cpu", "memory", "pids"], about
        assert seen["memory"]["ended"] == ["failed", "memory"], about
        assert seen["memory of many"]["ended"] == ["failed", "memory"], about
        assert seen["processes"]["ended"] == ["failed", "processes"], about
        assert seen["time"]["ended"] == ["stopped", "timeout"], about
        assert seen["nothing"]["ended"] == ["finished", "exit"], about
        assert seen["nothing"]["peak_memory_bytes"] > 32 * MiB, about
        # A quarter of two seconds, and the start of the program.
        cpu = seen["cpu"]
        assert cpu["ended"] == ["finished", "exit"], about
        assert cpu["cpu_seconds"] < 0.5 * cpu["wall_seconds"], about
        files = seen["nothing"]["files"]
        assert files["memory.max"] == str(96 * MiB), about
        assert files.get("memory.swap.max", "0") == "0", about
        assert files["pids.max"] == "18" and files["cpu.max"] == "100000 100000", about
        assert seen["left"] == [], about
