"""The ends of retention, each with its record, and what killed workers left in plaintext."""

from __future__ import annotations

import re

from django.db import transaction
from django.utils import timezone

from portal import blobs, workplace
from portal.audit.record import record
from portal.catalog.models import DatasetVersion
from portal.ingest.models import Destruction, Intake, ReviewItem
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


def _wanted(name: str) -> bool:
    """Whether the next worker goes on with a folder: so while its version is being ingested."""
    what, _dash, number = name.rpartition("-")
    versions = DatasetVersion.objects.filter(pk=int(number), state="ingesting")
    return what == "ingest" and versions.exists()


def stale_folders() -> list[str]:
    """Return the work folders that no version wants and nobody works in."""
    found = []
    for path in workplace.root().iterdir():
        match = _OURS.fullmatch(path.name)
        if match is None or _wanted(path.name):
            continue
        if not Intake.objects.filter(version_id=int(match[2])).exclude(free()).exists():
            found.append(path.name)
    return found


def sweep() -> int:
    """Remove the plaintext that killed workers left; return how many folders there were.

    Each removal holds the intake's lease, so that no worker begins in that folder meanwhile.
    """
    count = 0
    for name in stale_folders():
        number = int(name.rpartition("-")[2])
        intake = Intake.objects.filter(version_id=number).first()
        if intake is None:
            workplace.remove(name)
            count += 1
            continue
        with hold(Intake, intake.pk, seconds=60) as lease:
            if lease is not None and not _wanted(name):
                workplace.remove(name)
                count += 1
    return count
