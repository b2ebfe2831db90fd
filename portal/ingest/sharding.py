"""A large batch in parts: who may work on which, and their results, put together again.

Workers share the database and the object store and nothing else. A part's result is one object
under the version's key; it appears whole, and under the same name whoever makes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from portal import blobs
from portal.catalog.contents import ensure_version_key
from portal.ingest import room
from portal.ingest.models import Intake, Shard
from portal.leases import Lease
from portal.tasking import hint

REPORT = "report.jsonl"
MOST = 10_000


def inputs_a_shard() -> int:
    """Return how many originals one shard is made for."""
    return max(1, int(os.environ.get("GLOVEBOX_SHARD_INPUTS", "5000")))


def basis_of(intake: Intake, rules: str) -> str:
    """Return what a shard's result belongs to: these originals under this profile."""
    return hashlib.sha256(f"{intake.object_name}\n{rules}".encode()).hexdigest()


def are_open(intake: Intake) -> bool:
    """Whether parts are still to be made; each is hinted."""
    waiting = list(intake.shards.filter(done_at=None).values_list("pk", flat=True))
    for pk in waiting:
        hint("ingest.shard", pk)
    return bool(waiting)


def cut(intake: Intake, lease: Lease, *, inputs: int, basis: str) -> bool:
    """Cut a batch into shards where it is large; return whether all that there are were made.

    Where shards are to be made first, the lease's holder has nothing to do until then.
    """
    if intake.shards.exclude(basis=basis).exists():
        drop(intake)
    if intake.shards.exists():
        return not are_open(intake)
    count = min(MOST, -(-inputs // inputs_a_shard()))
    if count < 2:
        return True
    with transaction.atomic():
        lease.check()
        Shard.objects.bulk_create(
            Shard(intake=intake, number=number, count=count, basis=basis)
            for number in range(1, count + 1)
        )
        are_open(intake)
    return False


def keep(shard: Shard, lease: Lease, written: Path, packed: Path) -> None:
    """Store what the sealed program made of a shard, and say that it is done."""
    key = ensure_version_key(shard.intake.version)
    rows = pack(written, packed)
    name = blobs.object_name(key, "shard", shard.basis, shard.number)
    with packed.open("rb") as stream:
        blobs.put(stream, key=key, name=name)
    with transaction.atomic():
        lease.check()
        Shard.objects.filter(pk=shard.pk).update(
            done_at=timezone.now(), done=rows, object_name=name
        )
        show(shard.intake_id)
        if not shard.intake.shards.filter(done_at=None).exists():
            hint("ingest.run", shard.intake.version_id)


def show(intake_id: int) -> None:
    """Write the number of finished inputs of all shards to the intake's row."""
    done = Shard.objects.filter(intake_id=intake_id).aggregate(done=Sum("done"))["done"] or 0
    Intake.objects.filter(pk=intake_id).update(done=done)


def pack(written: Path, packed: Path) -> int:
    """Put a shard's rows and the files that they name into a zip; return the number of rows.

    Raises room.BadResult for a file that is not what its row says.
    """
    lines: list[bytes] = []
    with zipfile.ZipFile(packed, "w") as archive, blobs.names_full_disk("work folder"):
        for row in room.report(written, REPORT):
            lines.append(json.dumps(row).encode() + b"\n")
            if row["status"] not in room.KEPT or row["reason"] == "duplicate":
                continue
            digest = hashlib.sha256()
            with (
                room.opened(written, f"published/{row['target']}") as source,
                archive.open(f"published/{row['target']}", "w", force_zip64=True) as out,
            ):
                while chunk := source.read(1 << 20):
                    digest.update(chunk)
                    out.write(chunk)
            if digest.hexdigest() != row["digest"]:
                raise room.BadResult("a published file is not what its report row says")
        archive.writestr(REPORT, b"".join(lines))
    return len(lines)


def gather(intake: Intake, written: Path) -> None:
    """Lay the results of all shards where a run that resumes will find them."""
    key = ensure_version_key(intake.version)
    report = written / REPORT
    with blobs.names_full_disk("work folder"), report.open("wb") as rows:
        for shard in intake.shards.all():
            with blobs.open(shard.object_name, key=key) as stream, zipfile.ZipFile(stream) as parts:
                rows.write(parts.read(REPORT))
                for member in parts.infolist():
                    if member.filename == REPORT:
                        continue
                    target = written / member.filename
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with parts.open(member) as source, target.open("wb") as out:
                        shutil.copyfileobj(source, out, 1 << 20)


def drop(intake: Intake) -> None:
    """Remove an intake's shards and their objects."""
    names = list(intake.shards.exclude(object_name="").values_list("object_name", flat=True))
    intake.shards.all().delete()
    for name in names:
        blobs.delete(name)
