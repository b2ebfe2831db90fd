"""Background work on originals; each task takes the intake's lease and does what the state asks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from policies.errors import _
from portal import workplace
from portal.audit.record import record
from portal.catalog.actions import move
from portal.catalog.models import DatasetVersion
from portal.catalog.queries import policy_of
from portal.ingest import mending, pipeline, retention
from portal.ingest.models import Destruction, Intake, ReviewItem, Shard
from portal.leases import Lease, free, hold
from portal.tasking import RETRY, hint, task

LEASE_SECONDS = 60


def _failed(version_id: int, *, reason: str) -> None:
    """Send a version back to its steward; nothing was published, a retry may complete it."""
    with transaction.atomic():
        version = DatasetVersion.objects.select_for_update().get(pk=version_id)
        if version.state != "ingesting":
            return
        move(version, "fail", "system", reason=reason[:300])
        record("version.failed", by=None, about=version, details={"reason": reason[:300]})


@task("ingest.run", on_failure=_failed)
def run(version_id: int) -> None:
    """De-identify a version's originals."""
    rows = Intake.objects.filter(version__state="ingesting", version_id=version_id)
    intake = rows.select_related("version__dataset").first()
    if intake is None:
        return
    with hold(rows, intake.pk, seconds=LEASE_SECONDS) as lease:
        if lease is None:
            return
        DatasetVersion.objects.filter(pk=version_id).update(reason=_("de-identifying"))
        with _only_while_held(lease):
            try:
                pipeline.de_identify(intake, lease)
            except RETRY:
                raise
            except Exception:
                # The steward may send other originals next, and a full disk needs the room: a
                # retry begins anew.
                _check(lease)
                workplace.remove(pipeline.folder_of(version_id, "ingest"))
                raise


def _shard_failed(shard_id: int, *, reason: str) -> None:
    for version_id in Shard.objects.filter(pk=shard_id).values_list(
        "intake__version_id", flat=True
    ):
        _failed(version_id, reason=reason)


@task("ingest.shard", on_failure=_shard_failed)
def shard(shard_id: int) -> None:
    """De-identify one part of a large batch."""
    rows = Shard.objects.filter(done_at=None, intake__version__state="ingesting")
    part = rows.select_related("intake__version__dataset").filter(pk=shard_id).first()
    if part is None:
        return
    with hold(Shard.objects.filter(done_at=None), part.pk, seconds=LEASE_SECONDS) as lease:
        if lease is None:
            return
        with _only_while_held(lease):
            try:
                pipeline.de_identify_shard(part, lease)
            except RETRY:
                raise
            except Exception:
                _check(lease)
                workplace.remove(pipeline.folder_of(shard_id, "shard"))
                raise


def _check(lease: Lease) -> None:
    with transaction.atomic():
        lease.check()


@contextlib.contextmanager
def _only_while_held(lease: Lease) -> Iterator[None]:
    """Turn an error of a worker that has lost its lease into LeaseLost.

    Its successor works on the row; what failed here (a cancelled program, a folder that is gone)
    must not send the version back under its hands.
    """
    try:
        yield
    except RETRY:
        raise
    except Exception:
        _check(lease)
        raise


def _stuck(version_id: int, *, reason: str) -> None:
    """Say why pictures or boxes are not ready; beat tries again."""
    DatasetVersion.objects.filter(pk=version_id, state__in=("de_identified", "in_qa")).update(
        reason=reason[:300]
    )


@task("ingest.pictures", on_failure=_stuck)
def pictures(version_id: int) -> None:
    """Render the pictures of the open round that are missing."""
    rows = Intake.objects.filter(version__state="in_qa", version_id=version_id)
    intake = rows.select_related("version__dataset").first()
    if intake is None or not _undrawn(version_id):
        return
    with hold(rows, intake.pk, seconds=LEASE_SECONDS) as lease:
        if lease is not None:
            with _only_while_held(lease):
                while _undrawn(version_id):
                    pipeline.draw_pictures(intake, lease)


