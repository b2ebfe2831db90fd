"""One sealer at a time extends the chain, over committed events in the order of their ids."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connections, transaction

from portal import leases
from portal.audit import chain, tasks
from portal.audit.models import Event, Link, Sealer
from portal.audit.record import record_attempt
from portal.audit.verify import verify
from portal.tasking import TryAgain


def add(count: int) -> None:
    with transaction.atomic():
        for number in range(count):
            record_attempt("test.done", by=None, subject=f"thing {number}")


def chained() -> list[int]:
    return list(Link.objects.order_by("position").values_list("event_id", flat=True))


@pytest.mark.django_db
def test_events_are_chained_in_batches_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "BATCH", 4)
    add(11)
    assert chain.seal() == 11
    assert chain.seal() == 0
    assert chained() == list(Event.objects.order_by("id").values_list("id", flat=True))
    assert verify().held


@pytest.mark.django_db
def test_a_second_sealer_waits_its_turn() -> None:
    add(3)
    Sealer.objects.get_or_create(pk=1)
    owner = leases.new_owner()
    assert leases.take(Sealer, 1, owner=owner, seconds=60)
    with pytest.raises(TryAgain):
        chain.seal()
    assert chained() == []
    leases.release(Sealer, 1, owner=owner)
    assert chain.seal() == 3


@pytest.mark.django_db
def test_a_sealer_that_was_overtaken_writes_nothing() -> None:
    add(3)
    Sealer.objects.get_or_create(pk=1)
    with leases.hold(Sealer, 1, seconds=60) as lease:
        assert lease is not None
        Sealer.objects.update(lease_owner="another")
        with pytest.raises(leases.LeaseLost):
            chain._append_batch(lease)
    assert chained() == []


@pytest.mark.django_db(transaction=True)
def test_an_event_is_written_inside_the_action_s_transaction_only() -> None:
    with pytest.raises(RuntimeError, match="inside the action's transaction"):
        record_attempt("test.done", by=None, subject="x")


@pytest.mark.django_db(transaction=True)
def test_nothing_is_skipped_while_many_write_and_two_seal() -> None:
    """Writers commit late and roll back; two sealers run beside them."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def guarded(work: object) -> threading.Thread:
        def run() -> None:
            try:
                work()  # type: ignore[operator]
            except BaseException as error:
                errors.append(error)
            finally:
                connections.close_all()

        return threading.Thread(target=run)

    def write() -> None:
        for number in range(12):
            try:
                with transaction.atomic():
                    record_attempt("test.done", by=None, subject="thing")
                    time.sleep(0.003)
                    record_attempt("test.done", by=None, subject="other")
                    if number % 4 == 3:
                        raise InterruptedError
            except InterruptedError:
                continue

    def seal() -> None:
        while not stop.is_set():
            try:
                chain.seal()
            except TryAgain:
                time.sleep(0.002)

    writers = [guarded(write) for _ in range(3)]
    sealers = [guarded(seal) for _ in range(2)]
    for thread in [*writers, *sealers]:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in sealers:
        thread.join()
    chain.seal()
    assert errors == []
    assert chained() == list(Event.objects.order_by("id").values_list("id", flat=True))
    assert len(chained()) == 3 * 9 * 2
    assert verify().held


@pytest.mark.django_db
def test_the_task_seals_and_signs_when_due() -> None:
    from portal.audit.models import Checkpoint

    add(3)
    tasks.seal()
    assert chained() != []
    assert Checkpoint.objects.count() == 1
    add(1)
    tasks.seal()
    assert Checkpoint.objects.count() == 1


@pytest.mark.django_db
def test_the_link_digest_binds_position_event_and_past() -> None:
    base = chain.link_digest(chain.GENESIS, 1, 1, "0" * 64)
    assert len(base) == 64
    others = {
        chain.link_digest("1" * 64, 1, 1, "0" * 64),
        chain.link_digest(chain.GENESIS, 2, 1, "0" * 64),
        chain.link_digest(chain.GENESIS, 1, 2, "0" * 64),
        chain.link_digest(chain.GENESIS, 1, 1, "1" * 64),
    }
    assert len({base, *others}) == 5
