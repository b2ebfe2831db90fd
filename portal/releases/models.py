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
    # The applicant says that the network is a secret: only named reviewers see it.
    proprietary = models.BooleanField(default=False)
    reason = models.TextField(blank=True)
    # What the history of this dataset says of it: rows of policies.history.Notice.
    notices = models.JSONField(default=list, blank=True)
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
    # What the voter ticked of the policy's checklist: names of policies.checklist.LINES.
    looked_at = models.JSONField(default=list, blank=True)

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


class Lift(models.Model):
    """The steward lifted the soft blocks of a job's inspection, as they were then, and says why."""

    job = models.ForeignKey("jobs.Job", on_delete=models.PROTECT, related_name="lifts")
    steward = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    reason = models.TextField()
    bound_to = models.CharField(max_length=64)  # portal.jobs.queries.blocks_digest
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "bound_to"], name="lift_once")
        ]

    def __str__(self) -> str:
        return f"lift {self.pk} of job {self.job_id}"


class NamedReviewer(models.Model):
    """One of the few reviewers who may see a proprietary network."""

    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="named")
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["release", "person"], name="named_reviewer_once")
        ]


class PersonalCopy(models.Model):
    """The members of a bundle that name who received it, signed for one person.

    Everything else of the copy is the release's one bundle; the weights bear no mark.
    """

    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="copies")
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    crate = models.BinaryField()
    envelope = models.BinaryField()
    statement_sha256 = models.CharField(max_length=64)  # what a revocation names
    bundle_sha256 = models.CharField(max_length=64)  # of the whole copy
    bundle_bytes = models.PositiveBigIntegerField()
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["release", "person"], name="personal_copy_once")
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
