"""The ends of retention, each with its record, and what killed workers left in plaintext.

What is destroyed is the key: in one transaction the wrapped key is overwritten, the record names
every object that it opened, and the event is written. The objects go afterwards; a worker that
dies in between leaves ciphertext that nobody can open, and the record by which the next one
removes it and, once nothing is left, signs the certificate.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Any

from cryptography.exceptions import InvalidTag
from django.db import connection, transaction
from django.utils import timezone

from bundle.destruction import Certificate, sign_destruction
from portal import blobs, dropbox, keys, workplace
from portal.audit.record import record
from portal.catalog.models import DatasetVersion
from portal.ingest import quarantine, sharding
from portal.ingest.models import Destruction, Intake, ReviewItem, Shard
from portal.ingest.pipeline import FOLDERS
from portal.leases import free, hold
from portal.tasking import hint

_OURS = re.compile(rf"({'|'.join(FOLDERS)})-([0-9]+)")


def destroy_originals(intake: Intake) -> None:
    """Destroy a version's originals at the end of their retention, and record it.

    The pictures of an open examination go with them: they show what the originals showed.
    """
    with transaction.atomic():
        row = Intake.objects.select_for_update().get(pk=intake.pk)
        if row.destroyed_at is not None or row.destroy_after > timezone.now():
            return
        gone = [
            {
                "object": row.object_name,
                "key": _name_of(row.sealed_key, context=f"originals:{row.version_id}"),
                "sha256": row.sha256,
            }
        ]
        Intake.objects.filter(pk=row.pk).update(destroyed_at=timezone.now(), sealed_key=None)
        made = _recorded(row.version, "originals", gone, row.bytes)
    finish(made)
    sharding.drop(intake)
    destroy_pictures(intake.version)


def destroy_quarantine(intake: Intake) -> None:
    """Destroy what was held back at the end of its own retention, and record it."""
    with transaction.atomic():
        row = Intake.objects.select_for_update().get(pk=intake.pk)
        over = row.quarantine_destroy_after
        if row.quarantine_destroyed_at is not None or over is None or over > timezone.now():
            return
        gone = [
            {
                "object": row.quarantine_object,
                "key": _name_of(row.quarantine_sealed_key, context=quarantine.context(row)),
                "sha256": row.quarantine_sha256,
            }
        ]
        Intake.objects.filter(pk=row.pk).update(
            quarantine_destroyed_at=timezone.now(), quarantine_sealed_key=None
        )
        made = _recorded(row.version, "quarantine", gone, row.quarantine_bytes)
    finish(made)


def destroy_pictures(version: DatasetVersion, *, up_to_round: int | None = None) -> None:
    """Destroy the pictures, and the headers beside them, that nobody examines any more."""
    with transaction.atomic():
        items = ReviewItem.objects.select_for_update().filter(
            version=version, pictures_destroyed_at=None
        )
        if up_to_round is not None:
            items = items.filter(round__lte=up_to_round)
        shown = list(items.exclude(after_object=""))
        if not shown:
            return
        gone = [each for item in shown for each in _objects_of(item)]
        ReviewItem.objects.filter(pk__in=[item.pk for item in shown]).update(
            pictures_destroyed_at=timezone.now(), wrapped_key=None
        )
        made = _recorded(version, "pictures", gone, 0)
    finish(made)


def _objects_of(item: ReviewItem) -> list[dict[str, str]]:
    key = ""
    if item.wrapped_key is not None:
        context = f"review-item:{item.pk}"
        with contextlib.suppress(keys.WrongKey):
            opened = keys.unwrap(item.wrapped_key, by=keys.master("view"), context=context)
            key = keys.fingerprint(opened).hex()
    names = [item.before_object, item.after_object, item.header_object]
    names += [name for pair in item.frames.values() for name in pair]
    return [{"object": name, "key": key, "sha256": ""} for name in names if name]


def _name_of(sealed: bytes | memoryview | None, *, context: str) -> str:
    """Return what names a sealed key; empty for one that opens nothing: it is destroyed too."""
    try:
        return keys.fingerprint(dropbox.unseal(sealed or b"", context=context)).hex()
    except (InvalidTag, ValueError):
        return ""


def _recorded(
    version: DatasetVersion, what: str, gone: list[dict[str, str]], size: int
) -> Destruction:
    made = Destruction.objects.create(
        version=version, what=what, count=len(gone), bytes=size, objects_gone=gone
    )
    record(f"{what}.destroy", by=None, about=version, details={"objects": len(gone)})
    return made


def finish(made: Destruction) -> None:
    """Remove the objects whose key is gone, see that nothing is left, and sign the certificate."""
    for each in made.objects_gone:
        blobs.delete(each["object"])
    _forget()
    hint("ingest.certify", made.pk)


def _forget() -> None:
    """Have the database write over what it deleted, as far as it offers that.

    SQLite overwrites deleted values at once (``secure_delete``) but keeps old pages in its log
    until a checkpoint; PostgreSQL keeps old rows until they are vacuumed.
    """
    if connection.in_atomic_block:
        return
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        elif connection.vendor == "postgresql":
            for model in (Intake, ReviewItem):
                cursor.execute(f'VACUUM "{model._meta.db_table}"')


def certify(made: Destruction) -> bool:
    """Sign the certificate of a destruction once nothing of it is left; True when it is signed.

    A record from before certificates names no objects, and so does its certificate.
    """
    if made.certificate:
        return True
    version = made.version
    if _keys_left(made) or any(blobs.exists(name) for name in _names(made.objects_gone)):
        return False
    signed = sign_destruction(
        Certificate(
            dataset=version.dataset.slug,
            version=version.number,
            what=made.what,
            count=made.count,
            bytes=made.bytes,
            at=made.at.isoformat(timespec="seconds"),
            certified=timezone.now().isoformat(timespec="seconds"),
            objects=tuple(made.objects_gone),
        ),
        keys.signing_key("release"),
    )
    with transaction.atomic():
        rows = Destruction.objects.filter(pk=made.pk, certificate="")
        if rows.update(certificate=signed.decode()) == 1:
            record(
                "destruction.certify",
                by=None,
                about=version,
                details={"what": made.what, "objects": made.count},
            )
    return True


def _names(gone: Iterable[Any]) -> list[str]:
    return [str(each["object"]) for each in gone]


def _keys_left(made: Destruction) -> bool:
    """Whether a wrapped key of what was destroyed is in the database still."""
    intake = Intake.objects.filter(version=made.version)
    names = _names(made.objects_gone)
    if made.what == "originals":
        return intake.filter(object_name__in=names).exclude(sealed_key=None).exists()
    if made.what == "quarantine":
        rows = intake.filter(quarantine_object__in=names)
        return rows.exclude(quarantine_sealed_key=None).exists()
    rows_of = ReviewItem.objects.filter(version=made.version, after_object__in=names)
    return rows_of.exclude(wrapped_key=None).exists()


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
