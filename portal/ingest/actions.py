"""Writes around originals: taking them in, starting the pipeline, examining, signing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, BinaryIO, cast

from django.db import transaction
from django.utils import timezone

from deid import review
from policies import quality
from policies.errors import Conflict, Invalid, _
from policies.workflow import DATASET_VERSION
from portal import blobs, dropbox, keys
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.audit.record import record
from portal.catalog.actions import move
from portal.catalog.models import DatasetVersion
from portal.catalog.queries import policy_of
from portal.ingest import handing_out, marks, sampling
from portal.ingest.models import Intake, ReviewItem, Signature
from portal.ingest.queries import check_officer
from portal.tasking import hint

MAXIMUM_ORIGINALS = 1 << 40  # bytes
FINDINGS = ("clean", "missed", "range", "wrong", "extra")


def take_in(
    *, by: Person, version: DatasetVersion, stream: BinaryIO, announced: int | None = None
) -> Intake:
    """Encrypt a zip of originals as it arrives, readable by workers only.

    Replaces an earlier upload while the version is a draft. ``announced`` is the length in bytes
    that the sender gave. Raises Denied, Conflict once de-identification has begun, Invalid for
    what is no zip or was cut off on its way, DiskFull naming the disk.
    """
    quality.check_can_offer(
        person=str(by.pk), roles=roles_of(by), steward=str(version.dataset.steward_id)
    )
    _check_draft(version)
    head = _first(stream, 4)
    if head != b"PK\x03\x04":
        raise Invalid(_("Send the originals as one zip file."), field="file", code="intake.zip")
    key = keys.new_key()
    name = blobs.object_name(key, "originals", version.pk)
    stored = blobs.put(
        cast(BinaryIO, _After(head, stream)), key=key, name=name, limit=MAXIMUM_ORIGINALS
    )
    try:
        if announced is not None and stored.bytes != announced:
            raise Invalid(
                _("The upload was cut off; send the file again."), field="file", code="intake.cut"
            )
        intake, former = _received(by, version, key, stored)
    except BaseException:
        blobs.delete(name)
        raise
    if former:
        blobs.delete(former)
    version.refresh_from_db()
    return intake


def _first(stream: BinaryIO, size: int) -> bytes:
    """Read exactly ``size`` bytes unless the stream ends: sockets give less at once."""
    data = b""
    while len(data) < size and (part := stream.read(size - len(data))):
        data += part
    return data


def _check_draft(version: DatasetVersion) -> None:
    if version.state != "draft":
        raise Conflict(
            _("This version has its originals already; open a new version."), code="intake.closed"
        )


@transaction.atomic
def _received(
    by: Person, version: DatasetVersion, key: bytes, stored: blobs.Stored
) -> tuple[Intake, str]:
    """Write the intake's row; return it with the name of the object that it replaces."""
    _check_draft(DatasetVersion.objects.select_for_update().get(pk=version.pk))
    former = Intake.objects.filter(version=version).values_list("object_name", flat=True).first()
    days = policy_of(version.dataset).deid.originals_days
    intake, _created = Intake.objects.update_or_create(
        version=version,
        defaults={
            "object_name": stored.name,
            "sealed_key": dropbox.seal(key, context=f"originals:{version.pk}"),
            "sha256": stored.sha256,
            "bytes": stored.bytes,
            "uploaded_by": by,
            "uploaded_at": timezone.now(),
            "destroy_after": timezone.now() + timedelta(days=days),
            "destroyed_at": None,
            "done": 0,
            "total": 0,
            "counts": {},
        },
    )
    # The report of a failed attempt speaks of files that are gone.
    intake.rows.all().delete()
    DatasetVersion.objects.filter(pk=version.pk).update(reason=_("originals received"))
    record(
        "originals.receive",
        by=by,
        about=version,
        details={"bytes": stored.bytes, "sha256": stored.sha256},
    )
    return intake, former or ""


class _After:
    """A stream with its first bytes, already read, put back in front."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self.head, self.rest = head, rest

    def read(self, size: int = -1) -> bytes:
        if self.head:
            part, self.head = self.head[:size], self.head[size:]
            return part
        return self.rest.read(size)


@transaction.atomic
def start(*, by: Person, version: DatasetVersion) -> DatasetVersion:
    """Start (or, after a failure, start again) the de-identification of a draft's originals."""
    quality.check_can_offer(
        person=str(by.pk), roles=roles_of(by), steward=str(version.dataset.steward_id)
    )
    intake = Intake.objects.filter(version=version, destroyed_at=None).first()
    if intake is None:
        raise Conflict(_("Upload the originals first."), code="intake.absent")
    move(version, "ingest", "steward", reason=_("waiting for a worker"))
    record("version.ingest", by=by, about=version)
    hint("ingest.run", version.pk)
    return version


