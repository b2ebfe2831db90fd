"""Releases: artefacts that may leave, the votes on them, bundles, links and revocations."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

from portal.accounts.models import Person
from portal.leases import Leased
from portal.voting.models import RecusalRow, StepRow, VoteRow


class Release(Leased):
    """Artefacts of one finished job that may leave; moves by policies.workflow.RELEASE."""

    job = models.ForeignKey("jobs.Job", on_delete=models.PROTECT, related_name="releases")
    proposer = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="releases")
    state = models.CharField(max_length=20, default="proposed")
    artefacts = models.ManyToManyField("jobs.Artefact", related_name="releases")
    note = models.TextField(blank=True)  # the applicant's words to the reviewers
    round = models.PositiveIntegerField(default=1)
    # SHA-256 over the artefacts, the inspection report, the code and the round: what a vote
    # agrees to. A vote bound to anything else does not count.
    bound_to = models.CharField(max_length=64, blank=True)
    conflict_declared = models.BooleanField(default=False)
    reason = models.TextField(blank=True)
    ledger_before = models.JSONField(default=dict, blank=True)
    ledger_after = models.JSONField(default=dict, blank=True)
    bundle_object = models.CharField(max_length=64, blank=True)
    bundle_key = models.BinaryField(null=True)
    bundle_sha256 = models.CharField(max_length=64, blank=True)
    statement_sha256 = models.CharField(max_length=64, blank=True)  # what a revocation names
    bundle_bytes = models.PositiveBigIntegerField(default=0)
    attempts = models.PositiveIntegerField(default=0)
    retry_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    approved_at = models.DateTimeField(null=True, blank=True)
    released_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            # A double click proposes once.
            models.UniqueConstraint(
                fields=["job"],
                condition=~Q(state__in=["rejected", "withdrawn", "revoked"]),
                name="release_live_once",
            )
        ]
        indexes: ClassVar = [models.Index(fields=["state", "lease_until"], name="release_due")]

    def __str__(self) -> str:
        return f"release {self.pk}"


class ReleaseStep(StepRow):
    """When a release entered and left a state."""

    release = models.ForeignKey(Release, on_delete=models.CASCADE, related_name="steps")

    class Meta:
        ordering: ClassVar = ["id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["release"], condition=Q(left_at=None), name="release_in_one_state"
            )
        ]


class ReleaseVote(VoteRow):
    """A reviewer's (or the steward's) vote, bound to exactly what was reviewed."""

    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="votes")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["release", "voter", "bound_to"], name="release_vote_once"
            )
        ]

    def __str__(self) -> str:
        return f"vote {self.pk} on release {self.release_id}"


class ReleaseRecusal(RecusalRow):
    """A reviewer says that they are too close to a release to judge it."""

    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="recusals")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["release", "person"], name="release_recusal_once")
        ]


class DownloadLink(models.Model):
    """A personal link that ends by time or by use; only the digest of its secret is kept."""

    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="links")
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    uses = models.PositiveIntegerField(default=0)
    uses_allowed = models.PositiveIntegerField(default=1)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(uses__lte=models.F("uses_allowed")), name="link_uses_counted"
            )
        ]

    def __str__(self) -> str:
        return f"link {self.pk} to release {self.release_id}"


class RevocationList(models.Model):
    """A signed list of every revoked bundle; the newest holds all that came before."""

    number = models.PositiveIntegerField(unique=True)
    document = models.TextField()  # the signed JSON, as published
    at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"revocation list {self.number}"
