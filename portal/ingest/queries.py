"""Reads around originals: the report, the open sample, the pictures."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from policies import quality
from policies.errors import Conflict, Denied, Invalid, _
from portal import blobs, keys
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.audit.record import record
from portal.catalog.models import DatasetVersion
from portal.ingest.models import Destruction, Intake, ReportRow, ReviewItem
from portal.ingest.sampling import current_round


def report_for(person: Person, version: DatasetVersion) -> QuerySet[ReportRow]:
    """Return the report's rows for the steward, security officers and auditors."""
    if person.pk != version.dataset.steward_id and not roles_of(person) & {"officer", "auditor"}:
        raise Denied(
            _("The report is for the steward, security officers and auditors."),
            code="report.readers",
        )
    return ReportRow.objects.filter(intake__version=version).order_by("position")


def sample_for(person: Person, version: DatasetVersion) -> QuerySet[ReviewItem]:
    """Return the open round's items for a security officer who may judge them."""
    check_officer(person, version)
    return current_round(version)


def check_officer(person: Person, version: DatasetVersion) -> None:
    """Raise Denied unless the person may judge this version."""
    uploader = Intake.objects.filter(version=version).values_list("uploaded_by", flat=True).first()
    quality.check_can_examine(
        person=str(person.pk),
        roles=roles_of(person),
        steward=str(version.dataset.steward_id),
        uploader=str(uploader),
    )


def open_picture(*, by: Person, item: ReviewItem, side: str, frame: int = 0) -> BinaryIO:
    """Return a before or after picture as PNG and record that it was looked at.

    ``frame`` counts from 1; 0 is the picture of the whole file, of several frames the brightest.
    """
    check_officer(by, item.version)
    if side not in ("before", "after"):
        raise Invalid(_("A picture is: before, after."), field="side", code="qa.side")
    name = item.before_object if side == "before" else item.after_object
    if frame:
        pair = item.frames.get(str(frame))
        if pair is None:
            raise Invalid(
                _("There is no picture of this frame."), field="frame", code="qa.no-frame"
            )
        name = pair[side == "after"]
    key = _key_of(by, item)
    with transaction.atomic():
        record(
            "qa.view",
            by=by,
            about=item.version,
            details={
                "item": item.position,
                "round": item.round,
                "side": side,
                **({"frame": frame} if frame else {}),
            },
        )
    return blobs.open(name, key=key)


def open_header(*, by: Person, item: ReviewItem) -> list[dict[str, str]]:
    """Return what the header said before and says now, and record that it was read.

    The values before are the original's: they lie encrypted beside the pictures, are shown to the
    officer who has the file in hand, and end with the pictures.
    """
    check_officer(by, item.version)
    if not item.header_object:
        return []
    key = _key_of(by, item)
    with transaction.atomic():
        details = {"item": item.position, "round": item.round, "side": "header"}
        record("qa.view", by=by, about=item.version, details=details)
    found: list[dict[str, str]] = json.loads(blobs.read(item.header_object, key=key))
    return found


def _key_of(by: Person, item: ReviewItem) -> bytes:
    """Return the key of a file's pictures, for the officer whose turn it is."""
    if item.wrapped_key is None:
        reason = item.unseen or "it is being prepared, or was destroyed after its time"
        raise Invalid(_("There is no picture: {reason}."), code="qa.no-picture", reason=reason)
    another = item.lease_owner not in ("", f"person:{by.pk}")
    if another and item.lease_until is not None and item.lease_until > timezone.now():
        raise Conflict(
            _("Another officer is looking at this file now; take the next one."), code="qa.taken"
        )
    return keys.unwrap(item.wrapped_key, by=keys.master("view"), context=f"review-item:{item.pk}")


def certificate_of(person: Person, version: DatasetVersion, pk: int) -> Destruction:
    """Return a destruction of the version, for the report's readers; DoesNotExist for another's."""
    report_for(person, version)  # the same readers
    return Destruction.objects.get(version=version, pk=pk)


def progress(version: DatasetVersion) -> dict[str, Any]:
    """Return how far the de-identification of a version is."""
    intake = Intake.objects.filter(version=version).first()
    if intake is None:
        return {"received": False, "done": 0, "total": 0, "counts": {}}
    return {
        "received": True,
        "bytes": intake.bytes,
        "sha256": intake.sha256,
        "done": intake.done,
        "total": intake.total,
        "counts": intake.counts,
        "destroy_after": intake.destroy_after,
        "destroyed_at": intake.destroyed_at,
        "quarantine_count": intake.quarantine_count,
        "quarantine_destroy_after": intake.quarantine_destroy_after,
        "quarantine_destroyed_at": intake.quarantine_destroyed_at,
    }
