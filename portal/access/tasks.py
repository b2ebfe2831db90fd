"""Background work of requests and grants."""

from __future__ import annotations

from django.utils import timezone

from portal.access import grants, queries
from portal.access.models import Grant
from portal.tasking import hint, task


@task("access.expire", queue="short")
def expire(grant_id: int) -> None:
    """Mark one grant that is over; its jobs stop."""
    grant = Grant.objects.filter(pk=grant_id).first()
    if grant is not None:
        grants.expire(grant=grant)


def due() -> None:
    """Hint grants whose end has come."""
    for pk in queries.over(timezone.now()).values_list("pk", flat=True):
        hint("access.expire", pk)
