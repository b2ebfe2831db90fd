"""The queue's promises: never more than there is, shares hold, nobody waits forever."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.document import QueuePolicy, default_policy
from policies.queue import (
    KINDS,
    Amount,
    Job,
    Plan,
    account,
    estimates,
    expected_seconds,
    in_order,
    plan,
)

GIB = 2**30
MACHINE = Amount(8, 32 * GIB, 2)
RULES = QueuePolicy(
    organisation_share=0.5, person_share=0.25, longest_wait=3600, margin=60, remember=86400
)
HOUR = 3600.0
_numbers = count(1)


def job(
    organisation: str = "A",
    person: str = "",
    *,
    cpus: float = 1,
    memory: float = GIB,
    gpus: float = 0,
    limit: float = HOUR,
    submitted: float = 0,
    **more: float,
) -> Job:
    amount = Amount(cpus, memory, gpus)
    who = person or f"{organisation}1"
    return Job(next(_numbers), organisation, who, amount, limit, submitted, **more)  # type: ignore[arg-type]


def running(one: Job, since: float = 0) -> Job:
    return dataclasses.replace(one, started=since)


def test_the_shipped_policy_has_a_queue() -> None:
    assert 0 < default_policy().deployment.queue.person_share <= 1


def test_organisations_take_turns_whoever_came_first_with_many() -> None:
    many = [job("A", submitted=n) for n in range(4)]
    few = [job("B", submitted=10), job("B", submitted=11)]
    order = [each.organisation for each in in_order(MACHINE, [], many + few, {}, RULES, 20)]
    assert order == ["A", "B", "A", "B", "A", "A"]


def test_people_of_one_organisation_take_turns() -> None:
    mine = [job("A", "a1", submitted=n) for n in range(3)]
    hers = job("A", "a2", submitted=5)
    order = [each.person for each in in_order(MACHINE, [], [*mine, hers], {}, RULES, 10)]
    assert order == ["a1", "a2", "a1", "a1"]


def test_who_used_less_of_late_comes_first() -> None:
    first, second = job("A", submitted=0), job("B", submitted=5)
    used = {account(organisation="A"): 1e6}
    assert in_order(MACHINE, [], [first, second], used, RULES, 10) == [second, first]
    assert in_order(MACHINE, [], [first, second], {}, RULES, 10) == [first, second]


def test_priority_comes_before_fairness_and_age_before_priority() -> None:
    usual, urgent = job("B", submitted=5), job("A", submitted=6, priority=1)
    low = job("C", submitted=1, priority=-1)
    used = {account(organisation="A"): 1e6}
    assert in_order(MACHINE, [], [usual, urgent, low], used, RULES, 10) == [urgent, usual, low]
    assert in_order(MACHINE, [], [usual, urgent, low], used, RULES, 1 + HOUR)[0] == low


def test_one_may_use_all_of_an_idle_machine() -> None:
    jobs = [job("A", cpus=2) for _ in range(4)]
    assert set(plan(MACHINE, [], jobs, {}, RULES, 0).start) == {each.id for each in jobs}


def test_a_share_binds_while_others_wait_and_says_so() -> None:
    mine = [job("A", f"a{n}", cpus=2, submitted=n) for n in range(3)]
    hers = job("B", cpus=8, submitted=9)
    found = plan(MACHINE, [], [*mine, hers], {}, RULES, 10)
    # B's job of the whole machine waits for room; A takes half and no more in front of it.
    assert found.start == (mine[0].id, mine[1].id)
    assert found.waits[hers.id].code == "cpus"
    assert (found.waits[mine[2].id].code, found.waits[mine[2].id].facts["held"]) == (
        "organisation",
        50,
    )


def test_a_person_s_share_binds_within_their_organisation() -> None:
    one = running(job("A", "a1", cpus=2))
    more, other = job("A", "a1", cpus=2, submitted=1), job("A", "a2", cpus=7, submitted=2)
    waits = plan(MACHINE, [one], [more, other], {}, RULES, 10).waits
    assert waits[more.id].code == "person"


def test_people_of_an_organisation_that_is_alone_share_what_it_has() -> None:
    rules = dataclasses.replace(RULES, organisation_share=0.1, person_share=0.1, longest_wait=0)
    mine = [job("A", "a1") for _ in range(3)]
    hers = job("A", "a2", cpus=6)
    found = plan(MACHINE, [], [*mine, hers], {}, rules, 10)
    # Hers is tried before the others of who holds room already; one of them still fits beside it.
    assert found.start == (mine[0].id, hers.id, mine[1].id)
    assert found.waits[mine[2].id].code == "cpus"


def test_a_person_s_share_binds_for_a_colleague_where_no_other_organisation_waits() -> None:
    rules = dataclasses.replace(RULES, organisation_share=0.1, person_share=0.1, longest_wait=0)
    first, large = job("B", "b1", limit=600), job("B", "b2", cpus=8, submitted=1)
    more = job("B", "b1", limit=600, submitted=2)
    found = plan(MACHINE, [], [first, large, more], {}, rules, 10)
    assert (found.start, found.waits[large.id].code) == ((first.id,), "cpus")
    assert found.waits[more.id].code == "person"


def test_a_job_larger_than_its_share_runs_when_its_owner_holds_nothing() -> None:
    large, other = job("A", cpus=8), job("B", cpus=8, submitted=1)
    assert plan(MACHINE, [], [large, other], {}, RULES, 5).start == (large.id,)


def test_small_jobs_fill_the_room_only_where_they_delay_nobody() -> None:
    now = running(job("A", cpus=6, limit=HOUR))
    large = job("B", cpus=8, submitted=1)
    short = job("C", cpus=1, limit=600, submitted=2)
    long = job("D", cpus=1, limit=3 * HOUR, submitted=3)
    found = plan(MACHINE, [now], [large, short, long], {}, RULES, 10)
    assert found.start == (short.id,)
    assert found.waits[large.id].code == "cpus"
    assert found.waits[long.id].code == "reserved"


def test_what_is_over_at_the_reserved_time_may_be_used_for_long() -> None:
    now = running(job("A", cpus=6))
    large = job("B", cpus=6, submitted=1)
    longer = [job("C", cpus=1, limit=9 * HOUR, submitted=2 + n) for n in range(3)]
    found = plan(MACHINE, [now], [large, *longer], {}, RULES, 10)
    assert found.start == (longer[0].id, longer[1].id)


def test_gpus_and_memory_are_waited_for_by_name() -> None:
    now = running(job("A", gpus=2, memory=30 * GIB))
    card, room = job("B", gpus=1, submitted=1), job("C", memory=4 * GIB, submitted=2)
    waits = plan(MACHINE, [now], [card, room], {}, RULES, 10).waits
    assert (waits[card.id].code, waits[card.id].facts) == ("gpus", {"wanted": 1, "free": 0})
    assert waits[room.id].code == "memory"


@pytest.mark.parametrize(
    ("runs", "seconds"),
    [
        ([], 100),
        ([(10, 100)], 10),
        ([(10, 100), (20, 100), (30, 100), (100, 100)], 30),
        ([(1, 1)] * 5 + [(10, 100)] * 20, 10),
        ([(500, 100)], 100),
        ([(5, 0)], 100),
    ],
)
def test_what_is_expected_comes_from_the_latest_runs(
    runs: list[tuple[float, float]], seconds: float
) -> None:
    assert expected_seconds(100, runs) == seconds


def test_an_estimate_plays_the_queue_forward() -> None:
    now = running(job("A", cpus=8, limit=HOUR, expected=600))
    second, third = job("B", cpus=8, submitted=1, expected=300), job("C", cpus=8, submitted=2)
    assert estimates(MACHINE, [now], [second, third], {}, RULES, 100) == {
        second.id: 600,
        third.id: 900,
    }


amounts = st.builds(
    Amount,
    st.integers(1, 8),
    st.integers(1, 32).map(lambda n: n * GIB),
    st.sampled_from([0, 0, 0, 1, 2]),
)
jobs = st.lists(
    st.builds(
        lambda organisation, person, amount, limit, submitted, priority, expected: Job(
            next(_numbers),
            organisation,
            f"{organisation}{person}",
            amount,
            limit,
            submitted,
            priority,
            expected,
        ),
        st.sampled_from("ABC"),
        st.sampled_from("12"),
        amounts,
        st.floats(10, 20 * HOUR),
        st.floats(0, HOUR),
        st.sampled_from([-1, 0, 0, 1]),
        st.floats(0, 20 * HOUR),
    ),
    max_size=14,
)
rules = st.builds(
    QueuePolicy,
    organisation_share=st.sampled_from([0.1, 0.3, 0.5, 1.0]),
    person_share=st.sampled_from([0.1, 0.3, 0.5, 1.0]),
    longest_wait=st.sampled_from([0, 600, 6 * 3600]),
    margin=st.sampled_from([0, 600]),
    remember=st.just(86400),
)


def held(all_jobs: list[Job], kind: str, name: str) -> float:
    total = Amount()
    for each in all_jobs:
        if getattr(each, kind) == name:
            total = total + each.amount
    return total.share(MACHINE)


@given(jobs, rules)
def test_a_machine_never_gives_more_than_it_has_and_each_wait_has_its_reason(
    waiting: list[Job], policy: QueuePolicy
) -> None:
    found = plan(MACHINE, [], waiting, {}, policy, HOUR)
    by_id = {each.id: each for each in waiting}
    total = Amount()
    for started in found.start:
        total = total + by_id[started].amount
    assert not total.lacking(MACHINE)
    assert set(found.start) | set(found.waits) == set(by_id)
    assert not set(found.start) & set(found.waits)
    assert sorted(wait.ahead for wait in found.waits.values()) == list(range(len(found.waits)))


@given(jobs, rules)
def test_shares_hold_while_somebody_else_waits_for_room(
    waiting: list[Job], policy: QueuePolicy
) -> None:
    """Who is within their share is not kept waiting by who is not.

    Unless a colleague's job stands in front of theirs. Where all that wait are beyond their
    shares, the room is used all the same.
    """
    found = plan(MACHINE, [], waiting, {}, policy, HOUR)
    by_id = {each.id: each for each in waiting}
    started = [by_id[id] for id in found.start]
    oldest = min(waiting, key=lambda each: (each.submitted, each.id), default=None)
    patient = oldest is not None and HOUR - oldest.submitted < policy.longest_wait
    exempt = None if patient else oldest
    entitled = [
        by_id[id]
        for id, wait in found.waits.items()
        if wait.code not in KINDS and _entitled(by_id[id], started, found, by_id, policy)
    ]
    for kind in KINDS:
        for name in {getattr(each, kind) for each in started}:
            mine = [each for each in started if getattr(each, kind) == name and each != exempt]
            others = [
                each
                for each in entitled
                if getattr(each, kind) != name and not _over(each, started, policy, "organisation")
            ]
            colleagues = [
                each
                for each in entitled
                if kind == "person"
                and each.person != name
                and all(one.organisation == each.organisation for one in mine)
            ]
            if (others or colleagues) and len(mine) > 1:
                assert held(mine, kind, name) <= getattr(policy, f"{kind}_share") + 1e-9


def _over(one: Job, started: list[Job], policy: QueuePolicy, kind: str) -> bool:
    """Whether a job would bring its owner beyond the share, beside what they hold."""
    name = getattr(one, kind)
    holds = held(started, kind, name)
    return holds > 0 and held([*started, one], kind, name) > getattr(policy, f"{kind}_share")


def _entitled(
    one: Job, started: list[Job], found: Plan, by_id: dict[int, Job], policy: QueuePolicy
) -> bool:
    """Whether a job that waits for room is within its person's share, and its own's first."""
    ahead = found.waits[one.id].ahead
    return not _over(one, started, policy, "person") and not any(
        by_id[id].organisation == one.organisation and wait.ahead < ahead
        for id, wait in found.waits.items()
    )


def play(
    waiting: list[Job],
    policy: QueuePolicy,
    until: float,
    newcomer: Callable[[float], Job] | None = None,
) -> dict[int, float]:
    """Run a machine by the plan, each job to its bound; return when each one started."""
    now, holding, left, found = HOUR, [], list(waiting), {}
    while now < until and (left or holding):
        chosen = plan(MACHINE, holding, left, {}, policy, now).start
        for id in chosen:
            found[id] = now
            holding.append(running(next(each for each in left if each.id == id), now))
        left = [each for each in left if each.id not in chosen]
        total = Amount()
        for each in holding:
            total = total + each.amount
        assert not total.lacking(MACHINE), "more than there is"
        ends = [each.started + each.limit + policy.margin for each in holding]
        now = min([now + 600, *ends])
        holding = [each for each in holding if each.started + each.limit + policy.margin > now]
        if newcomer is not None:
            left.append(newcomer(now))
    return found


@given(jobs, rules)
def test_every_job_starts_and_none_waits_forever(waiting: list[Job], policy: QueuePolicy) -> None:
    longest = sum(each.limit + policy.margin for each in waiting) + HOUR
    assert set(play(waiting, policy, longest + 1)) == {each.id for each in waiting}


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_large_job_starts_though_small_urgent_ones_never_end(share: float) -> None:
    policy = dataclasses.replace(RULES, organisation_share=share, person_share=share)
    large = job("A", cpus=8, memory=32 * GIB, gpus=2, submitted=HOUR, priority=-1)
    turn = count()

    def newcomer(now: float) -> Job:
        organisation = "BCDA"[next(turn) % 4]
        return job(organisation, cpus=1, limit=2 * HOUR, submitted=now, priority=1)

    small = [job("B", cpus=1, limit=2 * HOUR, submitted=HOUR) for _ in range(8)]
    found = play([large, *small], policy, 12 * HOUR, newcomer)
    # Its patience, and then at most the time that what runs already may take.
    assert found[large.id] <= HOUR + policy.longest_wait + 2 * HOUR + policy.margin + 600


@given(jobs, rules)
def test_nobody_behind_the_first_delays_its_reserved_start(
    waiting: list[Job], policy: QueuePolicy
) -> None:
    """With the later jobs beside it the first that lacks room starts no later than without.

    Where no share is passed: else those within theirs go first.
    """
    policy = dataclasses.replace(policy, organisation_share=1e9, person_share=1e9)
    found = plan(MACHINE, [], waiting, {}, policy, HOUR)
    lacking = [id for id, wait in found.waits.items() if wait.code in ("cpus", "memory", "gpus")]
    if not lacking:
        return
    order = in_order(MACHINE, [], waiting, {}, policy, HOUR)
    by_id = {each.id: each for each in waiting}
    first = min(lacking, key=lambda id: order.index(by_id[id]))
    before = order[: order.index(by_id[first])]

    def start(beside: list[Job]) -> float:
        """When it fits, if every job that started at once takes all of its time."""
        ends = sorted((HOUR + each.limit + policy.margin, each.id, each) for each in beside)
        free = MACHINE
        for each in beside:
            free = free - each.amount
        for at, _id, each in ends:
            free = free + each.amount
            if not by_id[first].amount.lacking(free):
                return float(at)
        raise AssertionError("it never fits")

    started = [by_id[id] for id in found.start]
    if all(each in before for each in started):
        return
    assert start(started) <= start([each for each in started if each in before] or started)


@given(jobs, rules)
def test_estimates_name_every_job_and_never_the_past(
    waiting: list[Job], policy: QueuePolicy
) -> None:
    found = estimates(MACHINE, [], waiting, {}, policy, HOUR)
    assert set(found) == {each.id for each in waiting}
    assert all(at >= HOUR for at in found.values())
