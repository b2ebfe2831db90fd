"""The plain copy of a version on one machine: made once, shared, removed with its last user.

Rows say who uses a copy; the lease on a copy's row says who makes or removes it now. A worker
killed in between leaves a lease that runs out and a copy that is not ready: whoever takes the
lease next makes it anew or removes it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import BinaryIO

from django.db import transaction

from portal import leases, workplace
from portal.blobs import Damaged
from portal.catalog.contents import Contents, Withdrawn, dataset_manifest
from portal.jobs.models import Job, Node, StagedCopy, StagedUse
from portal.jobs.transitions import LIVE
from portal.leases import Lease
from portal.tasking import TryAgain
from sandbox_runner import cancelling
from sandbox_runner.spec import ManifestEntry
from sandbox_runner.stage import DataFault, stage, staged, unstage

LEASE_SECONDS = 60
# The data cannot be had as their manifest says: changed, or a subject has withdrawn.
DATA_FAULTS = (DataFault, Withdrawn, Damaged)


def _folder(copy: StagedCopy) -> Path:
    return workplace.root() / f"staged-{copy.pk}"


def _directory(copy: StagedCopy) -> Path:
    """The dataset's directory; the folder around it belongs to this copy alone."""
    return _folder(copy) / copy.version.dataset.slug


def use(
    job: Job, node: Node, *, sealed: bool, lease: Lease, cancel: threading.Event | None = None
) -> Path:
    """Return the staged directory of the job's version, made if it is not there.

    The job is counted as a user from before the copy is made until :func:`leave`. ``sealed``
    adds the sealed split: for inspection, never for training. Raises TryAgain while another
    worker makes the same copy, Cancelled when ``cancel`` is set meanwhile, and whatever ``stage``
    raises for damaged data.
    """
    with transaction.atomic():
        lease.check()
        copy, _created = StagedCopy.objects.get_or_create(
            version_id=job.version_id, node=node, sealed=sealed
        )
        StagedUse.objects.get_or_create(copy=copy, job=job)
    target = _directory(copy)
    if copy.ready and staged(target) is not None:
        return target
    with leases.hold(StagedCopy, copy.pk, seconds=LEASE_SECONDS) as mine:
        if mine is None:
            raise TryAgain("another worker stages this version now")
        copy.refresh_from_db()
        if copy.ready and staged(target) is not None:
            return target
        StagedCopy.objects.filter(pk=copy.pk).update(ready=False)
        _clear(copy)
        folder = _folder(copy)
        folder.mkdir(mode=0o700, parents=True)
        contents = Contents(job.version)

        def opened(entry: ManifestEntry) -> BinaryIO:
            cancelling.check(cancel)
            return cancelling.stream(contents.open(entry), cancel)

        stage(dataset_manifest(job.version), opened, target, sealed=sealed)
        with transaction.atomic():
            mine.check()
            StagedCopy.objects.filter(pk=copy.pk).update(ready=True)
    return target


def leave(job: Job, *, sealed: bool | None = None) -> None:
    """End a job's use of staged copies (None: of all) and remove those that nobody uses."""
    uses = StagedUse.objects.filter(job=job)
    if sealed is not None:
        uses = uses.filter(copy__sealed=sealed)
    copies = list(uses.values_list("copy_id", flat=True))
    uses.delete()
    for pk in copies:
        remove_unused(pk)


def remove_unused(copy_id: int) -> bool:
    """Remove a copy of this machine's if no job uses it; False where it is used or held."""
    with leases.hold(StagedCopy.objects.filter(uses=None), copy_id, seconds=LEASE_SECONDS) as mine:
        if mine is None:
            return False
        with transaction.atomic():
            mine.check()
            # A job that came meanwhile finds the copy not ready and makes it anew, after us.
            if StagedUse.objects.filter(copy_id=copy_id).exists():
                return False
            StagedCopy.objects.filter(pk=copy_id).update(ready=False)
        copy = StagedCopy.objects.select_related("version__dataset").get(pk=copy_id)
        _clear(copy)
        return True


def _clear(copy: StagedCopy) -> None:
    target = _directory(copy)
    if target.exists():
        unstage(target)
    workplace.remove(f"staged-{copy.pk}")


def sweep(node: Node) -> int:
    """Forget the uses of jobs that have ended, remove unused copies; return how many went."""
    StagedUse.objects.filter(copy__node=node).exclude(job__state__in=LIVE).delete()
    unused = StagedCopy.objects.filter(node=node, uses=None)
    gone = 0
    for pk in unused.values_list("pk", flat=True):
        copy = StagedCopy.objects.select_related("version__dataset").get(pk=pk)
        if copy.ready or _folder(copy).exists():
            gone += remove_unused(pk)
    return gone
