"""What the trail shows, and to whom: auditors everything, others nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import QuerySet

from portal.accounts.models import Person, Role
from portal.accounts.permissions import check_role
from portal.audit.models import Checkpoint, Event


@dataclass(frozen=True)
class Filter:
    """Which events: empty fields do not narrow. ``action`` fits as a prefix (``role.``)."""

    action: str = ""
    actor_id: str = ""
    about_kind: str = ""
    about_id: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def as_details(self) -> dict[str, str]:
        """Return the fields that narrow, for the audit event about looking."""
        return {name: str(value) for name, value in vars(self).items() if value}


def events(*, viewer: Person, where: Filter | None = None) -> QuerySet[Event]:
    """Return the events that fit, newest first. Raises Denied for all but auditors."""
    check_role(viewer, Role.AUDITOR)
    where = where or Filter()
    found = Event.objects.order_by("-id")
    if where.action:
        found = found.filter(action__startswith=where.action)
    if where.actor_id:
        found = found.filter(actor_id=where.actor_id)
    if where.about_kind:
        found = found.filter(about_kind=where.about_kind)
    if where.about_id:
        found = found.filter(about_id=where.about_id)
    if where.since:
        found = found.filter(at__gte=where.since)
    if where.until:
        found = found.filter(at__lt=where.until)
    return found


def checkpoints() -> QuerySet[Checkpoint]:
    """Return the signed checkpoints, newest first; anyone may keep them."""
    return Checkpoint.objects.order_by("-id")
