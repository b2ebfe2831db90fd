"""Which backend runs: never one below the minimum, never one that does not hold."""

from __future__ import annotations

import pytest

from policies.errors import CannotRun, Conflict, Invalid
from sandbox_runner.backends import choice
from sandbox_runner.backends.choice import choose
from sandbox_runner.place import Claim, check_id, orphans


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    """What is missing by backend, as the doctor would have found it."""
    lacks: dict[str, tuple[str, ...]] = {"gvisor": (), "bubblewrap": ()}
    monkeypatch.setattr(choice, "missing", lambda name: lacks[name])
    monkeypatch.setattr(type(choice.backend("gvisor")), "auto", property(lambda _: True))
    return lacks


def test_auto_takes_the_strongest_that_holds(machine: dict[str, tuple[str, ...]]) -> None:
    assert choose("auto", "bubblewrap").name == "gvisor"
    machine["gvisor"] = ("starts",)
    assert choose("auto", "bubblewrap").name == "bubblewrap"


def test_auto_passes_over_a_slow_one_unless_the_policy_needs_it(
    machine: dict[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(choice.backend("gvisor")), "auto", property(lambda _: False))

    assert choose("auto", "bubblewrap").name == "bubblewrap"
    assert choose("auto", "gvisor").name == "gvisor"


def test_there_is_no_step_down(machine: dict[str, tuple[str, ...]]) -> None:
    machine["gvisor"] = ("starts",)

    for name in ("auto", "bubblewrap", "gvisor"):
        with pytest.raises(CannotRun):
            choose(name, "gvisor")
    with pytest.raises(CannotRun):
        choose("auto", "kata")
    with pytest.raises(CannotRun):
        choose("auto", "a word that nobody knows")


def test_a_missing_line_refuses_by_name(machine: dict[str, tuple[str, ...]]) -> None:
    machine["bubblewrap"] = ("memory is bounded",)

    with pytest.raises(CannotRun, match="memory is bounded"):
        choose("bubblewrap", "bubblewrap")


def test_an_unknown_backend_is_named_with_the_known_ones() -> None:
    with pytest.raises(Invalid, match="bubblewrap"):
        choose("docker", "bubblewrap")


def test_a_sandbox_has_one_runner_and_none_after_it(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = Claim("one-runner")
    with pytest.raises(Conflict):
        Claim("one-runner")
    assert not [each for each in orphans({"one-runner"}) if each.path.stem == "one-runner"]

    claim.release()
    claim.release()
    Claim("one-runner").release()


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "a" * 65, "a\n", "ä"])
def test_an_id_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        check_id(name)
