"""Room on the machine, reasons for waiting, retries, and the budget of curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from policies.errors import CannotRun, Conflict, Denied, Invalid
from portal import keys, leases
from portal.access.models import Grant
from portal.accounts.models import Person, Unit
from portal.audit.models import Event
from portal.jobs import actions, admission, engine, ledger, queries, rounding, tasks, transitions
from portal.jobs.models import Job, JobStep, LedgerEntry, Tick
from portal.jobs.progress import Curves
from portal.jobs.storage import manifest_of
from portal.jobs.transitions import MOST_ATTEMPTS
from portal.tasking import TryAgain
from tests.portal.cast import Cast
from tests.portal.jobs.material import QUICK, fill, submission, submitted

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has two cores and two gigabytes for jobs."""
    monkeypatch.setenv("GLOVEBOX_NODE_CPUS", "2")
    monkeypatch.setenv("GLOVEBOX_NODE_MEMORY", "2Gi")


def queued(cast: Cast, grant=None, *, cpus: int = 1, memory: str = "512Mi", mark: str = "") -> Job:
    """Return a job in the queue that asks for this much."""
    job = submitted(cast, grant, code=QUICK + f"# {mark}")
    manifest = job.submission.manifest
    manifest["resources"] |= {"cpus": cpus, "memory": memory}
    type(job.submission).objects.filter(pk=job.submission_id).update(manifest=manifest)
    Job.objects.filter(pk=job.pk).update(state="queued", waiting="queue")
    return Job.objects.get(pk=job.pk)


def admit(job: Job) -> bool:
    """Ask for room for a job as a worker does."""
    with leases.hold(Job, job.pk) as lease:
        assert lease is not None
        moved = admission.admit(Job.objects.get(pk=job.pk), lease, admission.this_node())
    job.refresh_from_db()
    return moved


def test_jobs_start_while_there_is_room_and_in_order(cast: Cast) -> None:
    first = queued(cast, cpus=1, mark="a")
    second = queued(cast, first.grant, cpus=2, mark="b")
    third = queued(cast, first.grant, cpus=1, mark="c")
    # The third would fit, and still waits for its turn: small jobs do not starve large ones.
    assert admit(first)
    assert not admit(second)
    assert (second.waiting, second.waiting_facts) == ("cpus", {"wanted": 2, "free": 1, "ahead": 0})
    assert not admit(third)
    assert queries.waiting_of(third) == ("reserved", {"ahead": 1})
    Job.objects.filter(pk=first.pk).update(state="finished")
    assert admit(second)
    assert not admit(third)
    assert third.waiting == "cpus"


def test_memory_is_counted_too(cast: Cast) -> None:
    first = queued(cast, memory="1536Mi", mark="a")
    second = queued(cast, first.grant, memory="1Gi", mark="b")
    assert admit(first)
    assert not admit(second)
    assert second.waiting == "memory"
    assert second.waiting_facts == {"wanted": 2**30, "free": 2**29, "ahead": 0}


def another(cast: Cast, make_person: Callable[..., Person], make_unit: Callable[..., Unit]) -> Cast:
    """Return the same cast with an applicant of another organisation."""
    other = make_person("applicant@second.example", unit=make_unit("Research", "Second company"))
    answers = {**cast.answers, "analysts": [other.email]}
    return dataclasses.replace(cast, applicant=other, answers=answers)


