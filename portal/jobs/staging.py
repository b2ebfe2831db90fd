"""The plain copy of a version on one machine: made once, shared, removed with its last user.

Where the dataset's policy says so, a copy stays warm for a while after its last job, as long as
its room is not needed. One with the sealed split never does.

Rows say who uses a copy; the lease on a copy's row says who makes or removes it now. A worker
killed in between leaves a lease that runs out and a copy that is not ready: whoever takes the
lease next makes it anew or removes it.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from django.db import transaction
from django.utils import timezone

from policies.errors import CannotRun
from portal import leases, workplace
from portal.blobs import Damaged
from portal.catalog.contents import Contents, Withdrawn, dataset_manifest, has_withdrawn
from portal.jobs import admission
from portal.jobs.models import Job, Node, StagedCopy, StagedUse
from portal.jobs.transitions import LIVE
from portal.leases import Lease
from portal.tasking import TryAgain
from sandbox_runner import cancelling, plain_place
from sandbox_runner.spec import ManifestEntry
from sandbox_runner.stage import DataFault, NoRoom, stage, staged, unstage

LEASE_SECONDS = 60
# The data cannot be had as their manifest says: changed, or a subject has withdrawn.
DATA_FAULTS = (DataFault, Withdrawn, Damaged)


class TooLarge(CannotRun):
    """The version is larger than the whole place for plain data: waiting would not help."""


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
    worker makes the same copy or there is no room, Cancelled when ``cancel`` is set meanwhile,
    TooLarge where there never is room, CannotRun where the place is not one for plain data, and one
    of ``DATA_FAULTS`` for damaged data.
    """
    with transaction.atomic():
        lease.check()
        created, _made = StagedCopy.objects.get_or_create(
            version_id=job.version_id, node=node, sealed=sealed
        )
        # Locked, so that nobody who removes copies misses this use, nor we their removal.
        copy = StagedCopy.objects.select_for_update(of=("self",)).get(pk=created.pk)
        StagedUse.objects.get_or_create(copy=copy, job=job)
        StagedCopy.objects.filter(pk=copy.pk).update(idle_since=None)
    if has_withdrawn(job.version):
        raise Withdrawn("a subject has withdrawn from this version")
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
        _make(copy, node, cancel)
        with transaction.atomic():
            mine.check()
            StagedCopy.objects.filter(pk=copy.pk).update(ready=True)
    return target


def _make(copy: StagedCopy, node: Node, cancel: threading.Event | None) -> None:
    policy = admission.machine_policy(copy.version.dataset)
    fault = plain_place.weakness(workplace.root())
    if fault and policy.deployment.plain_place != "any":
        raise CannotRun(
            "The work folder is no place for plain data: {fault}. Turn swap off or encrypt it, or "
            "let GLOVEBOX_WORK name a folder on an encrypted disk.",
            code="sandbox.plain-place",
            fault=fault,
        )
    manifest = dataset_manifest(copy.version)
    # An inspection reads every file once, by path; shards are for training.
    packing = None if copy.sealed else policy.staging

    while True:
        contents = Contents(copy.version).for_all()
        _folder(copy).mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            stage(
                manifest,
                functools.partial(_opened, contents, cancel),
                _directory(copy),
                sealed=copy.sealed,
                policy=packing,
                read_many=functools.partial(_read_many, contents, cancel),
            )
        except NoRoom as error:
            _clear(copy)
            if not _remove_oldest_idle(node):
                raise _wait_or_give_up(error) from None
        except FileNotFoundError as error:
            _clear(copy)
            if contents.moved():
                continue  # small files were packed meanwhile: the rows now name the packs
            raise DataFault("an object of the version is not in the store") from error
        except BaseException:
            _clear(copy)
            raise
        else:
            return


def _opened(contents: Contents, cancel: threading.Event | None, entry: ManifestEntry) -> BinaryIO:
    cancelling.check(cancel)
    return cancelling.stream(contents.open(entry), cancel)


def _read_many(
    contents: Contents, cancel: threading.Event | None, entries: Sequence[ManifestEntry]
) -> Iterator[bytes]:
    cancelling.check(cancel)
    return contents.read_many(entries)


def _wait_or_give_up(error: NoRoom) -> Exception:
    room = os.statvfs(workplace.root())
    if error.needed > room.f_blocks * room.f_frsize:
        return TooLarge(str(error), code="stage.room", field="data")
    if not error.needed:
        return TryAgain("the place for plain data became full")
    return TryAgain(
        "there is no room for the data", waiting="room", wanted=error.needed, free=error.free
    )


def leave(job: Job, *, sealed: bool | None = None) -> None:
    """End a job's use of staged copies (None: of all) and remove those that nobody uses."""
    uses = StagedUse.objects.filter(job=job)
    if sealed is not None:
        uses = uses.filter(copy__sealed=sealed)
    copies = list(uses.values_list("copy_id", flat=True))
    uses.delete()
    for pk in copies:
        idle = StagedCopy.objects.filter(pk=pk, uses=None, idle_since=None)
        idle.update(idle_since=timezone.now())
        remove_unused(pk)


def _is_warm(copy: StagedCopy) -> bool:
    """Whether an unused copy stays for the next job."""
    if copy.sealed or not copy.ready or copy.idle_since is None:
        return False
    if copy.version.state != "published" or has_withdrawn(copy.version):
        return False
    policy = admission.machine_policy(copy.version.dataset)
    seconds = min(policy.deployment.warm, policy.staging.warm)
    return timezone.now() < copy.idle_since + timedelta(seconds=seconds)


def _remove_oldest_idle(node: Node) -> bool:
    """Make room by a copy that was only kept warm; False where there is none."""
    idle = StagedCopy.objects.filter(node=node, uses=None, ready=True).order_by("idle_since")
    return any(remove_unused(pk, warm=True) for pk in idle.values_list("pk", flat=True))


def remove_unused(copy_id: int, *, warm: bool = False) -> bool:
    """Remove a copy of this machine's if no job uses it; False where it is used or held.

    One that the policy keeps warm stays, unless ``warm`` ones are to go.
    """
    with leases.hold(StagedCopy.objects.filter(uses=None), copy_id, seconds=LEASE_SECONDS) as mine:
        if mine is None:
            return False
        with transaction.atomic():
            mine.check()
            # A job that came meanwhile finds the copy not ready and makes it anew, after us.
            if StagedUse.objects.filter(copy_id=copy_id).exists():
                return False
            copy = StagedCopy.objects.select_related("version__dataset").get(pk=copy_id)
            if _is_warm(copy) and not warm:
                return False
            StagedCopy.objects.filter(pk=copy_id).update(ready=False, idle_since=None)
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
