"""Background work of releases."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from portal import leases
from portal.audit.record import record
from portal.leases import free
from portal.releases import bundling, personal, queries
from portal.releases.models import Release
from portal.tasking import hint, task

LEASE_SECONDS = 60
RETRY = timedelta(seconds=30)


def _failed(release_id: int, *, reason: str) -> None:
    """Note that a bundle could not be made; it is tried again, less and less often."""
    with transaction.atomic():
        release = Release.objects.select_for_update().get(pk=release_id)
        if release.state != "approved":
            return
        wait = RETRY * min(2**release.attempts, 120)
        Release.objects.filter(pk=release_id).update(
            attempts=F("attempts") + 1, retry_at=timezone.now() + wait, reason=reason[:300]
        )
        record("release.build.failed", by=None, about=release, details={"reason": reason[:300]})


@task("releases.build", on_failure=_failed)
def build(release_id: int) -> None:
    """Make the bundle of one approved release."""
    rows = queries.may_be_bundled()
    with leases.hold(rows, release_id, seconds=LEASE_SECONDS) as lease:
        if lease is not None:
            release = rows.select_related(
                "proposer",
                "job__inspection",
                "job__submission__submitter__unit__organisation",
                "job__grant__request__signature__agreement",
                "job__grant__unit",
                "job__version__dataset__steward",
            ).get(pk=release_id)
            bundling.build(release, lease)


@task("releases.copy")
def copy(release_id: int) -> None:
    """Make the copies of a released bundle that somebody of the grant still lacks."""
    release = Release.objects.filter(pk=release_id, state="released").first()
    if release is not None:
        personal.complete(release)


@task("releases.sign_revocations", queue="short")
def sign_revocations() -> None:
    """Publish a new signed list where a revoked release is missing from it."""
    bundling.sign_list()


def due() -> None:
    """Hint approved releases that nobody bundles now, and a list that lags behind."""
    ready = Q(retry_at=None) | Q(retry_at__lte=timezone.now())
    for pk in queries.may_be_bundled().filter(free(), ready).values_list("pk", flat=True):
        hint("releases.build", pk)
    if bundling.unlisted():
        hint("releases.sign_revocations")
