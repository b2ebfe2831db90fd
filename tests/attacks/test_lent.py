"""A directory of a real disk that is lent to a sandbox: filling it unseen, and leaving traps."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox_runner.backends import Backend
from sandbox_runner.place import Claim
from sandbox_runner.spec import GiB, MiB, Mount, SandboxResult, SandboxSpec
from tests.attacks.conftest import LIMITS

pytestmark = pytest.mark.sandbox

Run = Callable[..., SandboxResult]


@pytest.fixture
def lent(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "lent"
    place.mkdir()
    yield place
    # Where the runner did not lay it flat, Python's own rmtree cannot remove it.
    subprocess.run(["rm", "-rf", str(place)], check=True)


@pytest.fixture
def run(backend: Backend, lent: Path, tmp_path: Path) -> Run:
    """Return a function that runs a program which may write to /lent."""

    def run(program: str, output_bytes: int = 4 * MiB) -> SandboxResult:
        identifier = f"lent-{uuid.uuid4().hex[:12]}"
        try:
            return backend.run(
                SandboxSpec(
                    id=identifier,
                    argv=("python", "-c", program),
                    limits=replace(LIMITS, output_bytes=output_bytes),
                    mounts=(Mount(lent, "/lent", writable=True),),
                    log=tmp_path / "log",
                )
            )
        finally:
            Claim(identifier).release()  # Conflict, if the name were still taken

    return run


FILL = """
import os, time
os.chdir("/lent")
{prepare}
file = open("fill", "wb", buffering=0)
{hide}
for _ in range(400):
    file.write(b"x" * (1 << 18))
    time.sleep(0.02)
"""
DIVE = "for _ in range({levels}): os.mkdir({name!r}); os.chdir({name!r})"


@pytest.mark.parametrize(
    ("prepare", "hide"),
    [
        pytest.param("", "", id="openly"),
        pytest.param("", "os.unlink('fill')", id="in a file without a name"),
        pytest.param(DIVE.format(levels=40, name="d" * 200), "", id="behind a path too long"),
        pytest.param(DIVE.format(levels=1500, name="d"), "", id="deeper than a stack"),
    ],
)
def test_a_lent_disk_cannot_be_filled_unseen(run: Run, lent: Path, prepare: str, hide: str) -> None:
    result = run(FILL.format(prepare=prepare, hide=hide))

    assert (result.state, result.reason) == ("failed", "output-limit")


def test_a_trap_of_directories_is_taken_back_whole(run: Run, lent: Path) -> None:
    result = run(
        "import os; os.chdir('/lent')\n"
        "os.symlink('/etc', 'link'); os.mkfifo('fifo')\n"
        f"{DIVE.format(levels=3000, name='d' * 60)}\n"
        "open('bottom', 'w').write('here')\n",
        output_bytes=4 * GiB,
    )

    assert (result.state, result.reason) == ("finished", "exit")
    found = [Path(folder) / name for folder, _, names in os.walk(lent) for name in names]
    assert "bottom" in {path.name for path in found}
    assert {path.lstat().st_uid for path in found} == {os.geteuid()}
    shutil.rmtree(lent)
    assert not lent.exists()
