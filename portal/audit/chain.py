"""The hash chain over the events: one sealer appends, nobody else does.

A link's digest is SHA-256 over the digest before it, its position, its event's id and its event's
digest. Whoever changes, removes, inserts or moves a sealed event breaks the chain at that place;
whoever recomputes what follows runs against a signed checkpoint (``portal.audit.checkpoints``).
An event that was deleted before it was sealed leaves a gap in the numbers (see ``ids_tell``); the
sealer writes an event about it.
"""

from __future__ import annotations

import hashlib
import struct

from django.db import OperationalError, connection, transaction

from portal import leases
from portal.audit.models import Event, Link, Sealer
from portal.audit.record import SEALING_LOCK, record_attempt
from portal.tasking import TryAgain

GENESIS = hashlib.sha256(b"glovebox.audit.chain.v1").hexdigest()
BATCH = 5_000
SEALER_SECONDS = 60
# How long the sealer may keep recorders waiting for a long transaction to end (PostgreSQL).
LOCK_TIMEOUT = "2s"


def link_digest(previous: str, position: int, event_id: int, event_digest: str) -> str:
    """Return the digest of the link at ``position``."""
    place = struct.pack(">QQ", position, event_id)
    return hashlib.sha256(bytes.fromhex(previous) + place + bytes.fromhex(event_digest)).hexdigest()


def head() -> tuple[int, str, int]:
    """Return position, digest and event id of the newest link; (0, GENESIS, 0) before the first."""
    last = Link.objects.order_by("-position").first()
    return (last.position, last.digest, last.event_id) if last else (0, GENESIS, 0)


def unsealed() -> bool:
    """Whether there are events behind the newest link."""
    return Event.objects.filter(id__gt=head()[2]).exists()


def ids_tell() -> bool:
    """Whether a number that is missing between two events proves that an event was deleted.

    SQLite draws the number from a row (``sqlite_sequence``, AUTOINCREMENT) that the event's own
    transaction writes: rolled back, the number is drawn again. PostgreSQL's sequences leave gaps.
    """
    return connection.vendor == "sqlite"


def last_drawn() -> int:
    """Return the newest number that an event ever got, its row deleted or not (SQLite)."""
    with connection.cursor() as cursor:
        query = "SELECT seq FROM sqlite_sequence WHERE name = %s"
        cursor.execute(query, [Event._meta.db_table])
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def _alone() -> None:
    """Wait until every transaction that drew an event id has ended; inside the transaction."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [SEALING_LOCK])


def _append_batch(lease: leases.Lease) -> int:
    with transaction.atomic():
        _alone()
        lease.check()
        position, digest, event_id = head()
        rows = Event.objects.filter(id__gt=event_id).order_by("id").values_list("id", "digest")
        links, gaps = [], []
        for following, event_digest in rows[:BATCH]:
            if ids_tell() and position and following > event_id + 1:
                gaps.append((event_id + 1, following - 1))
            position, event_id = position + 1, following
            digest = link_digest(digest, position, event_id, event_digest)
            links.append(Link(position=position, event_id=event_id, digest=digest))
        Link.objects.bulk_create(links, batch_size=300)
        for first, last in gaps:
            details = {"first": first, "last": last}
            record_attempt(
                "audit.gap", by=None, subject="events deleted", kind="audit", details=details
            )
        return len(links)


def seal() -> int:
    """Chain all committed events that have no link yet, in the order of their ids.

    Returns how many. Raises TryAgain when another sealer is at work or the database is busy.
    """
    Sealer.objects.get_or_create(pk=1)
    with leases.hold(Sealer, 1, seconds=SEALER_SECONDS) as lease:
        if lease is None:
            raise TryAgain("another sealer is at work")
        total = 0
        try:
            while count := _append_batch(lease):
                total += count
                if count < BATCH:
                    break
        except OperationalError as error:
            raise TryAgain("the database is busy; what was chained stays") from error
        return total
