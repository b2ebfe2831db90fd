"""Whose job starts next on one machine, and why every other one waits.

Jobs are never broken off for another, so fairness lies in the order of starts:

- whoever has used and asked for less comes first, by organisation and then by person;
- while another organisation (person) waits for room, nobody starts more than their share;
- the first job that lacks room gets a reservation, and a later one starts before it only where
  that cannot delay it (EASY backfill: Lifka, "The ANL/IBM SP scheduling system", 1995);
- jobs that have waited too long go before all others, the oldest first, and no share holds that
  one back, so that none waits forever.

Everything here is a function of plain values; times are seconds on any one clock.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from policies.document import QueuePolicy

#: The job's own owner may let others go first; to go before others somebody who runs the machine
#: must say so.
PRIORITIES = {-1: "low", 0: "usual", 1: "high"}
#: An estimate looks ahead over so many starts and ends, and is unknown beyond.
EVENTS = 400
#: Who has a share of the machine.
KINDS = ("organisation", "person")
#: How many of the latest runs an expectation is made of, and which of them is taken.
RUNS, QUANTILE = 20, 0.75
LEAST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Amount:
    """What of a machine a job asks for, or what a machine has."""

    cpus: float = 0
    memory_bytes: float = 0
    gpus: float = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.cpus + other.cpus, self.memory_bytes + other.memory_bytes, self.gpus + other.gpus
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            self.cpus - other.cpus, self.memory_bytes - other.memory_bytes, self.gpus - other.gpus
        )

    def lacking(self, free: Amount) -> str:
        """Return the first resource that ``free`` has too little of, "" where there is none."""
        for name in ("cpus", "memory_bytes", "gpus"):
            if getattr(self, name) > getattr(free, name):
                return name
        return ""

    def share(self, machine: Amount) -> float:
        """Return the largest share of any one resource of a machine (dominant share)."""
        return max(
            mine / whole
            for mine, whole in (
                (self.cpus, machine.cpus),
                (self.memory_bytes, machine.memory_bytes),
                (self.gpus, machine.gpus),
                (0, 1),
            )
            if whole > 0
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A job that waits or holds room. ``expected`` is how long it will likely run."""

    id: int
    organisation: str
    person: str
    amount: Amount
    limit: float
    submitted: float
    priority: int = 0
    expected: float = 0
    started: float | None = None

    @property
    def likely(self) -> float:
        """Seconds that it will likely run: never more than its limit."""
        return min(self.limit, max(LEAST_SECONDS, self.expected or self.limit))


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a job does not start now: a code and its figures, and how many go before it."""

    code: str
    ahead: int
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Who starts now, in this order, and why the others do not."""

    start: tuple[int, ...]
    waits: Mapping[int, Wait]


@dataclass(frozen=True, slots=True)
class _Reserved:
    """When the first job that lacks room starts at the latest, and what it leaves over then."""

    at: float
    spare: Amount


def in_order(
    machine: Amount,
    running: Sequence[Job],
    waiting: Sequence[Job],
    used: Mapping[str, float],
    rules: QueuePolicy,
    now: float,
) -> list[Job]:
    """Return the waiting jobs in the order in which they should start.

    ``used`` is what was used of late by organisation and by person (keys as :func:`account`), in
    shares of the machine times seconds.
    """
    old = [job for job in waiting if now - job.submitted >= rules.longest_wait]
    order = sorted(old, key=lambda job: (job.submitted, job.id))
    spent: defaultdict[str, float] = defaultdict(float, used)
    for job in (*running, *old):
        _charge(spent, job, machine)
    for priority in sorted({job.priority for job in waiting}, reverse=True):
        group = [job for job in waiting if job.priority == priority and job not in old]
        order += _interleaved(group, spent, machine)
    return order


