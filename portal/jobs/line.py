"""The queue of a machine: rows as the plain values that policies.queue decides by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.utils.timezone import now as present

from policies import queue
from policies.document import QueuePolicy
from policies.quantities import parse_bytes, parse_seconds
from portal.jobs.models import Job, Node
from portal.jobs.rounding import rounded_seconds

# States in which a job occupies the machine. Inspection runs the network again, as an oracle.
OCCUPYING = ("staging", "running", "collecting", "inspecting")
# Ended jobs that an expectation looks at.
HISTORY = 200


@dataclass(frozen=True)
class Line:
    """Who holds room on a machine, who waits for it, and who used it of late."""

    machine: queue.Amount
    running: tuple[queue.Job, ...]
    waiting: tuple[queue.Job, ...]
    used: Mapping[str, float]
    rules: QueuePolicy
    now: float

    def plan(self) -> queue.Plan:
        """Return who starts now and why the others wait."""
        return queue.plan(self.machine, self.running, self.waiting, self.used, self.rules, self.now)

    def estimates(self) -> dict[int, datetime]:
        """Return when each waiting job will likely start."""
        found = queue.estimates(
            self.machine, self.running, self.waiting, self.used, self.rules, self.now
        )
        return {id: datetime.fromtimestamp(at, tz=UTC) for id, at in found.items()}


def amount_of(job: Job) -> queue.Amount:
    """Return what a job asks for, as its manifest was read."""
    asked = job.submission.manifest["resources"]
    return queue.Amount(asked["cpus"], parse_bytes(asked["memory"], "memory"), asked["gpus"])


def limit_of(job: Job) -> float:
    """Return a job's time limit in seconds."""
    return parse_seconds(job.submission.manifest["resources"]["time"], "time")


def machine_of(node: Node) -> queue.Amount:
    """Return what a machine's jobs may use together."""
    return queue.Amount(node.cpus, node.memory_bytes, node.gpus)


def line_of(node: Node, rules: QueuePolicy) -> Line:
    """Return the queue as one machine sees it now. What it can never hold is left out."""
    now = present()
    machine = machine_of(node)
    rows = Job.objects.select_related("submission", "grant__unit")
    ended = list(
        rows.filter(state__in=("finished", "failed", "stopped"), node=node)
        .exclude(wall_seconds=None)
        .order_by("-ended_at")[:HISTORY]
    )
    recent = rows.filter(node=node, ended_at__gt=now - timedelta(seconds=rules.remember))
    runs = _Runs(ended)
    waiting = [
        _value(job, runs)
        for job in rows.filter(state="queued", stop_requested="").order_by("pk")
        if not amount_of(job).lacking(machine)
    ]
    return Line(
        machine=machine,
        running=tuple(_value(job, runs) for job in occupying(node)),
        waiting=tuple(waiting),
        used=_used(recent.exclude(wall_seconds=None), machine),
        rules=rules,
        now=now.timestamp(),
    )


def occupying(node: Node) -> QuerySet[Job]:
    """Return the jobs that hold room on a machine."""
    rows = Job.objects.select_related("submission", "grant__unit")
    return rows.filter(node=node, state__in=OCCUPYING).order_by("pk")


class _Runs:
    """How long ended jobs ran, of their limits, for who comes next.

    By the time that applicants see, so that an estimate says no more of a job than that.
    """

    def __init__(self, ended: Iterable[Job]) -> None:
        self._all: list[tuple[float, float]] = []
        self._of_grant: dict[int, list[tuple[float, float]]] = {}
        for job in reversed(list(ended)):
            run = (float(rounded_seconds(job.wall_seconds) or 0), limit_of(job))
            self._all.append(run)
            self._of_grant.setdefault(job.grant_id, []).append(run)

    def like(self, job: Job) -> list[tuple[float, float]]:
        """Return the runs of the same grant, or of all where it has none yet."""
        return self._of_grant.get(job.grant_id) or self._all


def _value(job: Job, runs: _Runs) -> queue.Job:
    limit = limit_of(job)
    return queue.Job(
        id=job.pk,
        organisation=str(job.grant.unit.organisation_id),
        person=str(job.submission.submitter_id),
        amount=amount_of(job),
        limit=limit,
        submitted=job.created_at.timestamp(),
        priority=job.priority,
        expected=queue.expected_seconds(limit, runs.like(job)),
        started=(job.admitted_at or job.state_since).timestamp(),
    )


def _used(ended: QuerySet[Job], machine: queue.Amount) -> dict[str, float]:
    """Return the shares of the machine times seconds that ended jobs have used, by account."""
    used: dict[str, float] = {}
    for job in ended:
        cost = amount_of(job).share(machine) * (job.wall_seconds or 0)
        for key in (
            queue.account(organisation=str(job.grant.unit.organisation_id)),
            queue.account(person=str(job.submission.submitter_id)),
        ):
            used[key] = used.get(key, 0.0) + cost
    return used


def facts_of(wait: queue.Wait) -> dict[str, Any]:
    """Return a wait's figures as a row keeps them: whole numbers where they are whole."""
    facts = {**wait.facts, "ahead": wait.ahead}
    return {name: int(value) if value == int(value) else value for name, value in facts.items()}


def free_rows() -> Q:
    """Return the condition of queued jobs that nobody asked to end."""
    return Q(state="queued", stop_requested="")
