"""Sealing in the background."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Max

from portal.audit import chain, checkpoints
from portal.audit.models import Event
from portal.tasking import hint, task


@task("audit.seal", queue="short")
def seal() -> None:
    """Chain what was recorded, and sign a checkpoint when one is due."""
    chain.seal()
    if checkpoints.due():
        checkpoints.make()


def due() -> None:
    """Ask for sealing when there are events without a link, or a checkpoint to be signed."""
    newest = Event.objects.aggregate(newest=Max("id"))["newest"] or 0
    if newest > chain.head()[2] or checkpoints.due():
        with transaction.atomic():
            hint("audit.seal", again_after=5)
