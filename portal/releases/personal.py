"""A worker makes each recipient's own copy of a bundle: the same files, another signed mark."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import BinaryIO

from django.db import transaction

import bundle
from bundle.copies import chunks
from portal import keys
from portal.accounts.models import Person
from portal.audit.record import record
from portal.releases.downloads import open_bundle
from portal.releases.models import PersonalCopy, Release


def recipients(release: Release) -> list[Person]:
    """Return who may download a release and is not the one whom the bundle itself names."""
    grant = release.job.grant
    people = {person.pk: person for person in (grant.holder, *grant.analysts.all())}
    people.pop(release.proposer_id, None)
    return [people[pk] for pk in sorted(people)]


def made(release: Release, stream: BinaryIO, people: Iterable[Person]) -> list[PersonalCopy]:
    """Return the copies of a bundle for some people, not yet kept."""
    rows, people = [], list(people)
    if not people:
        return []
    copies = bundle.personal(
        stream,
        recipients=[person.pseudonym for person in people],
        signing_key=keys.signing_key("release"),
    )
    for person, own in zip(people, copies, strict=True):
        digest, size = hashlib.sha256(), 0
        for chunk in chunks(stream, own.changed()):
            digest.update(chunk)
            size += len(chunk)
        rows.append(
            PersonalCopy(
                release=release,
                person=person,
                crate=own.crate,
                envelope=own.envelope,
                statement_sha256=own.statement_sha256,
                bundle_sha256=digest.hexdigest(),
                bundle_bytes=size,
            )
        )
    return rows


def keep(release: Release, copies: Iterable[PersonalCopy]) -> None:
    """Keep copies, with their digests in the audit chain; inside the caller's transaction."""
    for row in copies:
        _row, created = PersonalCopy.objects.get_or_create(
            release=release,
            person=row.person,
            defaults={
                "crate": row.crate,
                "envelope": row.envelope,
                "statement_sha256": row.statement_sha256,
                "bundle_sha256": row.bundle_sha256,
                "bundle_bytes": row.bundle_bytes,
            },
        )
        if created:
            details = {
                "recipient": row.person.pseudonym,
                "sha256": row.bundle_sha256,
                "statement_sha256": row.statement_sha256,
            }
            record("release.copy", by=None, about=release, details=details)


def complete(release: Release) -> None:
    """Make the copies that somebody of the grant still lacks."""
    there = set(release.copies.values_list("person", flat=True))
    missing = [person for person in recipients(release) if person.pk not in there]
    if not missing:
        return
    with open_bundle(release) as stream:
        rows = made(release, stream, missing)
    with transaction.atomic():
        keep(release, rows)
