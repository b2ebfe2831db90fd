"""Each state machine as one table: state, action, actor, next state.

A state has one owner, who must move it on; others may have actions in it as well (an applicant
may withdraw what a reviewer owns). The diagrams in the documentation are made from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policies.errors import Conflict, Denied, _

APPLICANT = "applicant"
STEWARD = "steward"
COMMITTEE = "committee"
OFFICER = "officer"
REVIEWER = "reviewer"
ADMINISTRATOR = "administrator"
SYSTEM = "system"
ACTORS = (APPLICANT, STEWARD, COMMITTEE, OFFICER, REVIEWER, ADMINISTRATOR, SYSTEM)


@dataclass(frozen=True, slots=True)
class Transition:
    """One permitted step."""

    state: str
    action: str
    actor: str
    next: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A named table of transitions with its first state and the owner of each state."""

    name: str
    initial: str
    owners: Mapping[str, str]
    transitions: tuple[Transition, ...]

    @property
    def states(self) -> tuple[str, ...]:
        """All states, in the order in which they are usually passed."""
        return tuple(self.owners)

    @property
    def final_states(self) -> frozenset[str]:
        """The states that nothing leaves."""
        return frozenset(self.owners) - {step.state for step in self.transitions}

    def next_state(self, state: str, action: str, actor: str) -> str:
        """Return the state after ``action`` by ``actor``.

        Raises Conflict where the action does not exist in this state, and Denied where it does
        but is not this actor's.
        """
        steps = [s for s in self.transitions if s.state == state and s.action == action]
        if not steps:
            raise Conflict(
                _("This is {state} now, so the step {action} does not apply any more."),
                field=self.name,
                code=f"workflow.{self.name}.state",
                state=state.replace("_", " "),
                action=action.replace("_", " "),
            )
        for step in steps:
            if step.actor == actor:
                return step.next
        raise Denied(
            _("The step {action} belongs to: {actors}."),
            field=self.name,
            code=f"workflow.{self.name}.actor",
            action=action.replace("_", " "),
            actors=", ".join(step.actor for step in steps),
        )

    def allows(self, state: str, action: str, actor: str) -> bool:
        """Whether :meth:`next_state` would answer."""
        return any((s.state, s.action, s.actor) == (state, action, actor) for s in self.transitions)

    def actions(self, state: str, actor: str) -> tuple[str, ...]:
        """Return what ``actor`` may do in ``state``, in the table's order."""
        return tuple(s.action for s in self.transitions if s.state == state and s.actor == actor)

    def before(self, action: str) -> frozenset[str]:
        """Return the states in which anybody may take ``action`` (for conditional updates)."""
        return frozenset(s.state for s in self.transitions if s.action == action)


def _table(*rows: tuple[str, str, str, str]) -> tuple[Transition, ...]:
    return tuple(
        Transition(state, action, actor, following)
        for states, action, actors, following in rows
        for state in states.split()
        for actor in actors.split()
    )


def _voted_by(actor: str) -> tuple[tuple[str, str, str, str], ...]:
    """What a vote may decide; the actions are the choices of policies.review."""
    return (
        ("in_review", "approve", actor, "approved"),
        ("in_review", "reject", actor, "rejected"),
        ("in_review", "return", actor, "returned"),
    )


ACCESS_REQUEST = Machine(
    name="access_request",
    initial="draft",
    owners={
        "draft": APPLICANT,
        "submitted": SYSTEM,
        "in_review": COMMITTEE,
        "returned": APPLICANT,
        "approved": SYSTEM,
        "rejected": SYSTEM,
        "withdrawn": SYSTEM,
    },
    transitions=_table(
        ("draft returned", "submit", APPLICANT, "submitted"),
        ("submitted", "open", SYSTEM, "in_review"),
        *_voted_by(COMMITTEE),
        ("draft submitted in_review returned", "withdraw", APPLICANT, "withdrawn"),
    ),
)

GRANT = Machine(
    name="grant",
    initial="active",
    owners={"active": SYSTEM, "suspended": STEWARD, "expired": SYSTEM, "revoked": SYSTEM},
    transitions=_table(
        ("active suspended", "expire", SYSTEM, "expired"),
        # An administrator may stop access in an emergency, and never give it back.
        ("active", "suspend", "steward administrator", "suspended"),
        ("suspended", "resume", STEWARD, "active"),
        ("active suspended", "revoke", STEWARD, "revoked"),
    ),
)

