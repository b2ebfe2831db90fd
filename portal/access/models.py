"""Access requests, what was voted on them, agreements and their signatures, grants."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from portal.accounts.models import Person
from portal.voting.models import RecusalRow, StepRow, VoteRow


class AccessRequest(models.Model):
    """Somebody asks to work with one dataset version; moves by policies.workflow.ACCESS_REQUEST."""

    applicant = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="access_requests")
    version = models.ForeignKey(
        "catalog.DatasetVersion", on_delete=models.PROTECT, related_name="access_requests"
    )
    state = models.CharField(max_length=20, default="draft")
    # The form's fields by name; policies.access.REQUEST_FIELDS holds their rules.
    answers = models.JSONField(default=dict, blank=True)
    conflict_declared = models.BooleanField(_("conflict of interest declared"), default=False)
    # Everyone named, resolved to accounts when the request is submitted.
    analysts = models.ManyToManyField(Person, related_name="+", blank=True)
    round = models.PositiveIntegerField(default=0)  # grows with each submission
    # SHA-256 of what was submitted (fields, analysts, documents, round): votes are bound to it.
    bound_to = models.CharField(max_length=64, blank=True)
    reason = models.TextField(_("reason of the decision"), blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    submitted_at = models.DateTimeField(null=True, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["state"], name="access_request_state")]

    def __str__(self) -> str:
        return f"request {self.pk}"

    @property
    def purpose(self) -> str:
        return str(self.answers.get("purpose", ""))

    @property
    def title(self) -> str:
        return str(self.answers.get("title", ""))


class RequestStep(StepRow):
    """When a request entered and left a state: the honest answer to "how long does it take"."""

    request = models.ForeignKey(AccessRequest, on_delete=models.CASCADE, related_name="steps")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["request"], condition=Q(left_at=None), name="request_in_one_state"
            )
        ]
        indexes: ClassVar = [models.Index(fields=["state", "left_at"], name="request_step_time")]


class RequestDocument(models.Model):
    """An ethics approval or another document; encrypted under the view key, never shown inline."""

    request = models.ForeignKey(AccessRequest, on_delete=models.PROTECT, related_name="documents")
    kind = models.CharField(max_length=20, default="ethics")
    filename = models.CharField(max_length=150)
    media_type = models.CharField(max_length=60)
    bytes = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)
    object_name = models.CharField(max_length=64, unique=True)
    wrapped_key = models.BinaryField()
    uploaded_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    uploaded_at = models.DateTimeField(default=timezone.now)
    removed_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"document {self.pk} of request {self.request_id}"


class RequestVote(VoteRow):
    """One committee member's vote, bound to what was submitted."""

    request = models.ForeignKey(AccessRequest, on_delete=models.PROTECT, related_name="votes")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["request", "voter", "bound_to"], name="request_vote_once"
            )
        ]

    def __str__(self) -> str:
        return f"vote {self.pk} on request {self.request_id}"


class Recusal(RecusalRow):
    """A committee member says that they are too close to a request to judge it."""

    request = models.ForeignKey(AccessRequest, on_delete=models.PROTECT, related_name="recusals")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["request", "person"], name="recusal_once")
        ]


class Agreement(models.Model):
    """One version of the data-use agreement; never changed once it exists, only followed by one."""

    name = models.SlugField(max_length=60)
    number = models.PositiveIntegerField()
    title_en = models.CharField(max_length=200)
    title_ko = models.CharField(max_length=200)
    text_en = models.TextField()
    text_ko = models.TextField()
    sha256 = models.CharField(max_length=64)  # of both texts; what a signature is bound to
    published_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    published_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["name", "number"], name="agreement_version_once")
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class Signature(models.Model):
    """An applicant's signature under one version of the agreement, for one request."""

    request = models.OneToOneField(
        AccessRequest, on_delete=models.PROTECT, related_name="signature"
    )
    agreement = models.ForeignKey(Agreement, on_delete=models.PROTECT, related_name="signatures")
    agreement_sha256 = models.CharField(max_length=64)
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    typed_name = models.CharField(max_length=150)
    language = models.CharField(max_length=5)
    at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"signature {self.pk} of request {self.request_id}"


class Grant(models.Model):
    """Approved access with named analysts and an end; moves by policies.workflow.GRANT."""

    request = models.OneToOneField(AccessRequest, on_delete=models.PROTECT, related_name="grant")
    version = models.ForeignKey(
        "catalog.DatasetVersion", on_delete=models.PROTECT, related_name="grants"
    )
    holder = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="grants_held")
    unit = models.ForeignKey("accounts.Unit", on_delete=models.PROTECT, related_name="+")
    analysts = models.ManyToManyField(Person, related_name="grants")
    purpose = models.CharField(max_length=20)
    state = models.CharField(max_length=20, default="active")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    reason = models.TextField(blank=True)  # of a suspension or a revocation
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(ends_at__gt=models.F("starts_at")), name="grant_ends_after_start"
            )
        ]
        indexes: ClassVar = [models.Index(fields=["state", "ends_at"], name="grant_expiry")]

    def __str__(self) -> str:
        return f"grant {self.pk}"
