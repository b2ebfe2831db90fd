"""No job carries anything out, or widens its own box, by what it hands in, leaves or says."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sandbox_runner.backends import Backend
from tests.attacks import exits, outputs, submissions
from tests.attacks.attack import ESCAPED, leftovers
from tests.attacks.conftest import Probe
from tests.attacks.jobs import MANIFEST, JobAttack, run_naively, run_sealed
from tests.attacks.verdicts import BARE

pytestmark = pytest.mark.sandbox

GROUPS = (outputs, exits, submissions)
ATTACKS = [
    pytest.param(attack, id=f"{group.__name__.rsplit('.', 1)[-1]}: {attack.name}")
    for group in GROUPS
    for attack in group.ATTACKS
]
SHOWN_BARE = [each for each in ATTACKS if each.values[0].bare]  # type: ignore[union-attr]
#: All that may lie in the directory of a job that has ended.
KEPT = {"log", "outcome.json"}


@pytest.fixture(autouse=True)
def _root(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("devices, owners and other roots are made by root")


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_job_gets_anything_out(
    attack: JobAttack, backend: Backend, target: Mapping[str, Any], tmp_path: Path, probe: Probe
) -> None:
    assert attack.manifest != MANIFEST or attack.row != "widening", "the ordinary manifest"

    outcome, loot, log, identifier = run_sealed(attack, backend.name, tmp_path, target)

    ended = (outcome.state, outcome.reason)
    work = tmp_path / "work"
    left = {path.name for path in work.iterdir()} - KEPT if work.is_dir() else set()
    probe(
        backend,
        attack,
        succeeded=ESCAPED in log or attack.shows(loot),
        wrong=""
        if attack.ends_rightly(backend.name, ended)
        else f"{ended} {outcome} {log[-2000:]}",
        leftovers=leftovers(identifier) | {f"file {name}" for name in left},
    )


@pytest.mark.slow  # what is shown bare changes with the probes, not with the sandbox
@pytest.mark.parametrize("attack", SHOWN_BARE)
def test_somebody_naive_lets_it_all_out(
    attack: JobAttack,
    target: Mapping[str, Any],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    record_property(BARE, attack.name)

    loot, printed = run_naively(attack, tmp_path, target)

    assert ESCAPED in printed or attack.shows(loot)
