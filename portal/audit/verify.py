"""Walk the chain from its first link and say at which place something is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db import connection, models, transaction
from django.db.models.functions import Cast

from policies.errors import Invalid
from portal import keys
from portal.audit import chain, checkpoints
from portal.audit.models import Checkpoint, Event, Link
from portal.audit.record import canonical_row

COLUMNS = (
    "id",
    "at",
    "actor_id",
    "actor",
    "action",
    "about_kind",
    "about_id",
    "about",
    "text",
    "digest",
)
# After so many faults the rest adds nothing.
MAXIMUM_FAULTS = 100


@dataclass(frozen=True)
class Fault:
    """Something against the rules, and where: a position of the chain or an event's id."""

    place: str
    message: str


@dataclass
class Verification:
    """What a walk over the whole chain found."""

    events: int = 0
    unsealed: int = 0
    position: int = 0
    digest: str = chain.GENESIS
    checkpoints: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether nothing was found."""
        return not self.faults

    def fault(self, place: str, message: str) -> None:
        if len(self.faults) < MAXIMUM_FAULTS:
            self.faults.append(Fault(place, message))

    def as_mapping(self) -> dict[str, Any]:
        """Return the JSON document of ``glovebox audit verify --json``."""
        return {
            "held": self.held,
            "events": self.events,
            "unsealed": self.unsealed,
            "position": self.position,
            "digest": self.digest,
            "checkpoints": self.checkpoints,
            "faults": [{"place": fault.place, "message": fault.message} for fault in self.faults],
        }


def verify(
    given: Iterable[checkpoints.Statement] = (),
    public: Mapping[str, Ed25519PublicKey] | None = None,
) -> Verification:
    """Verify every event, every link, and every checkpoint: given, stored, and exported.

    Constant memory. ``public`` are the audit keys to trust (default: this installation's).
    """
    trusted = keys.public_keys("audit") if public is None else public
    result = Verification()
    wanted = list(_trusted_statements(given, trusted, result))
    with _snapshot():
        _walk(result, wanted)
    return result


@contextlib.contextmanager
def _snapshot() -> Iterator[None]:
    """Read events and links as they are at one moment; recorders and the sealer may go on."""
    if connection.in_atomic_block:
        yield
        return
    if connection.vendor == "sqlite":
        # Our transactions take the write lock at once (settings); this one only reads.
        usual = connection.transaction_mode  # type: ignore[attr-defined]
        connection.transaction_mode = "DEFERRED"  # type: ignore[attr-defined]
        try:
            with transaction.atomic():
                yield
        finally:
            connection.transaction_mode = usual  # type: ignore[attr-defined]
        return
    with transaction.atomic():
        # PostgreSQL takes the word only before a transaction's first query.
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield


def _trusted_statements(
    given: Iterable[checkpoints.Statement],
    public: Mapping[str, Ed25519PublicKey],
    result: Verification,
) -> Iterator[tuple[str, checkpoints.Statement]]:
    stored = ((f"stored checkpoint {row.pk}", checkpoints.of_row(row)) for row in _rows())
    named = (("given checkpoint", statement) for statement in given)
    exported = _exported(result)
    for place, statement in itertools.chain(named, stored, exported):
        result.checkpoints += 1
        if statement.holds(public):
            yield place, statement
        else:
            result.fault(place, "its signature is not one of the audit keys'")


def _exported(result: Verification) -> Iterator[tuple[str, checkpoints.Statement]]:
    for path in checkpoints.exported():
        place = f"exported checkpoint {path.name}"
        try:
            yield place, checkpoints.parse(path.read_text())
        except (Invalid, OSError, UnicodeDecodeError):
            result.fault(place, "cannot be read")


def _rows() -> Iterator[Checkpoint]:
    return Checkpoint.objects.order_by("id").iterator(chunk_size=2000)


def _walk(result: Verification, wanted: list[tuple[str, checkpoints.Statement]]) -> None:
    """Merge the links with the events, both in the order of event ids, and check each pair."""
    waiting = [
        (statement.position, number, place, statement.digest)
        for number, (place, statement) in enumerate(wanted)
    ]
    heapq.heapify(waiting)
    events = _events(result)
    event = next(events, None)
    links = Link.objects.order_by("position").values_list("position", "event_id", "digest")
    highest = 0
    for position, event_id, digest in links.iterator(chunk_size=5000):
        if position != result.position + 1:
            missing = f"links {result.position + 1} to {position - 1} are missing"
            result.fault(f"position {position}", missing)
        if event_id <= highest:
            result.fault(f"position {position}", f"event {event_id} is out of order")
        while event is not None and event[0] < event_id:
            result.fault(f"event {event[0]}", "was inserted: it has no link in the chain")
            event = next(events, None)
        if event is not None and event[0] == event_id:
            stored = _check_event(event, result)
            event = next(events, None)
        else:
            result.fault(f"event {event_id}", f"was deleted: position {position} speaks of it")
            stored = None
        _check_gap(highest, event_id, result)
        if stored is not None and digest != _expected(result.digest, position, event_id, stored):
            result.fault(
                f"position {position}",
                f"the chain is broken at event {event_id}: moved, replaced or recomputed",
            )
        highest = max(highest, event_id)
        # Go on from what is stored: a later fault is then named at its own place.
        result.position, result.digest = position, digest
        while waiting and waiting[0][0] <= position:
            at, _number, place, signed = heapq.heappop(waiting)
            if at == position and signed != digest:
                result.fault(
                    f"position {position}",
                    f"the chain was rewritten: the {place} signed another digest",
                )
            elif at < position:
                result.fault(f"position {at}", f"the {place} speaks of a link that is missing")
    for at, _number, place, _digest in sorted(waiting):
        result.fault(
            f"position {result.position}",
            f"the end was cut off: the {place} saw {at} links",
        )
    while event is not None:
        _check_event(event, result)
        _check_gap(highest, event[0], result)
        highest = max(highest, event[0])
        result.unsealed += 1
        event = next(events, None)
    if chain.ids_tell():
        _check_gap(highest, chain.last_drawn() + 1, result)


def _check_gap(before: int, event_id: int, result: Verification) -> None:
    """Say which numbers are missing before an event, where a missing number proves a deletion."""
    if chain.ids_tell() and before and event_id > before + 1:
        result.fault(
            f"event {before + 1}",
            f"events {before + 1} to {event_id - 1} were deleted: no link speaks of them",
        )


def _events(result: Verification) -> Iterator[tuple[Any, ...]]:
    """Yield the events in the order of their ids; stop with a fault where one cannot be read."""
    # The details come as text: one row's broken JSON must not hide the others.
    rows = (
        Event.objects.order_by("id")
        .annotate(text=Cast("details", models.TextField()))
        .values_list(*COLUMNS)
    )
    last = 0
    try:
        for row in rows.iterator(chunk_size=5000):
            yield row
            last = row[0]
    except (ValueError, TypeError):
        result.fault(f"event {last}", "the event behind it cannot be read: its time is damaged")


def _expected(previous: str, position: int, event_id: int, event_digest: str) -> str | None:
    try:
        return chain.link_digest(previous, position, event_id, event_digest)
    except ValueError:
        return None  # a digest that is not hexadecimal


def _check_event(event: tuple[Any, ...], result: Verification) -> str:
    """Check that an event's content fits its digest; return the stored digest."""
    result.events += 1
    event_id, at, actor_id, actor, action, kind, about_id, about, details, digest = event
    try:
        time = at.astimezone(UTC).isoformat()
        row = canonical_row(
            time, actor_id, actor, action, kind, about_id, about, json.loads(details)
        )
        fits = hashlib.sha256(row).hexdigest() == digest
    except (ValueError, TypeError, AttributeError):
        fits = False
    if not fits:
        result.fault(f"event {event_id}", "was changed: its content does not fit its digest")
    # The link is checked against the stored digest, so that one change is one fault.
    return str(digest)
