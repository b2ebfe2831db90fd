"""Write one audit event inside the caller's transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.db import models, transaction
from django.utils import timezone

from portal.audit.models import Event

if TYPE_CHECKING:
    from portal.accounts.models import Person


def canonical(event: Event) -> bytes:
    """Return the bytes whose SHA-256 is the event's digest: every column but ``id`` and digest."""
    row = {
        "at": event.at.isoformat(),
        "actor_id": event.actor_id,
        "actor": event.actor,
        "action": event.action,
        "about_kind": event.about_kind,
        "about_id": event.about_id,
        "about": event.about,
        "details": event.details,
    }
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def record(
    action: str,
    *,
    by: Person | None,
    about: models.Model,
    details: Mapping[str, Any] | None = None,
) -> Event:
    """Record that ``by`` (None: the system) did ``action`` to ``about``.

    Must be called inside the transaction that does it, so that neither exists without the other.
    ``details`` holds plain JSON values and never data of subjects.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("an audit event is written inside the action's transaction")
    event = Event(
        at=timezone.now(),
        actor_id=str(by.pk) if by else "system",
        actor=by.email if by else "system",
        action=action,
        about_kind=about._meta.label_lower,
        about_id=str(about.pk),
        about=str(about)[:300],
        # A round trip through JSON: what is digested is exactly what is stored.
        details=json.loads(json.dumps(dict(details or {}), ensure_ascii=False)),
    )
    event.digest = hashlib.sha256(canonical(event)).hexdigest()
    event.save(force_insert=True)
    return event
