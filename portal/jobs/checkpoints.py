"""What a grant's jobs keep inside for each other: encrypted, counted, and never an artefact.

The key is wrapped by the data master key, so that no web process can open one (decision 19).
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, cast

from django.db import transaction
from django.db.models import Q, Sum
from django.utils import timezone
from django.utils.translation import gettext, gettext_noop

from policies.document import Policy
from policies.errors import Denied, Invalid, _
from policies.ledger import CHECKPOINT_BITS
from policies.submission import CHECKPOINT_FOLDER
from portal import blobs, keys
from portal.access.models import Grant
from portal.access.refusals import refusals_recorded
from portal.accounts.models import Person
from portal.audit.record import record
from portal.catalog.queries import policy_of
from portal.jobs import ledger
from portal.jobs.models import Checkpoint, Job, LedgerEntry

# What the applicant reads of it.
WORDS: Mapping[str, str] = {
    "kept": gettext_noop("Its checkpoint is kept for later jobs of this grant."),
    "large": gettext_noop("Its checkpoint was not kept: it is larger than the policy allows."),
    "full": gettext_noop("Its checkpoint was not kept: this grant's room is used up. Remove one."),
    "none": gettext_noop("It left no checkpoint."),
    "removed": gettext_noop("Its checkpoint was removed."),
}


@dataclass(frozen=True)
class Packed:
    """A checkpoint that is stored and that no row names yet; ``state`` is a word of WORDS."""

    state: str
    size: int = 0
    object_name: str = ""
    wrapped_key: bytes = b""


def in_words(state: str) -> str:
    """Return the sentence for what became of a checkpoint, "" where none was asked for."""
    return gettext(WORDS[state]) if state in WORDS else ""


def _context(grant_id: int, job_id: int) -> str:
    return f"checkpoint:grant:{grant_id}:job:{job_id}"


def check_source(grant: Grant, source: int) -> None:
    """Raise Invalid unless this grant has the checkpoint of that job; another's does not exist."""
    if source and not Checkpoint.objects.filter(grant=grant, job=source).exists():
        raise Invalid(
            _("Under this grant no checkpoint of job {number} is kept."),
            field="checkpoint.from",
            code="checkpoint.missing",
            number=source,
        )


def pack(job: Job, raw: Path, policy: Policy) -> Packed:
    """Encrypt what a job left in its checkpoint's folder; ``raw`` holds plain files only.

    Done again it makes another object; only the one that a row names is ever opened.
    """
    folder = raw / CHECKPOINT_FOLDER
    limits = policy.submission.checkpoint
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not files:
        return Packed("none")
    if sum(path.stat().st_size for path in files) > limits.bytes or len(files) > limits.files:
        return Packed("large")
    # Beside the plain files, which lie in memory.
    with tempfile.TemporaryFile(dir=raw.parent) as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in files:
                member = tarfile.TarInfo(path.relative_to(folder).as_posix())
                member.size = path.stat().st_size
                with path.open("rb") as content:
                    archive.addfile(member, content)
        size = stream.seek(0, 2)
        stream.seek(0)
        key = keys.new_key()
        context = _context(job.grant_id, job.pk)
        name = blobs.object_name(key, context)
        blobs.put(cast(BinaryIO, stream), key=key, name=name)
    return Packed("kept", size, name, keys.wrap(key, by=keys.master("data"), context=context))


def note(job: Job, packed: Packed, policy: Policy) -> str:
    """Make the row of a packed checkpoint, if the grant has room; return what became of it.

    Inside the caller's transaction. What is told of it is charged first: what the budget has no
    room for is neither kept nor told ("").
    """
    if not ledger.charge(job, LedgerEntry.Kind.FIGURE, policy, bits=CHECKPOINT_BITS):
        _forget(packed)
        return ""
    if packed.state != "kept":
        return packed.state
    # The lock: two jobs that end at once must not both take the last bytes.
    Grant.objects.select_for_update().get(pk=job.grant_id)
    kept = Checkpoint.objects.filter(grant=job.grant_id).aggregate(total=Sum("bytes"))["total"]
    if (kept or 0) + packed.size > policy.submission.checkpoint.grant_bytes:
        _forget(packed)
        return "full"
    Checkpoint.objects.create(
        job=job,
        grant_id=job.grant_id,
        bytes=packed.size,
        object_name=packed.object_name,
        wrapped_key=packed.wrapped_key,
    )
    record("checkpoint.keep", by=None, about=job, details={"bytes": packed.size})
    return "kept"


def _forget(packed: Packed) -> None:
    if packed.object_name:
        transaction.on_commit(lambda: blobs.delete(packed.object_name))


def unpack(job: Job, source: int, target: Path) -> Path:
    """Decrypt the checkpoint of an earlier job of the same grant into ``target``, read-only.

    Raises Invalid where it is not kept (any more).
    """
    check_source(job.grant, source)
    row = Checkpoint.objects.get(grant=job.grant_id, job=source)
    context = _context(row.grant_id, row.job_id)
    key = keys.unwrap(row.wrapped_key, by=keys.master("data"), context=context)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o755)
    with (
        blobs.open(row.object_name, key=key) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        archive.extractall(target, filter="data")
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o444)
    return target


@transaction.atomic
def remove(row: Checkpoint, *, by: Person | None, why: str) -> None:
    """Remove a checkpoint for good: its key goes with its row."""
    record("checkpoint.remove", by=by, about=row.job, details={"why": why, "bytes": row.bytes})
    Job.objects.filter(pk=row.job_id, checkpoint_state="kept").update(checkpoint_state="removed")
    name = row.object_name
    Checkpoint.objects.filter(pk=row.pk).delete()
    transaction.on_commit(lambda: blobs.delete(name))


def remove_by(*, by: Person, job: Job) -> None:
    """Remove a job's checkpoint: the grant's analysts and its holder. Raises Denied (recorded)."""
    with refusals_recorded("checkpoint.remove", by=by, about=job):
        insider = job.grant.holder_id == by.pk or job.grant.analysts.filter(pk=by.pk).exists()
        if not insider:
            raise Denied(
                _("Only who works under this grant may remove its checkpoints."),
                code="checkpoint.remove",
            )
    row = Checkpoint.objects.select_related("job").filter(job=job).first()
    if row is not None:
        remove(row, by=by, why="asked")


def sweep() -> int:
    """Remove the checkpoints of grants that have ended, and those that are too old."""
    now = timezone.now()
    ended = Q(grant__state__in=("expired", "revoked")) | Q(grant__ends_at__lte=now)
    gone = 0
    rows = Checkpoint.objects.select_related("job", "grant__version__dataset")
    for row in rows.filter(ended):
        remove(row, by=None, why="grant")
        gone += 1
    for row in rows.all():
        days = policy_of(row.grant.version.dataset).submission.checkpoint.days
        if row.created_at <= now - timedelta(days=days):
            remove(row, by=None, why="age")
            gone += 1
    return gone
