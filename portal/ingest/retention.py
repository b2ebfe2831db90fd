"""The ends of retention, each with its record, and what killed workers left in plaintext."""

from __future__ import annotations

import re

from django.db import transaction
from django.utils import timezone

from portal import blobs, workplace
from portal.audit.record import record
from portal.catalog.models import DatasetVersion
from portal.ingest import sharding
from portal.ingest.models import Destruction, Intake, ReviewItem, Shard
from portal.ingest.pipeline import FOLDERS
from portal.leases import free, hold

_OURS = re.compile(rf"({'|'.join(FOLDERS)})-([0-9]+)")


def destroy_originals(intake: Intake) -> None:
    """Destroy a version's originals at the end of their retention, and record it."""
    with transaction.atomic():
        rows = Intake.objects.filter(
            pk=intake.pk, destroyed_at=None, destroy_after__lte=timezone.now()
        )
        if rows.update(destroyed_at=timezone.now(), sealed_key=None) != 1:
            return
        Destruction.objects.create(
            version=intake.version, what="originals", count=1, bytes=intake.bytes
        )
        record("originals.destroy", by=None, about=intake.version, details={"objects": 1})
    blobs.delete(intake.object_name)
    sharding.drop(intake)


def destroy_pictures(version: DatasetVersion) -> None:
    """Destroy the before and after pictures of a version that nobody examines any more."""
    items = list(
        ReviewItem.objects.filter(version=version, pictures_destroyed_at=None).exclude(
            after_object=""
        )
    )
    if not items:
        return
    with transaction.atomic():
        ReviewItem.objects.filter(pk__in=[item.pk for item in items]).update(
            pictures_destroyed_at=timezone.now(), wrapped_key=None
        )
        Destruction.objects.create(version=version, what="pictures", count=2 * len(items), bytes=0)
        record("pictures.destroy", by=None, about=version, details={"objects": 2 * len(items)})
    for item in items:
        blobs.delete(item.before_object)
        blobs.delete(item.after_object)


def _wanted(what: str, number: int) -> bool:
    """Whether the next worker goes on with a folder: so while its version is being ingested."""
    if what == "shard":
        shards = Shard.objects.filter(pk=number, done_at=None)
        return shards.filter(intake__version__state="ingesting").exists()
    return what == "ingest" and DatasetVersion.objects.filter(pk=number, state="ingesting").exists()


def _owner(what: str, number: int) -> Intake | Shard | None:
    """Return the row whose lease is the right to a folder."""
    if what == "shard":
        return Shard.objects.filter(pk=number).first()
    return Intake.objects.filter(version_id=number).first()


def stale_folders() -> list[str]:
    """Return the work folders that no version wants and nobody works in."""
    found = []
    for path in workplace.root().iterdir():
        match = _OURS.fullmatch(path.name)
        if match is None or _wanted(match[1], int(match[2])):
            continue
        owner = _owner(match[1], int(match[2]))
        if owner is None or type(owner)._default_manager.filter(free(), pk=owner.pk).exists():
            found.append(path.name)
    return found


def sweep() -> int:
    """Remove the plaintext that killed workers left; return how many folders there were.

    Each removal holds the lease on its row, so that no worker begins in that folder meanwhile.
    """
    count = 0
    for name in stale_folders():
        what, _dash, number = name.rpartition("-")
        owner = _owner(what, int(number))
        if owner is None:
            workplace.remove(name)
            count += 1
            continue
        with hold(type(owner), owner.pk, seconds=60) as lease:
            if lease is not None and not _wanted(what, int(number)):
                workplace.remove(name)
                count += 1
    return count
