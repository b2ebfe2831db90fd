"""A row has one worker at a time, and a dead worker's row becomes free by itself."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.utils import timezone

from portal import leases
from portal.audit.models import Sealer


@pytest.fixture
def row(db: None) -> Sealer:
    return Sealer.objects.create(pk=7)


def test_one_owner_takes_it(row: Sealer) -> None:
    one, two = leases.new_owner(), leases.new_owner()
    assert one != two
    assert leases.take(Sealer, 7, owner=one, seconds=60)
    assert not leases.take(Sealer, 7, owner=two, seconds=60)
    assert not leases.take(Sealer, 7, owner=one, seconds=60)
    assert not leases.take(Sealer, 8, owner=one, seconds=60)


def test_a_lease_that_is_over_is_free(row: Sealer) -> None:
    one, two = leases.new_owner(), leases.new_owner()
    leases.take(Sealer, 7, owner=one, seconds=60)
    Sealer.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert leases.take(Sealer, 7, owner=two, seconds=60)
    assert not leases.renew(Sealer, 7, owner=one, seconds=60)
    assert not leases.release(Sealer, 7, owner=one)
    row.refresh_from_db()
    assert row.lease_owner == two


def test_a_released_lease_is_free_at_once(row: Sealer) -> None:
    one = leases.new_owner()
    leases.take(Sealer, 7, owner=one, seconds=60)
    assert leases.release(Sealer, 7, owner=one)
    assert leases.take(Sealer, 7, owner=leases.new_owner(), seconds=60)


def test_a_queryset_s_conditions_must_hold(row: Sealer) -> None:
    none = Sealer.objects.filter(lease_owner="never")
    assert not leases.take(none, 7, owner=leases.new_owner(), seconds=60)


def test_writing_after_the_lease_passed_on_is_refused(row: Sealer) -> None:
    one = leases.new_owner()
    leases.take(Sealer, 7, owner=one, seconds=60)
    with transaction.atomic():
        leases.check(Sealer, 7, owner=one)
    Sealer.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    with pytest.raises(leases.LeaseLost), transaction.atomic():
        leases.check(Sealer, 7, owner=one)


@pytest.mark.django_db(transaction=True)
def test_of_many_at_the_same_instant_one_gets_it() -> None:
    Sealer.objects.create(pk=7)
    gate = threading.Barrier(8)
    won: list[bool] = []

    def run() -> None:
        gate.wait()
        won.append(leases.take(Sealer, 7, owner=leases.new_owner(), seconds=60))
        connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


@pytest.mark.django_db(transaction=True)
def test_a_held_lease_is_kept_by_its_heartbeat_and_given_back() -> None:
    Sealer.objects.create(pk=7)
    with leases.hold(Sealer, 7, seconds=0.6) as lease:
        assert lease is not None
        time.sleep(1.2)
        assert not leases.take(Sealer, 7, owner=leases.new_owner(), seconds=60)
        assert not lease.lost.is_set()
        with leases.hold(Sealer, 7, seconds=60) as second:
            assert second is None
    assert leases.take(Sealer, 7, owner=leases.new_owner(), seconds=60)


@pytest.mark.django_db(transaction=True)
def test_a_holder_learns_that_its_lease_was_lost() -> None:
    Sealer.objects.create(pk=7)
    with leases.hold(Sealer, 7, seconds=0.3) as lease:
        assert lease is not None
        Sealer.objects.update(lease_owner="another")
        assert lease.lost.wait(10)
        with pytest.raises(leases.LeaseLost), transaction.atomic():
            lease.check()
    row = Sealer.objects.get()
    assert row.lease_owner == "another"