def test_a_share_binds_while_another_organisation_waits(
    cast: Cast,
    make_person: Callable[..., Person],
    make_unit: Callable[..., Unit],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GLOVEBOX_NODE_CPUS", "4")
    monkeypatch.setenv("GLOVEBOX_NODE_MEMORY", "8Gi")
    mine = [queued(cast, mark="a")]
    mine += [queued(cast, mine[0].grant, mark=mark) for mark in "bcd"]
    assert admit(mine[0]) and admit(mine[1])
    theirs = queued(another(cast, make_person, make_unit), cpus=4, mark="z")
    assert not admit(theirs)
    assert theirs.waiting == "cpus"
    assert not admit(mine[2])
    assert (mine[2].waiting, mine[2].waiting_facts["held"]) == ("organisation", 50)
    sentence = queries.WAITING["organisation"].format(**mine[2].waiting_facts)
    assert sentence.startswith("Your organisation's jobs hold 50 % of the machine.")
    # Nobody waits beside them: the machine is theirs.
    Job.objects.filter(pk=theirs.pk).update(stop_requested="cancelled")
    assert admit(mine[2]) and admit(mine[3])


def test_a_grant_of_another_organisation_takes_turns(
    cast: Cast, make_person: Callable[..., Person], make_unit: Callable[..., Unit]
) -> None:
    mine = [queued(cast, cpus=2, mark="a")]
    mine += [queued(cast, mine[0].grant, cpus=2, mark=mark) for mark in "bc"]
    theirs = queued(another(cast, make_person, make_unit), cpus=2, mark="z")
    assert admit(mine[0])
    Job.objects.filter(pk=mine[0].pk).update(
        state="finished", wall_seconds=50, ended_at=timezone.now()
    )
    # They came last, and have used nothing yet.
    assert admission.startable(admission.this_node()) == (theirs.pk,)


def test_a_machine_s_owner_sets_the_shares(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "owner.toml").write_text("tick_seconds = 7\n[queue]\nperson_share = 0.25\n")
    monkeypatch.setenv("GLOVEBOX_DEPLOYMENT", str(tmp_path / "owner.toml"))
    assert admission.machine_settings().queue.person_share == 0.25
    assert admission.machine_policy(cast.version.dataset).deployment.tick_seconds == 7
    (tmp_path / "owner.toml").write_text("[queue]\nperson_share = 2\n")
    with pytest.raises(Invalid) as caught:
        admission.machine_settings()
    assert caught.value.field == "deployment.queue.person_share"


def test_when_a_job_will_likely_start_comes_from_how_long_jobs_ran(cast: Cast) -> None:
    first = queued(cast, cpus=2, mark="a")
    assert admit(first)
    second = queued(cast, first.grant, cpus=2, mark="b")
    third = queued(cast, first.grant, cpus=2, mark="c")
    node = admission.this_node()
    began = Job.objects.get(pk=first.pk).admitted_at
    admission.estimate(node)
    second.refresh_from_db()
    # No job has ended here yet: each may take its 60 seconds.
    assert (second.starts_at - began).total_seconds() == pytest.approx(60, abs=1)
    Job.objects.filter(pk=first.pk).update(state="finished", wall_seconds=29, ended_at=began)
    assert admit(second)
    admission.estimate(node)
    third.refresh_from_db()
    second.refresh_from_db()
    assert (third.starts_at - second.admitted_at).total_seconds() == pytest.approx(30, abs=1)
    shown = queries.likely_start(third)
    assert shown is not None and shown.minute % 10 == 0 and shown.second == 0


def test_priorities_are_given_by_rule_and_recorded(cast: Cast) -> None:
    first = queued(cast, cpus=2, mark="a")
    second = queued(cast, first.grant, cpus=2, mark="b")
    node = admission.this_node()
    actions.prioritise(by=cast.administrator, job=second, priority=1)
    assert admission.startable(node) == (second.pk,)
    actions.prioritise(by=cast.applicant, job=second, priority=-1)
    assert admission.startable(node) == (first.pk,)
    for person, priority in ((cast.applicant, 1), (cast.stranger, -1), (cast.steward, 0)):
        with pytest.raises(Denied):
            actions.prioritise(by=person, job=second, priority=priority)
    assert Event.objects.filter(action="job.prioritise").count() == 2
    assert admit(first)
    with pytest.raises(Conflict):
        actions.prioritise(by=cast.administrator, job=first, priority=1)


def test_what_the_machine_can_never_give_is_refused(cast: Cast) -> None:
    job = queued(cast, cpus=8)
    Job.objects.filter(pk=job.pk).update(state="checked")
    engine.advance(job.pk)
    job.refresh_from_db()
    assert (job.state, job.reason, job.field) == ("refused", "resources", "resources.cpus")


@pytest.fixture
def hints(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """The messages that would be sent; none of them arrives."""
    sent: list[tuple] = []

    def hint(*message: object, again_after: float = 0) -> None:
        sent.append(message)

    for module in (tasks, engine):
        monkeypatch.setattr(module, "hint", hint)
    return sent


def test_what_no_message_told_is_found(cast: Cast, hints: list[tuple]) -> None:
    job = submitted(cast)
    tasks.due()
    assert ("jobs.advance", job.pk) in hints
    hints.clear()
    # Held by a worker, or put off: nobody is called.
    with leases.hold(Job, job.pk):
        tasks.due()
    Job.objects.update(retry_at=timezone.now() + timedelta(minutes=1))
    tasks.due()
    assert ("jobs.advance", job.pk) not in hints
    Grant.objects.update(state="revoked")
    tasks.due()
    assert ("jobs.stop_lapsed",) in hints


def test_when_room_becomes_free_the_first_in_line_is_called(cast: Cast, hints: list[tuple]) -> None:
    first = queued(cast, mark="a")
    second = queued(cast, first.grant, mark="b")
    Job.objects.filter(pk=first.pk).update(stop_requested="cancelled")
    engine.advance(first.pk)
    assert ("jobs.advance", second.pk) in hints


def test_without_its_audit_event_no_job_moves(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submitted(cast)

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(transitions, "record", broken)
    with pytest.raises(RuntimeError):
        engine.advance(job.pk)
    job.refresh_from_db()
    assert (job.state, job.submission.advice) == ("submitted", None)


def test_the_web_process_takes_a_submission_in_without_a_data_key(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = cast.granted()
    fill(cast.version)
    monkeypatch.setenv("GLOVEBOX_ROLE", "web")
    with pytest.raises(CannotRun):
        keys.master("data")
    job = actions.submit(by=cast.applicant, grant=grant, stream=submission())
    assert actions.cancel(by=cast.applicant, job=job).state == "stopped"


@pytest.mark.parametrize("code", sorted(queries.WAITING))
def test_every_reason_for_waiting_is_a_sentence(code: str) -> None:
    facts = {"ahead": 1, "wanted": 2, "free": 1, "held": 50, "share": 40}
    assert queries.WAITING[code].format(**facts).endswith(".")


def failing(error: Exception, calls: list[int]):
    def step(job, lease, node):
        calls.append(job.attempts)
        raise error

    return step


def test_a_step_that_fails_is_tried_again_and_in_the_end_given_up(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(cast)
    calls: list[int] = []
    monkeypatch.setitem(engine.STEPS, "submitted", failing(RuntimeError("x"), calls))
    for _ in range(MOST_ATTEMPTS):
        with pytest.raises(RuntimeError):
            engine.advance(job.pk)
        job.refresh_from_db()
        assert (job.state, queries.waiting_of(job)[0]) == ("submitted", "retry")
        # Before its time nothing is tried.
        engine.advance(job.pk)
        Job.objects.filter(pk=job.pk).update(retry_at=timezone.now())
    engine.advance(job.pk)
    job.refresh_from_db()
    assert calls == [1, 2, 3, 4, 5]
    assert (job.state, job.reason) == ("stopped", "node-lost")
    assert set(JobStep.objects.values_list("result", flat=True)) == {"retry"}


def test_waiting_for_another_worker_costs_no_attempt(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(cast)
    calls: list[int] = []
    monkeypatch.setitem(engine.STEPS, "submitted", failing(TryAgain("busy"), calls))
    for _ in range(MOST_ATTEMPTS + 2):
        with pytest.raises(TryAgain):
            engine.advance(job.pk)
        Job.objects.filter(pk=job.pk).update(retry_at=timezone.now())
    assert set(calls) == {1}


def test_curves_stop_when_the_budget_is_spent_and_the_job_goes_on(cast: Cast) -> None:
    dataset = cast.version.dataset
    dataset.policy = {"ledger": {"job_bits": 100}}
    dataset.save()
    job = submitted(cast)
    policy = admission.machine_policy(dataset)
    with leases.hold(Job, job.pk) as lease:
        assert lease is not None
        curves = Curves(job, lease, manifest_of(job.submission).metrics, policy)
        for step in range(1, 20):
            curves.take(step, {"loss": 0.5})
        written = curves.flush()
    job.refresh_from_db()
    bits = Tick.objects.first().bits
    assert written == Tick.objects.count() == 100 // bits
    assert job.curves_stopped
    assert job.state == "submitted"
    assert ledger.balances(job, policy)["job"].spent <= 100


def test_one_grants_spending_counts_for_its_organisation_and_dataset(cast: Cast) -> None:
    job = submitted(cast)
    policy = admission.machine_policy(cast.version.dataset)
    assert ledger.charge(job, LedgerEntry.Kind.TICK, policy, bits=1999)
    assert not ledger.charge(job, LedgerEntry.Kind.TICK, policy, bits=2)
    spent = {name: balance.spent for name, balance in ledger.balances(job, policy).items()}
    assert spent == {"job": 1999, "grant": 1999, "organisation": 1999, "dataset": 1999}


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, None), (0.2, 10), (10, 10), (11, 20), (600, 600), (601, 660)]
)
def test_times_are_rounded_up_for_the_applicant(seconds: float | None, shown: int | None) -> None:
    assert rounding.rounded_seconds(seconds) == shown


def test_a_log_is_shown_inert() -> None:
    text = queries.inert("a\x1b[31mred\x07\u202eevil\x9b1m\n\tok\x7f")
    assert text == "a␛[31mred␇\ufffdevil\ufffd1m\n\tok\ufffd"