def _undrawn(version_id: int) -> bool:
    return pipeline.undrawn(ReviewItem.objects.filter(version_id=version_id)).exists()


@task("ingest.apply_boxes", on_failure=_stuck)
def apply_boxes(version_id: int) -> None:
    """Mask what the officer marked."""
    rows = Intake.objects.filter(
        pending_boxes=True, version__state="de_identified", version_id=version_id
    )
    intake = rows.select_related("version__dataset").first()
    if intake is None:
        return
    with hold(rows, intake.pk, seconds=LEASE_SECONDS) as lease:
        if lease is not None:
            with _only_while_held(lease):
                mending.apply_boxes(intake, lease)


@task("ingest.destroy", queue="short")
def destroy(version_id: int) -> None:
    """Destroy originals, quarantine and pictures whose time is over."""
    version = DatasetVersion.objects.get(pk=version_id)
    intake = Intake.objects.get(version=version)
    if intake.destroyed_at is None and intake.destroy_after <= timezone.now():
        retention.destroy_originals(intake)
    retention.destroy_quarantine(intake)
    closed = closed_round(version)
    if closed is not None:
        retention.destroy_pictures(version, up_to_round=closed)


def closed_round(version: DatasetVersion) -> int | None:
    """Return the newest round whose signature is older than the pictures' retention."""
    days = policy_of(version.dataset).deid.pictures_days
    old = version.signatures.filter(at__lte=timezone.now() - timedelta(days=days), standing=True)
    if version.state in ("in_qa", "de_identified"):
        old = old.filter(passed=False)  # a first of two signatures closes nothing
    newest = old.order_by("-round").first()
    return newest.round if newest else None


@task("ingest.certify", queue="short")
def certify(destruction_id: int) -> None:
    """Sign the certificate of a destruction, after removing what a killed worker left."""
    made = Destruction.objects.select_related("version__dataset").get(pk=destruction_id)
    if not retention.certify(made):
        retention.finish(made)


@task("ingest.sweep", queue="short")
def sweep(_nothing: int = 0) -> None:
    """Remove the plaintext that killed workers left."""
    retention.sweep()


def due() -> None:
    """Hint whatever waits: versions being ingested, pictures, boxes, ends of retention."""
    for pk in DatasetVersion.objects.filter(state="ingesting").values_list("pk", flat=True):
        hint("ingest.run", pk)
    parts = Shard.objects.filter(free(), done_at=None, intake__version__state="ingesting")
    for pk in parts.values_list("pk", flat=True):
        hint("ingest.shard", pk)
    waiting = ReviewItem.objects.filter(
        version__state="in_qa", after_object="", unseen="", finding=""
    )
    for pk in waiting.values_list("version_id", flat=True).distinct():
        hint("ingest.pictures", pk)
    boxes = Intake.objects.filter(pending_boxes=True, version__state="de_identified")
    for pk in boxes.values_list("version_id", flat=True):
        hint("ingest.apply_boxes", pk)
    now = timezone.now()
    over = Intake.objects.filter(
        Q(destroyed_at=None, destroy_after__lte=now)
        | Q(quarantine_destroyed_at=None, quarantine_destroy_after__lte=now)
    )
    for pk in over.values_list("version_id", flat=True):
        hint("ingest.destroy", pk)
    shown = ReviewItem.objects.filter(pictures_destroyed_at=None).exclude(after_object="")
    for version in DatasetVersion.objects.filter(
        pk__in=shown.values("version_id"), signatures__isnull=False
    ).distinct():
        closed = closed_round(version)
        if closed is not None and shown.filter(version=version, round__lte=closed).exists():
            hint("ingest.destroy", version.pk)
    for pk in Destruction.objects.filter(certificate="").values_list("pk", flat=True):
        hint("ingest.certify", pk)
    hint("ingest.sweep", 0)
