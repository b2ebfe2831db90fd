"""Each machine is complete, and what is not in its table is refused."""

from __future__ import annotations

from itertools import product

import pytest

from policies.errors import Conflict, Denied
from policies.workflow import ACTORS, MACHINES, Machine, Transition, diagram

each_machine = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)

# The words of architecture.md; a renamed state would break rows already stored.
STATES = {
    "access_request": "draft submitted in_review approved rejected returned withdrawn",
    "grant": "active expired suspended revoked",
    "dataset_version": "draft ingesting de_identified in_qa published retired",
    "job": "submitted checked queued staging running collecting inspecting "
    "finished failed stopped refused",
    "release": "proposed in_review returned approved released revoked rejected withdrawn",
}
FINAL = {
    "access_request": "approved rejected withdrawn",
    "grant": "expired revoked",
    "dataset_version": "retired",
    "job": "finished failed stopped refused",
    "release": "revoked rejected withdrawn",
}


@each_machine
def test_has_the_states_of_the_architecture(machine: Machine) -> None:
    assert set(machine.states) == set(STATES[machine.name].split())
    assert machine.final_states == set(FINAL[machine.name].split())


@each_machine
def test_every_state_in_a_transition_has_one_known_owner(machine: Machine) -> None:
    used = {machine.initial}
    for step in machine.transitions:
        used |= {step.state, step.next}
        assert step.actor in ACTORS
    assert used == set(machine.owners)
    assert set(machine.owners.values()) <= set(ACTORS)


@each_machine
def test_the_owner_of_a_waiting_state_can_move_it(machine: Machine) -> None:
    for state in set(machine.states) - machine.final_states:
        assert machine.actions(state, machine.owners[state]), state


@each_machine
def test_every_state_is_reached_and_every_path_can_end(machine: Machine) -> None:
    reached, ending = {machine.initial}, set(machine.final_states)
    for _round in machine.states:
        reached |= {step.next for step in machine.transitions if step.state in reached}
        ending |= {step.state for step in machine.transitions if step.next in ending}
    assert reached == set(machine.states)
    assert ending == set(machine.states)


@each_machine
def test_an_action_means_one_thing_in_a_state(machine: Machine) -> None:
    following: dict[tuple[str, str], str] = {}
    for step in machine.transitions:
        assert following.setdefault((step.state, step.action), step.next) == step.next
    assert len(set(machine.transitions)) == len(machine.transitions)


@each_machine
def test_what_is_not_in_the_table_is_refused(machine: Machine) -> None:
    table = {(t.state, t.action, t.actor): t.next for t in machine.transitions}
    known = {(t.state, t.action) for t in machine.transitions}
    actions = {t.action for t in machine.transitions} | {"delete", ""}
    for state, action, actor in product((*machine.states, "nowhere"), actions, (*ACTORS, "root")):
        if (state, action, actor) in table:
            assert machine.next_state(state, action, actor) == table[state, action, actor]
            assert machine.allows(state, action, actor)
            continue
        assert not machine.allows(state, action, actor)
        with pytest.raises(Denied if (state, action) in known else Conflict):
            machine.next_state(state, action, actor)


@each_machine
def test_the_administrator_approves_nothing_and_gives_nothing_back(machine: Machine) -> None:
    theirs = {step.action for step in machine.transitions if step.actor == "administrator"}
    assert theirs <= {"suspend", "stop"}


def test_only_the_people_who_decide_decide() -> None:
    deciding = {
        ("access_request", "approve"): "committee",
        ("release", "approve"): "reviewer",
        ("dataset_version", "sign"): "officer",
        ("release", "revoke"): "steward",
        ("grant", "resume"): "steward",
    }
    for (name, action), actor in deciding.items():
        assert {s.actor for s in MACHINES[name].transitions if s.action == action} == {actor}


@pytest.mark.parametrize(
    ("name", "state", "before"),
    [
        ("access_request", "approved", {"in_review"}),
        ("release", "released", {"approved"}),
        ("release", "approved", {"in_review"}),
        ("dataset_version", "published", {"in_qa"}),
        ("job", "finished", {"inspecting"}),
    ],
)
def test_no_way_around_a_decision(name: str, state: str, before: set[str]) -> None:
    assert {s.state for s in MACHINES[name].transitions if s.next == state} == before


def test_the_states_before_an_action_are_for_conditional_updates() -> None:
    assert MACHINES["release"].before("withdraw") == {
        "proposed",
        "in_review",
        "returned",
        "approved",
    }
    assert MACHINES["release"].before("unheard-of") == frozenset()


@each_machine
def test_the_diagram_shows_each_step_and_each_owner(machine: Machine) -> None:
    drawing = diagram(machine)
    assert drawing.startswith("stateDiagram-v2\n    [*] --> " + machine.initial)
    for step in machine.transitions:
        line = next(
            row
            for row in drawing.splitlines()
            if row.startswith(f"    {step.state} --> {step.next} :") and step.action in row
        )
        assert step.actor in line
    for state in machine.final_states:
        assert f"    {state} --> [*]" in drawing


def test_a_machine_with_a_hole_would_be_found() -> None:
    """The completeness tests above can fail: a dead end and an orphan are seen."""
    broken = Machine(
        "broken",
        "a",
        {"a": "system", "b": "system", "c": "system"},
        (Transition("a", "go", "system", "b"), Transition("c", "go", "system", "b")),
    )
    with pytest.raises(AssertionError):
        test_every_state_is_reached_and_every_path_can_end(broken)
