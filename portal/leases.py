"""Leases on rows: who works on something now, and until when nobody else may.

A lease is taken and kept by conditional UPDATEs, so two workers at the same instant get one
winner on every database. Rows are the truth: a worker that dies leaves a lease that runs out.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, connections, models
from django.db.models import Q, QuerySet
from django.utils import timezone

from policies.errors import GloveboxError


class LeaseLost(GloveboxError):
    """Somebody else works on this row now; what was being done must stop without a trace."""


class Leased(models.Model):
    """A row that one worker at a time may work on."""

    lease_owner = models.CharField(max_length=80, blank=True, default="", editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        abstract = True


Rows = type[models.Model] | QuerySet[Any]


def _rows(of: Rows) -> QuerySet[Any]:
    return of.all() if isinstance(of, QuerySet) else of._default_manager.all()


def free() -> Q:
    """Return the condition of rows that nobody holds now."""
    return Q(lease_until=None) | Q(lease_until__lte=timezone.now())


def new_owner() -> str:
    """Return a name for one attempt: never reused, so a doubled message is another owner."""
    return f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(8)}"


def take(of: Rows, pk: Any, *, owner: str, seconds: float) -> bool:
    """Take the lease on a row if it is free or over; True for the one who got it.

    ``of`` is a model or a queryset: with a queryset the row must also still fit its conditions
    (``Job.objects.filter(state="queued")``).
    """
    until = timezone.now() + timedelta(seconds=seconds)
    rows = _rows(of).filter(free(), pk=pk)
    return rows.update(lease_owner=owner, lease_until=until) == 1


def renew(of: Rows, pk: Any, *, owner: str, seconds: float) -> bool:
    """Keep a lease for ``seconds`` more; False if somebody else has it or nobody has."""
    until = timezone.now() + timedelta(seconds=seconds)
    return _rows(of).filter(pk=pk, lease_owner=owner).update(lease_until=until) == 1


def release(of: Rows, pk: Any, *, owner: str) -> bool:
    """Give a lease back; False if it was no longer this owner's."""
    rows = _rows(of).filter(pk=pk, lease_owner=owner)
    return rows.update(lease_owner="", lease_until=None) == 1


def check(of: Rows, pk: Any, *, owner: str) -> None:
    """Raise LeaseLost unless ``owner`` still holds the row.

    Called inside the transaction that writes the result: the row is locked until its end, so
    a worker that was away too long cannot write over its successor.
    """
    rows = _rows(of).filter(pk=pk, lease_owner=owner, lease_until__gt=timezone.now())
    if not rows.select_for_update().exists():
        raise LeaseLost("the lease has passed to another worker")


@dataclass
class Lease:
    """A lease held by a running worker; ``lost`` is set when it could not be kept."""

    of: Rows
    pk: Any
    owner: str
    lost: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise LeaseLost unless this lease still holds; inside the transaction that writes."""
        if self.lost.is_set():
            raise LeaseLost("the lease has passed to another worker")
        check(self.of, self.pk, owner=self.owner)


@contextlib.contextmanager
def hold(of: Rows, pk: Any, *, seconds: float = 60) -> Iterator[Lease | None]:
    """Take a lease, keep it by a heartbeat of its own thread, give it back at the end.

    Yields None if somebody else holds it. The conditions of a queryset apply to the taking only:
    the row's state may move on while it is held.
    """
    owner = new_owner()
    if not take(of, pk, owner=owner, seconds=seconds):
        yield None
        return
    model = of.model if isinstance(of, QuerySet) else of
    lease = Lease(model, pk, owner)
    done = threading.Event()

    def beat() -> None:
        kept = timezone.now()
        try:
            while not done.wait(seconds / 3):
                try:
                    if not renew(model, pk, owner=owner, seconds=seconds):
                        break
                    kept = timezone.now()
                except DatabaseError:
                    # A busy database may pass; a lease that ran out meanwhile has not been kept.
                    if timezone.now() - kept > timedelta(seconds=seconds):
                        break
            else:
                return
            lease.lost.set()
        finally:
            connections.close_all()

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        done.set()
        thread.join()
        release(model, pk, owner=owner)
