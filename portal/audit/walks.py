"""Walking the whole chain takes as long as it is: an auditor asks, a worker does it."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from portal import leases
from portal.accounts.models import Person, Role
from portal.accounts.permissions import check_role
from portal.audit.models import Walk
from portal.audit.record import record_attempt
from portal.audit.verify import verify
from portal.tasking import hint

# No walk takes longer. It only reads, so a second one of a row would do no harm but cost.
WALK_SECONDS = 1800


@transaction.atomic
def ask(*, by: Person) -> Walk:
    """Ask for a walk, or join the one that waits. Raises Denied for all but auditors."""
    check_role(by, Role.AUDITOR)
    record_attempt("audit.verified", by=by, subject="chain", kind="audit")
    walk = Walk.objects.filter(done_at=None).order_by("pk").first() or Walk.objects.create()
    hint("audit.walk", walk.pk)
    return walk


def carry_out(pk: int) -> None:
    """Walk the chain for a row that waits; nothing happens where another worker does."""
    owner = leases.new_owner()
    waiting = Walk.objects.filter(done_at=None)
    if leases.take(waiting, pk, owner=owner, seconds=WALK_SECONDS):
        result = verify().as_mapping()
        held = waiting.filter(pk=pk, lease_owner=owner)
        held.update(done_at=timezone.now(), result=result, lease_owner="", lease_until=None)


def fail(pk: int, reason: str) -> None:
    """Say that a walk could not be done: nobody may take it for one that held."""
    result = {"held": False, "faults": [{"place": "", "message": reason}]}
    waiting = Walk.objects.filter(pk=pk, done_at=None)
    waiting.update(done_at=timezone.now(), result=result, lease_owner="", lease_until=None)
