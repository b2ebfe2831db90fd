"""Reads around originals: the report, the open sample, the pictures."""

from __future__ import annotations

from typing import Any, BinaryIO

from django.db import transaction
from django.db.models import QuerySet

from policies import quality
from policies.errors import Denied, Invalid, _
from portal import blobs, keys
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.audit.record import record
from portal.catalog.models import DatasetVersion
from portal.ingest.models import Intake, ReportRow, ReviewItem
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


def open_picture(*, by: Person, item: ReviewItem, side: str) -> BinaryIO:
    """Return a before or after picture as PNG and record that it was looked at."""
    check_officer(by, item.version)
    if side not in ("before", "after"):
        raise Invalid(_("A picture is: before, after."), field="side", code="qa.side")
    if item.wrapped_key is None:
        reason = item.unseen or "it is being prepared, or was destroyed after its time"
        raise Invalid(_("There is no picture: {reason}."), code="qa.no-picture", reason=reason)
    key = keys.unwrap(item.wrapped_key, by=keys.master("view"), context=f"review-item:{item.pk}")
    with transaction.atomic():
        record(
            "qa.view",
            by=by,
            about=item.version,
            details={"item": item.position, "round": item.round, "side": side},
        )
    return blobs.open(item.before_object if side == "before" else item.after_object, key=key)


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
    }
