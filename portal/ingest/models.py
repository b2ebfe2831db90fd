"""What happens to originals: intake, the report of de-identification, the officer's review."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from portal.leases import Leased


class Intake(Leased):
    """The originals of one dataset version, encrypted so that only workers can open them."""

    version = models.OneToOneField(
        "catalog.DatasetVersion", on_delete=models.PROTECT, related_name="intake"
    )
    object_name = models.CharField(max_length=64)
    # The object's key, sealed (HPKE) to the workers' public key: the web process made it and
    # forgot it.
    sealed_key = models.BinaryField(null=True)
    sha256 = models.CharField(max_length=64)
    bytes = models.PositiveBigIntegerField()
    uploaded_by = models.ForeignKey("accounts.Person", on_delete=models.PROTECT, related_name="+")
    uploaded_at = models.DateTimeField(default=timezone.now)
    destroy_after = models.DateTimeField()
    destroyed_at = models.DateTimeField(null=True, blank=True)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    attempts = models.PositiveIntegerField(default=0)
    counts = models.JSONField(default=dict, blank=True)  # rows by status
    pending_boxes = models.BooleanField(default=False)


class Shard(Leased):
    """A part of a large batch that one worker cleans, on whichever machine."""

    intake = models.ForeignKey(Intake, on_delete=models.CASCADE, related_name="shards")
    number = models.PositiveIntegerField()
    count = models.PositiveIntegerField()
    # Of the originals and the profile: what other originals left is never taken for this.
    basis = models.CharField(max_length=64)
    done = models.PositiveIntegerField(default=0)
    done_at = models.DateTimeField(null=True, blank=True)
    object_name = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering: ClassVar = ["number"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["intake", "number"], name="shard_once")
        ]


class ReportRow(models.Model):
    """What became of one original; it names the original by digest only."""

    intake = models.ForeignKey(Intake, on_delete=models.CASCADE, related_name="rows")
    position = models.PositiveIntegerField()
    source = models.CharField(max_length=64)
    status = models.CharField(max_length=12)
    target = models.CharField(max_length=300, blank=True)
    reason = models.CharField(max_length=300, blank=True)
    actions = models.JSONField(default=dict, blank=True)
    boxes = models.JSONField(default=dict, blank=True)
    facts = models.JSONField(default=dict, blank=True)  # modality, SOP class, lowest score
    seconds = models.FloatField(default=0)

    class Meta:
        ordering: ClassVar = ["position"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["intake", "position"], name="report_row_once")
        ]
        indexes: ClassVar = [models.Index(fields=["intake", "status"], name="report_row_status")]


class ReviewItem(Leased):
    """One file of the officer's sample: before and after, and what the officer found."""

    class Finding(models.TextChoices):
        OPEN = "", _("not looked at yet")
        CLEAN = "clean", _("clean")
        MISSED = "missed", _("an identifier was missed")
        EXTRA = "extra", _("too much was masked")

    version = models.ForeignKey(
        "catalog.DatasetVersion", on_delete=models.PROTECT, related_name="review_items"
    )
    round = models.PositiveIntegerField()
    position = models.PositiveIntegerField()
    row = models.ForeignKey(ReportRow, on_delete=models.PROTECT, related_name="review_items")
    stratum = models.CharField(max_length=120)
    before_object = models.CharField(max_length=64, blank=True)
    after_object = models.CharField(max_length=64, blank=True)
    wrapped_key = models.BinaryField(null=True)  # by the view master key
    width = models.PositiveIntegerField(default=0)
    height = models.PositiveIntegerField(default=0)
    unseen = models.CharField(max_length=200, blank=True)  # why there is no picture
    finding = models.CharField(max_length=8, choices=Finding.choices, blank=True)
    boxes = models.JSONField(default=list, blank=True)  # drawn by the officer, in image pixels
    note = models.CharField(max_length=500, blank=True)
    found_by = models.ForeignKey(
        "accounts.Person", on_delete=models.PROTECT, null=True, related_name="+"
    )
    found_at = models.DateTimeField(null=True, blank=True)
    pictures_destroyed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["round", "position"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["version", "round", "position"], name="review_item_once"
            )
        ]


class Signature(models.Model):
    """A security officer's decision on one round, bound to the report and the manifest."""

    version = models.ForeignKey(
        "catalog.DatasetVersion", on_delete=models.PROTECT, related_name="signatures"
    )
    round = models.PositiveIntegerField()
    officer = models.ForeignKey("accounts.Person", on_delete=models.PROTECT, related_name="+")
    passed = models.BooleanField()
    sampled = models.PositiveIntegerField()
    missed = models.PositiveIntegerField()
    population = models.PositiveIntegerField()
    # With 95 % confidence the rate of misses lies below this (rule of three), in [0, 1].
    upper_bound = models.FloatField()
    report_sha256 = models.CharField(max_length=64)
    manifest_sha256 = models.CharField(max_length=64)
    statement = models.CharField(max_length=1000, blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["version", "round"], name="signature_once")
        ]


class Destruction(models.Model):
    """The record that originals, pictures or quarantined files were destroyed."""

    version = models.ForeignKey(
        "catalog.DatasetVersion", on_delete=models.PROTECT, related_name="destructions"
    )
    what = models.CharField(max_length=40)
    count = models.PositiveIntegerField()
    bytes = models.PositiveBigIntegerField()
    at = models.DateTimeField(default=timezone.now)