def _interleaved(
    jobs: Sequence[Job], spent: defaultdict[str, float], machine: Amount
) -> Iterable[Job]:
    """Take turns: next is the oldest job of the person, in the organisation, that spent least."""
    lines: dict[str, dict[str, deque[Job]]] = {}
    for job in sorted(jobs, key=lambda job: (job.submitted, job.id)):
        lines.setdefault(job.organisation, {}).setdefault(job.person, deque()).append(job)
    while lines:
        organisation = min(
            lines,
            key=lambda name: (
                spent[account(organisation=name)],
                min((line[0].submitted, line[0].id) for line in lines[name].values()),
            ),
        )
        people = lines[organisation]
        person = min(
            people,
            key=lambda name: (
                spent[account(person=name)],
                people[name][0].submitted,
                people[name][0].id,
            ),
        )
        job = people[person].popleft()
        _charge(spent, job, machine)
        yield job
        if not people[person]:
            del people[person]
        if not people:
            del lines[organisation]


def account(*, organisation: str = "", person: str = "") -> str:
    """Return the key under which ``used`` keeps an organisation or a person."""
    return f"organisation:{organisation}" if organisation else f"person:{person}"


def _charge(spent: defaultdict[str, float], job: Job, machine: Amount) -> None:
    cost = job.amount.share(machine) * job.likely
    spent[account(organisation=job.organisation)] += cost
    spent[account(person=job.person)] += cost


class _Round:
    """One look at the machine: what is free, who holds what, and what is kept for the first."""

    def __init__(
        self, machine: Amount, running: Sequence[Job], rules: QueuePolicy, now: float
    ) -> None:
        self.machine, self.rules, self.now = machine, rules, now
        self.holding = list(running)
        self.free = machine - _sum(running)
        self.reserved: _Reserved | None = None
        self.started: list[int] = []

    def over_share(self, job: Job, *kinds: str) -> tuple[str, float] | None:
        """Return whose share the job would pass, and how much they hold now."""
        for kind in kinds or KINDS:
            share = getattr(self.rules, f"{kind}_share")
            held = _sum(each for each in self.holding if getattr(each, kind) == getattr(job, kind))
            holds = held.share(self.machine)
            # Who holds nothing may start one job of any size, or a large one never could.
            if holds > 0 and (held + job.amount).share(self.machine) > share:
                return kind, holds
        return None

    def held_back(self, kind: str, holds: float, ahead: int) -> Wait:
        """Return that a share holds a job back."""
        share = getattr(self.rules, f"{kind}_share")
        return Wait(kind, ahead, {"share": round(100 * share), "held": round(100 * holds)})

    def try_start(self, job: Job, ahead: int) -> Wait | None:
        """Start a job, or return why not; the first that lacks room gets the reservation."""
        lacking = job.amount.lacking(self.free)
        if lacking:
            if self.reserved is None:
                self.reserved = self._reserve(job)
            facts = {
                "wanted": getattr(job.amount, lacking),
                "free": max(0, getattr(self.free, lacking)),
            }
            return Wait({"memory_bytes": "memory"}.get(lacking, lacking), ahead, facts)
        if self.reserved is not None:
            ends_before = self.now + self._bound(job) <= self.reserved.at
            if not ends_before and job.amount.lacking(self.reserved.spare):
                return Wait("reserved", ahead)
            if not ends_before:
                spare = self.reserved.spare - job.amount
                self.reserved = dataclasses.replace(self.reserved, spare=spare)
        self.free = self.free - job.amount
        self.holding.append(dataclasses.replace(job, started=self.now))
        self.started.append(job.id)
        return None

    def _bound(self, job: Job) -> float:
        """Seconds after which a job's room is free again: it is staged and inspected, too."""
        return job.limit + self.rules.margin

    def _reserve(self, first: Job) -> _Reserved:
        free = self.free
        at = self.now
        ends = sorted(
            (max(self.now, (each.started or self.now) + self._bound(each)), each.id, each)
            for each in self.holding
        )
        for moment, _id, each in ends:
            if moment > at and not first.amount.lacking(free):
                break
            at, free = moment, free + each.amount
        return _Reserved(at, free - first.amount)


def _sum(jobs: Iterable[Job]) -> Amount:
    total = Amount()
    for job in jobs:
        total = total + job.amount
    return total


