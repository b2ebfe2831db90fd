"""An auditor has the chain walked from the page: a worker does it, and nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from portal import leases, tasking
from portal.accounts.models import Person
from portal.audit import chain, tasks, verify, walks
from portal.audit.models import Event, Walk
from portal.audit.record import record_attempt
from tests.portal.cast import Cast

pytestmark = pytest.mark.django_db
SignIn = Callable[[Person], Client]


def words(answer: Any) -> str:
    return str(answer.content.decode())


def asked(window: Client) -> str:
    """Press the button; return the address where the answer will stand."""
    answer = window.post(reverse("audit-check"))
    assert answer.status_code == 302
    return str(answer["Location"])


def test_the_page_waits_for_the_worker_and_then_says_what_was_found(
    cast: Cast, browse: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = browse(cast.auditor)
    with monkeypatch.context() as patch:
        # Whatever a request does, it does not walk.
        patch.setattr(walks, "verify", lambda: pytest.fail("walked in a web request"))
        page = asked(window)
        assert "The chain is being walked" in words(window.get(page))
        assert window.get(f"{page}live/").status_code == 204
    walk = Walk.objects.get()
    tasks.walk(walk.pk)
    assert window.get(f"{page}live/").status_code == 286
    assert "It holds" in words(window.get(page))
    assert Event.objects.filter(action="audit.verified", actor=cast.auditor.email).count() == 1


def test_what_does_not_hold_is_said_with_its_place(cast: Cast, browse: SignIn) -> None:
    event = record_attempt("test.done", by=None, subject="a thing")
    chain.seal()
    Event.objects.filter(pk=event.pk).update(actor="somebody else")
    window = browse(cast.auditor)
    page = asked(window)
    tasks.walk(Walk.objects.get().pk)
    shown = words(window.get(page))
    assert "It does NOT hold" in shown
    assert f"event {event.pk}" in shown


def test_who_asks_while_one_waits_is_told_the_same(cast: Cast, browse: SignIn) -> None:
    window = browse(cast.auditor)
    assert asked(window) == asked(window)
    tasks.walk(Walk.objects.get().pk)
    asked(window)
    assert Walk.objects.count() == 2


def test_a_walk_is_for_auditors(cast: Cast, browse: SignIn) -> None:
    walk = walks.ask(by=cast.auditor)
    for person in (cast.administrator, cast.applicant, cast.reviewers[0]):
        window = browse(person)
        assert window.post(reverse("audit-check")).status_code == 403
        for name in ("audit-walk", "audit-walk-live"):
            assert window.get(reverse(name, args=[walk.pk])).status_code == 403
    assert Walk.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_lost_message_a_second_worker_and_a_failure(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = walks.ask(by=cast.auditor)
    hinted: list[Any] = []
    monkeypatch.setattr(tasks, "hint", lambda name, *args, **_more: hinted.append((name, *args)))
    tasks.due()
    assert ("audit.walk", walk.pk) in hinted
    # While one worker walks, another leaves it alone, and beat too.
    assert leases.take(Walk, walk.pk, owner="first", seconds=60)
    tasks.walk(walk.pk)
    assert Walk.objects.get().done_at is None
    hinted.clear()
    tasks.due()
    assert ("audit.walk", walk.pk) not in hinted
    leases.release(Walk, walk.pk, owner="first")

    def broken() -> None:
        raise RuntimeError("a disk at /srv")

    monkeypatch.setattr(walks, "verify", broken)
    tasking.app.tasks["audit.walk"](walk.pk)
    done = Walk.objects.get()
    assert done.done_at is not None
    assert done.done_at <= timezone.now()
    assert not done.result["held"]
    assert "/srv" not in str(done.result)


@pytest.mark.django_db(transaction=True)
def test_while_the_chain_is_walked_others_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(number: int) -> None:
        with transaction.atomic():
            record_attempt("test.done", by=None, subject=str(number))

    write(1)
    chain.seal()
    wrote: list[int] = []

    def elsewhere() -> None:
        try:
            write(2)
            wrote.append(2)
        finally:
            connections.close_all()

    check = verify._check_event

    def in_the_middle(event: tuple[Any, ...], result: verify.Verification) -> str:
        if not wrote:
            other = threading.Thread(target=elsewhere)
            other.start()
            other.join(timeout=10)
            # Not after the walk: the writer would have waited for its end.
            assert wrote == [2]
        return check(event, result)

    monkeypatch.setattr(verify, "_check_event", in_the_middle)
    found = verify.verify()
    assert found.held
    # One moment: what was written meanwhile is not of it.
    assert found.events == 1