@transaction.atomic
def start_examination(*, by: Person, version: DatasetVersion, seed: int) -> DatasetVersion:
    """Draw the random sample and open it to the security officer.

    ``seed`` comes from the system's randomness and is recorded, so that an auditor can draw the
    same sample again.
    """
    check_officer(by, version)
    _lock(version)
    DATASET_VERSION.next_state(version.state, "start_qa", "officer")
    intake = Intake.objects.get(version=version)
    if intake.pending_boxes:
        raise Conflict(
            _("The boxes of the last round are still being applied; try again in a minute."),
            code="qa.pending",
        )
    policy = policy_of(version.dataset).deid
    drawn = sampling.draw(intake, policy, seed)
    if not drawn:
        raise Conflict(_("There is no picture left to examine."), code="qa.nothing")
    move(version, "start_qa", "officer", reason=_("the pictures are being prepared"))
    last = ReviewItem.objects.filter(version=version).order_by("-round").first()
    number = last.round + 1 if last else 1
    ReviewItem.objects.bulk_create(
        ReviewItem(
            version=version, round=number, position=position, row=row, stratum=stratum, why=why
        )
        for position, (row, stratum, why) in enumerate(drawn, start=1)
    )
    record(
        "qa.start",
        by=by,
        about=version,
        details={"round": number, "seed": seed, "sampled": len(drawn), "mode": policy.examination},
    )
    hint("ingest.pictures", version.pk)
    return version


def _lock(version: DatasetVersion) -> None:
    """Read a version again and keep it from changing until the transaction ends."""
    DatasetVersion.objects.select_for_update().get(pk=version.pk)
    version.refresh_from_db()


@transaction.atomic
def record_finding(
    *,
    by: Person,
    item: ReviewItem,
    finding: str,
    boxes: Sequence[Mapping[str, Any]] = (),
    wrong: Sequence[Mapping[str, Any]] = (),
    note: str = "",
) -> ReviewItem:
    """Keep what the officer found on one file.

    ``boxes`` are what was missed, in image pixels; ``wrong`` are masked boxes that hide nothing.
    Raises Conflict while another officer has the file, and for one whose turn has run out where
    another has judged the file meanwhile.
    """
    version = item.version
    check_officer(by, version)
    _lock(version)
    item.refresh_from_db()
    newest = sampling.current_round(version).values_list("round", flat=True).first()
    if version.state != "in_qa" or item.round != newest:
        raise Conflict(_("This examination is closed."), code="qa.closed")
    _check_turn(by, item)
    if not item.after_object and not item.unseen:
        raise Conflict(
            _("The pictures of this file are not ready yet; try again in a minute."),
            code="qa.not-ready",
        )
    if item.pictures_destroyed_at is not None:
        raise Conflict(
            _("The pictures were destroyed after their time; nobody can judge this file now."),
            code="qa.destroyed",
        )
    if finding not in FINDINGS:
        raise Invalid(
            _("A finding is one of: clean, missed, range, wrong, extra."),
            field="finding",
            code="qa.finding",
        )
    drawn, not_needed = marks.checked_boxes(boxes, item), marks.checked_wrong(wrong, item)
    _check_fits(finding, bool(drawn), bool(not_needed), note)
    _void_signatures(item)
    item.finding, item.boxes, item.note = finding, drawn, note.strip()[:500]
    item.wrong_boxes = not_needed
    item.found_by, item.found_at = by, timezone.now()
    item.lease_owner, item.lease_until = "", None
    item.save(
        update_fields=[
            "finding",
            "boxes",
            "wrong_boxes",
            "note",
            "found_by",
            "found_at",
            "lease_owner",
            "lease_until",
        ]
    )
    record(
        "qa.finding",
        by=by,
        about=version,
        details={
            "item": item.position,
            "round": item.round,
            "finding": finding,
            "boxes": len(drawn),
            "wrong": len(not_needed),
        },
    )
    return item


def _check_turn(by: Person, item: ReviewItem) -> None:
    if handing_out.held_by_another(by, item):
        raise Conflict(
            _("Another officer is looking at this file now; take the next one."), code="qa.taken"
        )
    mine = not item.finding or item.found_by_id == by.pk
    if not mine and not handing_out.holds(by, item):
        raise Conflict(
            _("Another officer has judged this file meanwhile; open it again to change that."),
            code="qa.judged",
        )


