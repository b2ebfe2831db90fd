"""Sealing in the background."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Max

from portal.audit import chain, checkpoints, walks
from portal.audit.models import Event, Walk
from portal.leases import free
from portal.tasking import hint, task


@task("audit.seal", queue="short")
def seal() -> None:
    """Chain what was recorded, and sign a checkpoint when one is due."""
    chain.seal()
    if checkpoints.due():
        checkpoints.make()


@task("audit.walk", queue="short", on_failure=walks.fail)
def walk(pk: int) -> None:
    """Walk the whole chain for an auditor who asked."""
    walks.carry_out(pk)


def due() -> None:
    """Ask for sealing when there are events without a link, or a checkpoint to be signed.

    And for the walks that an auditor waits for.
    """
    for pk in Walk.objects.filter(free(), done_at=None).values_list("pk", flat=True):
        hint("audit.walk", pk)
    newest = Event.objects.aggregate(newest=Max("id"))["newest"] or 0
    if newest > chain.head()[2] or checkpoints.due():
        with transaction.atomic():
            hint("audit.seal", again_after=5)