DATASET_VERSION = Machine(
    name="dataset_version",
    initial="draft",
    owners={
        "draft": STEWARD,
        "ingesting": SYSTEM,
        "de_identified": OFFICER,
        "in_qa": OFFICER,
        "published": STEWARD,
        "retired": SYSTEM,
    },
    transitions=_table(
        ("draft", "ingest", STEWARD, "ingesting"),
        ("ingesting", "complete", SYSTEM, "de_identified"),
        # A full disk or a killed worker: nothing was published, the steward tries again.
        ("ingesting", "fail", SYSTEM, "draft"),
        ("de_identified", "start_qa", OFFICER, "in_qa"),
        ("in_qa", "sign", OFFICER, "published"),
        # The officer's boxes are applied and the sample is drawn anew.
        ("in_qa", "fail_qa", OFFICER, "de_identified"),
        ("draft de_identified published", "retire", STEWARD, "retired"),
    ),
)

_JOB_LIVE = "submitted checked queued staging running collecting inspecting"
_JOB_ENDED = "finished failed stopped refused"

JOB = Machine(
    name="job",
    initial="submitted",
    owners=dict.fromkeys(f"{_JOB_LIVE} {_JOB_ENDED}".split(), SYSTEM),
    transitions=_table(
        ("submitted", "check", SYSTEM, "checked"),
        ("checked", "queue", SYSTEM, "queued"),
        ("queued", "stage", SYSTEM, "staging"),
        ("staging", "run", SYSTEM, "running"),
        ("running", "collect", SYSTEM, "collecting"),
        ("collecting", "inspect", SYSTEM, "inspecting"),
        ("inspecting", "finish", SYSTEM, "finished"),
        # A lost worker: nothing of the attempt is kept, the job waits for its turn again.
        ("staging running", "requeue", SYSTEM, "queued"),
        # Whether the machine can isolate as the policy asks is known only when it tries.
        ("submitted checked queued staging running", "refuse", SYSTEM, "refused"),
        ("queued staging running collecting inspecting", "fail", SYSTEM, "failed"),
        (_JOB_LIVE, "stop", "system steward administrator", "stopped"),
        (_JOB_LIVE, "cancel", APPLICANT, "stopped"),
    ),
)

RELEASE = Machine(
    name="release",
    initial="proposed",
    owners={
        "proposed": SYSTEM,
        "in_review": REVIEWER,
        "returned": APPLICANT,
        "approved": SYSTEM,
        "released": STEWARD,
        "revoked": SYSTEM,
        "rejected": SYSTEM,
        "withdrawn": SYSTEM,
    },
    transitions=_table(
        ("proposed", "open", SYSTEM, "in_review"),
        # A hard finding is never lifted, so no reviewer is asked.
        ("proposed", "block", SYSTEM, "rejected"),
        *_voted_by(REVIEWER),
        ("returned", "propose", APPLICANT, "proposed"),
        ("approved", "release", SYSTEM, "released"),
        # What was approved has changed: its votes have fallen and are asked again.
        ("approved", "reopen", SYSTEM, "in_review"),
        ("released", "revoke", STEWARD, "revoked"),
        ("proposed in_review returned approved", "withdraw", APPLICANT, "withdrawn"),
    ),
)

MACHINES: Mapping[str, Machine] = {
    machine.name: machine for machine in (ACCESS_REQUEST, GRANT, DATASET_VERSION, JOB, RELEASE)
}


def diagram(machine: Machine) -> str:
    """Return the machine as a mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {machine.initial}"]
    merged: dict[tuple[str, str], dict[str, list[str]]] = {}
    for step in machine.transitions:
        merged.setdefault((step.state, step.next), {}).setdefault(step.action, []).append(
            step.actor
        )
    for (state, following), actions in merged.items():
        label = ", ".join(f"{action} ({' or '.join(who)})" for action, who in actions.items())
        lines.append(f"    {state} --> {following} : {label}")
    lines += [f"    {state} --> [*]" for state in machine.states if state in machine.final_states]
    lines += [f"    note right of {state} : {owner}" for state, owner in machine.owners.items()]
    return "\n".join(lines) + "\n"
