"""Two jobs pass nothing on, at once or one after the other, and hold nobody up."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sandbox_runner import lifecycle
from sandbox_runner.backends import Backend
from tests.attacks import together
from tests.attacks.attack import ESCAPED
from tests.attacks.conftest import Probe
from tests.attacks.together import PAGES, PairAttack
from tests.attacks.verdicts import BARE

pytestmark = pytest.mark.sandbox

ATTACKS = [
    pytest.param(attack, id=f"{'at once' if attack.at_once else 'after'}: {attack.name}")
    for attack in together.ATTACKS
    if attack is not together.LOCKS_EVERYTHING
]
SHOWN_BARE = [each for each in ATTACKS if each.values[0].bare]  # type: ignore[union-attr]


@pytest.fixture
def data() -> Iterator[Path]:
    """Data on a disk, of which nothing is in memory."""
    folder = Path(tempfile.mkdtemp(prefix="glovebox-pair-", dir="/var/tmp"))
    folder.chmod(0o755)
    (folder / "labels.csv").write_text("file,subject,label,split\n", encoding="utf-8")
    os.utime(folder / "labels.csv", (1, 1))
    with (folder / "cold.bin").open("wb") as file:
        file.write(os.urandom(PAGES << 18))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("attack", ATTACKS)
def test_two_jobs_pass_nothing_on(
    attack: PairAttack,
    backend: Backend,
    target: Mapping[str, Any],
    data: Path,
    tmp_path: Path,
    probe: Probe,
) -> None:
    if attack.own_kernel and backend.name == "gvisor":
        pytest.skip("granted by gVisor's own kernel, within itself")

    pair = together.run_sealed(attack, backend, data, tmp_path, target)

    expected = together.CANCELLED if attack.at_once else ("finished", "exit")
    ended = (pair.first, pair.second)
    probe(
        backend,
        attack,
        succeeded=ESCAPED in pair.said,
        wrong="" if ended == (expected, ("finished", "exit")) else f"{ended} {pair.said[-2000:]}",
        leftovers=pair.leftovers,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="some of this needs root to succeed bare")
@pytest.mark.slow  # what is shown bare changes with the probes, not with the sandbox
@pytest.mark.parametrize("attack", SHOWN_BARE)
def test_the_same_is_passed_on_without_a_sandbox(
    attack: PairAttack,
    target: Mapping[str, Any],
    data: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    record_property(BARE, attack.name)

    assert ESCAPED in together.run_bare(attack, data, tmp_path, target)


def test_who_locks_everything_in_sight_holds_nobody_up(
    backend: Backend, target: Mapping[str, Any], data: Path, tmp_path: Path, probe: Probe
) -> None:
    swept = threading.Event()

    def sweep() -> None:
        lifecycle.sweep(None)
        swept.set()

    threading.Timer(0.3, sweep).start()
    pair = together.run_sealed(together.LOCKS_EVERYTHING, backend, data, tmp_path, target)

    probe(
        backend,
        together.LOCKS_EVERYTHING,
        succeeded=pair.second != ("finished", "exit") or not swept.wait(10),
        wrong="" if pair.first == together.CANCELLED else str(pair),
        leftovers=pair.leftovers,
    )
