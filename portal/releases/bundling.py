"""A worker makes the signed bundle of an approved release, and signs the list of revoked ones."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils import timezone

import bundle
from bundle import Revocation, sign_revocations
from policies.workflow import SYSTEM
from portal import blobs, keys
from portal.audit.record import record
from portal.jobs import ledger
from portal.jobs.models import Artefact
from portal.jobs.queries import propose_block
from portal.jobs.storage import keep
from portal.jobs.workdir import write_artefacts
from portal.leases import Lease
from portal.releases import evidence, personal, queries
from portal.releases.actions import locked, move
from portal.releases.downloads import bundle_context
from portal.releases.models import PersonalCopy, Release, RevocationList
from portal.tasking import TryAgain
from portal.workplace import temporary


class Changed(Exception):
    """What was approved is not what is stored."""


def build(release: Release, lease: Lease) -> None:
    """Release what was approved: build, verify, keep, and move, or reopen if anything changed."""
    if _changed(release):
        _reopen(release, lease)
        return
    artefacts = list(release.artefacts.order_by("path"))
    with temporary(f"release-{release.pk}") as folder:
        try:
            files = _files(artefacts, folder / "artefacts")
        except Changed:
            _reopen(release, lease)
            return
        said = evidence.evidence_of(release)
        # Whole seconds, as the bundle states it and the row keeps it.
        released = timezone.now().replace(microsecond=0)
        path = bundle.build(
            folder / "bundle.zip",
            artefacts=files,
            metrics=evidence.metrics_of(release),
            model_card=evidence.card_of(release),
            intervals=evidence.intervals_of(release),
            curves=evidence.curves_of(release),
            evidence=said,
            signing_key=keys.signing_key("release"),
            recipient=release.proposer.pseudonym,
            released=released,
            obligations=release.job.grant.request.signature.agreement.text_en,
        )
        verified = bundle.verify(path, keys.public_keys("release").values())
        if not verified.held:
            raise RuntimeError("a bundle that was just made does not verify")
        with path.open("rb") as stream:
            kept = keep(stream, context=bundle_context(release.pk))
            stream.seek(0)
            copies = personal.made(release, stream, personal.recipients(release))
    try:
        with transaction.atomic():
            lease.check()
            row = locked(release)
            # Whoever releases of this dataset does it one after the other.
            ledger.lock(row.job)
            if not queries.may_be_bundled().filter(pk=row.pk).exists() or _changed(row):
                raise TryAgain("the release changed while its bundle was made")
            if _released(evidence.ledger_after(row)) != _released(said["ledger"]["after"]):
                raise TryAgain("another release left while the bundle was made")
            ledger.charge_release(row.job, bits=evidence.bits_of(row))
            move(
                row,
                "release",
                SYSTEM,
                by=None,
                # Into the audit chain, whose checkpoints others keep: what left cannot be denied
                # later, nor another bundle shown in its place.
                said={"sha256": kept.sha256, "statement_sha256": verified.bundle},
                released_at=released,
                ledger_after=said["ledger"]["after"],
                bundle_object=kept.object_name,
                bundle_key=kept.wrapped_key,
                bundle_sha256=kept.sha256,
                bundle_bytes=kept.bytes,
                statement_sha256=verified.bundle,
            )
            personal.keep(row, copies)
    except BaseException:
        blobs.delete(kept.object_name)
        raise


def _released(ledger_after: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the ledger that releases alone change; jobs that run change the rest."""
    running = ("live_bits", "sealed_evaluations")
    return {name: value for name, value in ledger_after.items() if name not in running}


def _changed(release: Release) -> bool:
    return (
        queries.digest_of(release) != release.bound_to
        or propose_block(release.job) is not None
        or queries.decision_on(release).state != "approved"
    )


def _files(artefacts: list[Artefact], target: Path) -> dict[str, Path]:
    """Return the files that leave. Raises Changed where the stored bytes are not the reviewed."""
    write_artefacts(artefacts, target)
    files = {}
    for artefact in artefacts:
        path = target / artefact.path
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != artefact.sha256:
                raise Changed
        files[artefact.path] = path
    return files


def _reopen(release: Release, lease: Lease) -> None:
    """Ask the reviewers again: votes on what is no longer there have fallen."""
    with transaction.atomic():
        lease.check()
        row = locked(release)
        details = {"from": row.bound_to, "to": queries.digest_of(row)}
        record("release.changed", by=None, about=row, details=details)
        move(
            row,
            "reopen",
            SYSTEM,
            by=None,
            round=row.round + 1,
            approved_at=None,
        )
        row.bound_to = queries.digest_of(row)
        row.save(update_fields=["bound_to"])


def unlisted() -> bool:
    """Whether a revoked release is missing from the newest signed list.

    By what the list says, not by its time: a revocation may be dated by another machine's clock,
    or be written while the list is signed.
    """
    revoked = Release.objects.filter(state="revoked").values_list("statement_sha256", flat=True)
    copies = PersonalCopy.objects.filter(release__state="revoked")
    newest = queries.revocation_list()
    listed = {row["sha256"] for row in queries.entries_of(newest)} if newest is not None else set()
    return not listed.issuperset([*revoked, *copies.values_list("statement_sha256", flat=True)])


@transaction.atomic
def sign_list() -> RevocationList | None:
    """Sign a new list of everything revoked, if something is missing from the newest."""
    newest = RevocationList.objects.select_for_update().order_by("-number").first()
    if not unlisted():
        return newest
    now = timezone.now()
    entries: dict[str, Revocation] = {}
    for release in Release.objects.filter(state="revoked").order_by("pk"):
        date = release.revoked_at.date().isoformat() if release.revoked_at else ""
        weights = release.artefacts.filter(kind="weights").values_list("sha256", flat=True)
        # The statement names this copy, the weights every copy of the model.
        copies = release.copies.values_list("statement_sha256", flat=True)
        for digest in (release.statement_sha256, *copies, *weights):
            entries[digest] = Revocation(digest, release.reason, date)
    number = newest.number + 1 if newest else 1
    document = sign_revocations(
        list(entries.values()),
        issued=now,
        number=number,
        signing_key=keys.signing_key("release"),
    )
    row = RevocationList.objects.create(number=number, document=document.decode(), at=now)
    record("revocations.sign", by=None, about=row, details={"entries": len(entries)})
    return row
