"""Write one audit event inside the caller's transaction."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any

from django.db import connection, models, transaction
from django.utils import timezone

from portal.audit.models import Event

if TYPE_CHECKING:
    from portal.accounts.models import Person

# Every recorder holds this PostgreSQL advisory lock, shared, from before it draws an id until its
# commit; the sealer takes it alone. So no event with a smaller id can appear behind the sealer.
# Under SQLite the write lock does the same: ids are drawn by one transaction at a time.
SEALING_LOCK = 0x676C6F7665
# Beyond these a number may come back from a database as another kind of number.
_LARGEST = 1e15


def canonical_row(
    at: str,
    actor_id: str,
    actor: str,
    action: str,
    about_kind: str,
    about_id: str,
    about: str,
    details: Any,
) -> bytes:
    """Return the bytes whose SHA-256 is an event's digest: every column but ``id`` and digest."""
    row = {
        "at": at,
        "actor_id": actor_id,
        "actor": actor,
        "action": action,
        "about_kind": about_kind,
        "about_id": about_id,
        "about": about,
        "details": details,
    }
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def canonical(event: Event) -> bytes:
    """Return ``canonical_row`` of an event."""
    return canonical_row(
        event.at.astimezone(UTC).isoformat(),
        event.actor_id,
        event.actor,
        event.action,
        event.about_kind,
        event.about_id,
        event.about,
        event.details,
    )


def _text(value: str, limit: int) -> str:
    """Return text that every database gives back as it got it."""
    clean = value.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return clean[:limit]


def _plain(value: Any) -> Any:
    """Return JSON that every database gives back as it got it."""
    if isinstance(value, str):
        return _text(value, 20_000)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, float):
        if not math.isfinite(value) or abs(value) >= _LARGEST:
            return repr(value)
        return value + 0.0  # a negative zero becomes zero
    if isinstance(value, int):
        return value if abs(value) < _LARGEST else str(value)
    if isinstance(value, Mapping):
        return {_text(str(key), 200): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        entries = sorted(value) if isinstance(value, set | frozenset) else value
        return [_plain(entry) for entry in entries]
    raise TypeError(f"an audit event's details hold plain values, not {type(value).__name__}")


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
    return _write(
        action,
        by=by,
        about_kind=about._meta.label_lower,
        about_id=str(about.pk),
        about=str(about),
        details=details,
    )


def record_attempt(
    action: str,
    *,
    by: Person | None,
    subject: str,
    kind: str = "attempt",
    details: Mapping[str, Any] | None = None,
) -> Event:
    """Record something about no row: a refused request, a sign-in under an unknown name."""
    return _write(action, by=by, about_kind=kind, about_id="", about=subject, details=details)


def record_view(
    action: str,
    *,
    by: Person,
    about: models.Model,
    details: Mapping[str, Any] | None = None,
) -> Event:
    """Record that somebody looked at something, in a transaction of its own.

    Called before the thing is shown: what cannot be written down is not shown.
    """
    with transaction.atomic():
        return record(action, by=by, about=about, details=details)


def _write(
    action: str,
    *,
    by: Person | None,
    about_kind: str,
    about_id: str,
    about: str,
    details: Mapping[str, Any] | None,
) -> Event:
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("an audit event is written inside the action's transaction")
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [SEALING_LOCK])
    event = Event(
        at=timezone.now(),
        actor_id=str(by.pk) if by else "system",
        actor=_text(by.email, 200) if by else "system",
        action=action,
        about_kind=about_kind,
        about_id=about_id,
        about=_text(about, 300),
        details=_plain(details or {}),
    )
    event.digest = hashlib.sha256(canonical(event)).hexdigest()
    event.save(force_insert=True)
    return event
