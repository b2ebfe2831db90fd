"""What was held back, apart from the other originals: under its own key, for a time of its own.

Whoever decides on held files later needs no other original, and a policy may keep the two for
different times. Where the quarantine's time ends first, the originals, which hold the same files,
end with it.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from django.db import transaction

from portal import blobs, dropbox, keys
from portal.catalog.queries import policy_of
from portal.ingest import room
from portal.ingest.models import Intake, ReportRow
from portal.leases import Lease


def keep(intake: Intake, lease: Lease, made: Path, rows: Iterable[ReportRow]) -> None:
    """Encrypt the files that were held back, each named by its digest, as one object of their own.

    Replaces what an earlier attempt kept. What the report names and the program did not leave
    (an input that could not be read at all) lies in the originals only.
    """
    held = sorted({row.source for row in rows if row.status not in room.KEPT})
    former, changes = intake.quarantine_object, _none()
    with tempfile.TemporaryFile(dir=made.parent) as packed:
        count = 0
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            for name in held:
                try:
                    stream = room.opened(made, f"quarantine/{name}")
                except FileNotFoundError:
                    continue
                with stream, archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                    while part := stream.read(1 << 20):
                        member.write(part)
                count += 1
        if count:
            packed.seek(0)
            key = keys.new_key()
            name = blobs.object_name(key, "quarantine", intake.version_id)
            stored = blobs.put(packed, key=key, name=name)
            changes = {
                "quarantine_object": stored.name,
                "quarantine_sealed_key": dropbox.seal(key, context=context(intake)),
                "quarantine_sha256": stored.sha256,
                "quarantine_bytes": stored.bytes,
                "quarantine_count": count,
                "quarantine_destroy_after": end(intake),
                "quarantine_destroyed_at": None,
            }
    with transaction.atomic():
        lease.check()
        rows_of = Intake.objects.filter(pk=intake.pk)
        rows_of.update(**changes)
        if count:
            rows_of.filter(destroy_after__gt=end(intake)).update(destroy_after=end(intake))
    intake.refresh_from_db()
    if former:
        blobs.delete(former)


def _none() -> dict[str, object]:
    return {
        "quarantine_object": "",
        "quarantine_sealed_key": None,
        "quarantine_sha256": "",
        "quarantine_bytes": 0,
        "quarantine_count": 0,
        "quarantine_destroy_after": None,
        "quarantine_destroyed_at": None,
    }


def end(intake: Intake) -> datetime:
    """Return when the quarantine's time is over; it counts from the upload."""
    days = policy_of(intake.version.dataset).deid.quarantine_days
    return intake.uploaded_at + timedelta(days=days)


def context(intake: Intake) -> str:
    """Return what the quarantine's key is sealed for."""
    return f"quarantine:{intake.version_id}"
