"""Which officer looks at which file: each is handed to one at a time, and comes back by itself.

The lease on the item's row is the right to look and to judge. It is taken by a conditional
UPDATE, so of two officers at the same instant one gets the file, on every database.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from policies.errors import Conflict, _
from portal import leases
from portal.accounts.models import Person
from portal.audit.record import record
from portal.catalog.models import DatasetVersion
from portal.ingest.models import ReviewItem
from portal.ingest.queries import check_officer
from portal.ingest.sampling import current_round

LEASE_SECONDS = 10 * 60  # the page renews it every two minutes while it is open


def owner_of(person: Person) -> str:
    """Return the name under which a person holds items."""
    return f"person:{person.pk}"


def holds(person: Person, item: ReviewItem) -> bool:
    """Whether the person has this file in hand now; read from the database."""
    rows = ReviewItem.objects.filter(pk=item.pk, lease_owner=owner_of(person))
    return rows.filter(lease_until__gt=timezone.now()).exists()


def held_by_another(person: Person, item: ReviewItem) -> bool:
    """Whether somebody else has this file in hand now."""
    mine = Q(lease_owner=owner_of(person))
    return ReviewItem.objects.filter(pk=item.pk).exclude(leases.free() | mine).exists()


def _take(person: Person, item: ReviewItem) -> bool:
    owner = owner_of(person)
    return (
        leases.renew(ReviewItem, item.pk, owner=owner, seconds=LEASE_SECONDS)
        if holds(person, item)
        else leases.take(ReviewItem, item.pk, owner=owner, seconds=LEASE_SECONDS)
    )


@transaction.atomic
def hand_out(*, by: Person, version: DatasetVersion) -> ReviewItem | None:
    """Give the officer a file that nobody has looked at or has in hand; None when none is left.

    What the officer has in hand already comes first.
    """
    check_officer(by, version)
    _check_open(version)
    waiting = current_round(version).filter(finding="")
    mine = waiting.filter(lease_owner=owner_of(by), lease_until__gt=timezone.now())
    for item in [*mine[:1], *waiting.filter(leases.free())[:50]]:
        if _take(by, item):
            _record(by, item)
            return item
    return None


@transaction.atomic
def take(*, by: Person, item: ReviewItem) -> ReviewItem:
    """Take one file in hand, or keep it. Raises Conflict while another officer has it."""
    check_officer(by, item.version)
    _check_open(item.version)
    known = holds(by, item)
    if not _take(by, item):
        raise Conflict(
            _("Another officer is looking at this file now; take the next one."), code="qa.taken"
        )
    if not known:
        _record(by, item)
    return item


def give_back(*, by: Person, item: ReviewItem) -> None:
    """Let go of a file; one that another has in hand is left alone."""
    leases.release(ReviewItem, item.pk, owner=owner_of(by))


def _check_open(version: DatasetVersion) -> None:
    if version.state != "in_qa":
        raise Conflict(_("This examination is closed."), code="qa.closed")


def _record(by: Person, item: ReviewItem) -> None:
    record(
        "qa.hand_out",
        by=by,
        about=item.version,
        details={"item": item.position, "round": item.round},
    )