def plan(
    machine: Amount,
    running: Sequence[Job],
    waiting: Sequence[Job],
    used: Mapping[str, float],
    rules: QueuePolicy,
    now: float,
) -> Plan:
    """Return who of ``waiting`` starts now beside ``running``, and why each other one waits."""
    order = in_order(machine, running, waiting, used, rules, now)
    look = _Round(machine, running, rules, now)
    waits: dict[int, Wait] = {}
    held: list[tuple[int, Job, Wait]] = []
    lacking: list[Job] = []
    behind: set[tuple[str, str]] = set()

    def over_now(job: Job, place: int) -> Iterable[Wait]:
        for kind in KINDS:
            over = look.over_share(job, kind)
            if over is not None:
                yield look.held_back(*over, place)

    def binds(wait: Wait, job: Job) -> bool:
        return any(getattr(other, wait.code) != getattr(job, wait.code) for other in lacking)

    for place, job in enumerate(order):
        over = look.over_share(job)
        if place == 0 and now - job.submitted >= rules.longest_wait:
            over = None
        elif over is None:
            kinds = [k for k in KINDS if (k, getattr(job, k)) in behind]
            over = (kinds[0], 0.0) if kinds else None
        if over is not None:
            kind, holds = over
            # What comes after it must not keep the share full in front of it.
            behind.add((kind, getattr(job, kind)))
            held.append((place, job, look.held_back(kind, holds, place)))
            continue
        found = look.try_start(job, place)
        if found is not None:
            waits[job.id] = found
            lacking.append(job)
    while held:
        # An organisation that has the room for itself still shares it among its people.
        firsts: dict[str, tuple[int, Job, Wait]] = {}
        for each in held:
            if each[1].organisation == held[0][1].organisation:
                firsts.setdefault(each[1].person, each)
        within = (each for each in firsts.values() if not look.over_share(each[1], "person"))
        chosen = next(within, held[0])
        held.remove(chosen)
        place, job, wait = chosen
        # A share binds only while somebody else waits for the room.
        binding = next((w for w in (wait, *over_now(job, place)) if binds(w, job)), None)
        if binding is not None:
            waits[job.id] = binding
            continue
        found = look.try_start(job, place)
        if found is not None:
            waits[job.id] = found
            lacking.append(job)
    ahead = [job.id for job in order if job.id not in set(look.started)]
    places = {job: place for place, job in enumerate(ahead)}
    return Plan(
        tuple(look.started),
        {id: dataclasses.replace(wait, ahead=places[id]) for id, wait in waits.items()},
    )


def expected_seconds(limit: float, runs: Sequence[tuple[float, float]]) -> float:
    """Return how long a job of this limit will likely run, by the latest runs of its like.

    ``runs`` are (seconds that it ran, its limit), the newest last. Without any it is the limit.
    """
    shares = sorted(min(1.0, ran / of) for ran, of in runs[-RUNS:] if of > 0)
    if not shares:
        return limit
    return limit * shares[math.ceil(QUANTILE * len(shares)) - 1]


def estimates(
    machine: Amount,
    running: Sequence[Job],
    waiting: Sequence[Job],
    used: Mapping[str, float],
    rules: QueuePolicy,
    now: float,
) -> dict[int, float]:
    """Return when each waiting job will likely start, if every job runs as long as expected.

    Plays the queue forward by its own rules; who comes later may change it. Jobs beyond the
    bound of :data:`EVENTS` are left out.
    """
    found: dict[int, float] = {}
    holding = list(running)
    left = {job.id: job for job in waiting}
    for _event in range(EVENTS):
        if not left:
            break
        for id in plan(machine, holding, list(left.values()), used, rules, now).start:
            found[id] = now
            holding.append(dataclasses.replace(left.pop(id), started=now))
        if not holding:
            break
        first = min(holding, key=lambda job: ((job.started or 0) + job.likely, job.id))
        holding.remove(first)
        now = max(now, (first.started or 0) + first.likely)
    return found
