"""Personal links: one person, few uses, an end; every use and every refusal is recorded."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import BinaryIO

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from bundle import members, open_copy
from policies.errors import Conflict, Denied, GloveboxError, Invalid, _
from portal import blobs, keys
from portal.access.refusals import refusals_recorded
from portal.accounts.models import Person
from portal.audit.record import record
from portal.jobs.queries import is_insider
from portal.releases import queries
from portal.releases.models import DownloadLink, PersonalCopy, Release
from portal.tasking import hint

TOKEN_BYTES = 32
# A person's links to one release that are open at once; a new one ends the oldest.
MOST_OPEN = 3


class NoSuchLink(GloveboxError):
    """No link has this secret; nothing is said about why."""


def digest(token: str) -> str:
    """Return what is kept of a link's secret."""
    return hashlib.sha256(token.encode()).hexdigest()


def bundle_context(release_id: int) -> str:
    """The context of the key of a release's bundle."""
    return f"bundle:release:{release_id}"


def create_link(*, by: Person, release: Release) -> tuple[DownloadLink, str]:
    """Make a link for oneself; return it and its secret, which is shown this once.

    Raises Denied (recorded) for anybody but the grant's analysts, Conflict before the bundle is
    there or after it was revoked.
    """
    with refusals_recorded("download.link", by=by, about=release), transaction.atomic():
        release = Release.objects.select_for_update(of=("self",)).get(pk=release.pk)
        if not is_insider(release.job, by):
            raise Denied(_("Only the analysts of the grant may do this."), code="release.analyst")
        if release.job.grant.state == "revoked":
            raise Denied(_("This grant is {state}."), code="access.grant-state", state="revoked")
        if release.state != "released":
            raise Conflict(
                _("There is nothing to download: this release is {state}."),
                code="release.state",
                state=release.state.replace("_", " "),
            )
        if person_lacks_copy(release, by):
            hint("releases.copy", release.pk)
            raise Conflict(
                _("Your own copy is still being made; try again in a minute."),
                code="download.copy",
            )
        policy = queries.policy_for(release).release
        now = timezone.now()
        mine = DownloadLink.objects.filter(
            release=release, person=by, expires_at__gt=now, uses__lt=F("uses_allowed")
        ).order_by("-pk")
        for old in mine[MOST_OPEN - 1 :]:
            DownloadLink.objects.filter(pk=old.pk).update(expires_at=now)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        link = DownloadLink.objects.create(
            release=release,
            person=by,
            digest=digest(token),
            created_at=now,
            expires_at=now + timedelta(hours=policy.download_hours),
            uses_allowed=policy.download_uses,
        )
        details = {"link": link.pk, "expires": link.expires_at.isoformat()}
        record("download.link", by=by, about=release, details=details)
    return link, token


def use_link(*, by: Person, token: str) -> tuple[Release, BinaryIO, int]:
    """Count one use of a link and open its person's own copy of the bundle; its size, too.

    Raises Denied (recorded) for another person's, a used, an expired or a revoked one, and
    NoSuchLink for a secret that was never given out.
    """
    if len(token) > 200:
        raise NoSuchLink("no such link")
    link = DownloadLink.objects.select_related("release").filter(digest=digest(token)).first()
    if link is None:
        raise NoSuchLink("no such link")
    with refusals_recorded("download", by=by, about=link.release):
        _check(link, by)
        with transaction.atomic():
            now = timezone.now()
            rows = DownloadLink.objects.filter(
                pk=link.pk,
                expires_at__gt=now,
                uses__lt=F("uses_allowed"),
                release__state="released",
            )
            # The count is the decision: of two uses at once one gets nothing.
            if rows.update(uses=F("uses") + 1, last_used_at=now) != 1:
                link.refresh_from_db()
                link.release.refresh_from_db()
                _check(link, by)
                raise Conflict(_("This link is being used elsewhere."), code="download.race")
            link.refresh_from_db()
            copy = copy_for(link.release, by)
            facts = copy or link.release
            details = {
                "link": link.pk,
                "use": link.uses,
                "of": link.uses_allowed,
                "recipient": by.pseudonym,
                "sha256": facts.bundle_sha256,
                "statement_sha256": facts.statement_sha256,
            }
            record("download", by=by, about=link.release, details=details)
            stream = open_bundle(link.release)
            if copy is not None:
                changed = {members.CRATE: bytes(copy.crate), members.EVIDENCE: bytes(copy.envelope)}
                stream = open_copy(stream, changed)
    return link.release, stream, facts.bundle_bytes


def copy_for(release: Release, person: Person) -> PersonalCopy | None:
    """Return a person's own copy; None for the proposer, whose name the bundle itself bears."""
    if person.pk == release.proposer_id:
        return None
    copy = release.copies.filter(person=person).first()
    if copy is None:
        raise Conflict(
            _("Your own copy is still being made; try again in a minute."), code="download.copy"
        )
    return copy


def person_lacks_copy(release: Release, person: Person) -> bool:
    """Whether a person's copy was not made yet: somebody who joined after the release."""
    return person.pk != release.proposer_id and not release.copies.filter(person=person).exists()


def _check(link: DownloadLink, by: Person) -> None:
    if link.person_id != by.pk:
        raise Denied(_("This link is somebody else's."), code="download.person")
    if link.release.state != "released":
        raise Denied(_("This release was revoked."), code="download.revoked")
    if link.release.job.grant.state == "revoked":
        raise Denied(_("This grant is {state}."), code="access.grant-state", state="revoked")
    if link.expires_at <= timezone.now():
        raise Denied(_("This link has expired; make a new one."), code="download.expired")
    if link.uses >= link.uses_allowed:
        raise Denied(_("This link was used already; make a new one."), code="download.used")


def open_bundle(release: Release) -> BinaryIO:
    """Open a release's bundle. Raises Invalid before there is one."""
    if not release.bundle_object or release.bundle_key is None:
        raise Invalid(_("The bundle is still being made."), code="release.bundle")
    key = keys.unwrap(
        release.bundle_key, by=keys.master("view"), context=bundle_context(release.pk)
    )
    return blobs.open(release.bundle_object, key=key)