def _check_fits(finding: str, drawn: bool, not_needed: bool, note: str) -> None:
    """Raise Invalid where what was marked does not fit the word for it."""
    fails = finding in sampling.FAILING
    if fails and not drawn and not note.strip():
        raise Invalid(
            _("Draw a box around what was missed, or say in the note where it stands."),
            field="boxes",
            code="qa.boxes",
        )
    if drawn and not fails:
        raise Invalid(
            _("Boxes belong to the findings: missed, range."), field="finding", code="qa.finding"
        )
    if finding == "wrong" and not not_needed:
        raise Invalid(
            _("Choose the masked boxes that hide nothing."), field="wrong", code="qa.wrong"
        )
    if not_needed and finding == "clean":
        raise Invalid(
            _("A file with a wrong box is not clean; say: wrong."),
            field="finding",
            code="qa.finding",
        )


def _void_signatures(item: ReviewItem) -> None:
    """A signature given before this finding was for another result."""
    rows = Signature.objects.filter(version=item.version, round=item.round, standing=True)
    rows.update(standing=False)


@transaction.atomic
def sign(
    *, by: Person, version: DatasetVersion, statement: str = "", correct: bool = False
) -> Signature:
    """Close the round: all clean publishes the version, one miss sends it back.

    Where the policy asks for several officers, the version waits for the other signatures; one
    officer's word suffices to send it back. ``correct`` sends it back for its wrong boxes alone.
    The signature binds the report and the manifest by their digests. Raises Conflict while a
    file of the sample has not been looked at, and for a second signature of the same person.
    """
    check_officer(by, version)
    _lock(version)
    DATASET_VERSION.next_state(version.state, "sign", "officer")
    intake = Intake.objects.get(version=version)
    items = list(sampling.current_round(version))
    waiting = sum(item.finding == "" for item in items)
    if waiting or not items:
        raise Conflict(
            _("{count} files of the sample have not been looked at."),
            code="qa.open",
            count=waiting,
        )
    number = items[0].round
    standing = Signature.objects.filter(version=version, round=number, standing=True)
    if standing.filter(officer=by).exists():
        raise Conflict(
            _("You have signed this round; another officer must sign too."), code="qa.signed"
        )
    policy = policy_of(version.dataset).deid
    missed = sum(item.finding in sampling.FAILING for item in items)
    wrong = sum(bool(item.wrong_boxes) for item in items)
    if correct and not wrong and not missed:
        raise Invalid(
            _("There is nothing to correct: no box was marked."), field="correct", code="qa.correct"
        )
    population = sampling.population(intake).count()
    bound, at_random = sampling.bound(items, population)
    mode = _mode(items)
    # A policy that was tightened after the draw: a sample is no longer enough.
    too_few = policy.examination == "every" and mode == "sample" and len(items) < population
    passed = not missed and not correct and not too_few
    signature = Signature.objects.create(
        version=version,
        round=number,
        officer=by,
        passed=passed,
        sampled=len(items),
        at_random=at_random,
        missed=missed,
        wrong=wrong,
        mode=mode,
        population=population,
        upper_bound=bound,
        report_sha256=sampling.report_digest(intake),
        manifest_sha256=version.manifest_sha256,
        statement=statement.strip()[:1000],
    )
    if not passed:
        move(version, "fail_qa", "officer", reason=_("the officer's boxes are being applied"))
        Intake.objects.filter(pk=intake.pk).update(pending_boxes=True)
        hint("ingest.apply_boxes", version.pk)
    elif standing.count() >= policy.officers:
        _publish(version, signature, standing.count())
    else:
        version.reason = _("waiting for another security officer's signature")
        version.save(update_fields=["reason"])
    record(
        "qa.sign" if passed else "qa.fail",
        by=by,
        about=version,
        details={
            "round": signature.round,
            "sampled": signature.sampled,
            "missed": missed,
            "wrong": wrong,
            "mode": signature.mode,
            "upper_bound": round(bound, 5),
            "report_sha256": signature.report_sha256,
            "manifest_sha256": signature.manifest_sha256,
        },
    )
    return signature


def _mode(items: Sequence[ReviewItem]) -> str:
    """Return how a round was drawn; the policy may have been tightened since."""
    return "every" if all(item.why == review.EVERY for item in items) else "sample"


def _publish(version: DatasetVersion, signature: Signature, officers: int) -> None:
    now = timezone.now()
    move(
        version,
        "sign",
        "officer",
        reason="",
        published_at=now,
        card=version.card
        | {
            "examined": signature.sampled,
            "population": signature.population,
            "missed": signature.missed,
            "miss_rate_below": round(signature.upper_bound, 5),
            "confidence": 0.95,
            "examination": signature.mode,
            "officers": officers,
            "rounds": signature.round,
            "examined_on": now.date().isoformat(),
        },
    )
