"""Every attack gets through bare, where that is safe to show, and nowhere in a sandbox."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sandbox_runner.backends import Backend
from tests.attacks import environment, files, network, privilege, processes, resources
from tests.attacks.attack import ESCAPED, Assault, Attack, run_bare
from tests.attacks.conftest import Probe
from tests.attacks.verdicts import BARE

pytestmark = pytest.mark.sandbox

GROUPS = (network, files, processes, privilege, resources, environment)
ATTACKS = [
    pytest.param(
        attack,
        id=f"{group.__name__.rsplit('.', 1)[-1]}: {attack.name}",
        marks=pytest.mark.slow if attack.slow else (),
    )
    for group in GROUPS
    for attack in group.ATTACKS
]
SHOWN_BARE = [each for each in ATTACKS if each.values[0].bare]  # type: ignore[union-attr]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_gets_through_a_sandbox(
    attack: Attack, backend: Backend, assault: Callable[[Attack], Assault], probe: Probe
) -> None:
    if attack.own_kernel and backend.name == "gvisor":
        pytest.skip("granted by gVisor's own kernel, within itself")
    came_of_it = assault(attack)

    ended = (came_of_it.result.state, came_of_it.result.reason)
    probe(
        backend,
        attack,
        succeeded=ESCAPED in came_of_it.log,
        wrong=""
        if attack.ends_rightly(backend.name, ended)
        else f"{ended} {came_of_it.log[-2000:]}",
        leftovers=came_of_it.leftovers(),
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="much of this needs root to succeed bare")
@pytest.mark.parametrize("attack", SHOWN_BARE)
def test_the_same_gets_through_without_one(
    attack: Attack,
    target: Mapping[str, Any],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    record_property(BARE, attack.name)
    attack.write(tmp_path / "code", target)

    printed = run_bare(
        tmp_path / "code",
        tmp_path / "output",
        {**os.environ, "GLOVEBOX_CANARY": "canary"},
        target["left_open"],
    )

    assert ESCAPED in printed
