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
    # What was held back, apart: under a key of its own, with a time of its own.
    quarantine_object = models.CharField(max_length=64, blank=True, default="")
    quarantine_sealed_key = models.BinaryField(null=True)
    quarantine_sha256 = models.CharField(max_length=64, blank=True, default="")
    quarantine_bytes = models.PositiveBigIntegerField(default=0)
    quarantine_count = models.PositiveIntegerField(default=0)
    quarantine_destroy_after = models.DateTimeField(null=True, blank=True)
    quarantine_destroyed_at = models.DateTimeField(null=True, blank=True)


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
    """One file of the officer's sample: before and after, and what the officer found.

    The lease says which officer looks at it now, so that no two look at the same one.
    """

    class Finding(models.TextChoices):
        OPEN = "", _("not looked at yet")
        CLEAN = "clean", _("clean")
        MISSED = "missed", _("an identifier was missed")
        RANGE = "range", _("a box or a value does not reach far enough")
        WRONG = "wrong", _("a box hides nothing")
        EXTRA = "extra", _("too much was masked")

    version = models.ForeignKey(
        "catalog.DatasetVersion", on_delete=models.PROTECT, related_name="review_items"
    )
    round = models.PositiveIntegerField()
    position = models.PositiveIntegerField()
    row = models.ForeignKey(ReportRow, on_delete=models.PROTECT, related_name="review_items")
    stratum = models.CharField(max_length=120)
    # Why it was drawn: empty for the random draw, on which alone the bound rests.
    why = models.CharField(max_length=40, blank=True, default="")
    before_object = models.CharField(max_length=64, blank=True)
    after_object = models.CharField(max_length=64, blank=True)
    # Further objects under the same key: what the header said before (JSON), and single frames
    # as pairs of before and after, by the frame's number from 1.
    header_object = models.CharField(max_length=64, blank=True, default="")
    frames = models.JSONField(default=dict, blank=True)
    frame_count = models.PositiveIntegerField(default=1)
    wrapped_key = models.BinaryField(null=True)  # by the view master key
    width = models.PositiveIntegerField(default=0)
    height = models.PositiveIntegerField(default=0)
    unseen = models.CharField(max_length=200, blank=True)  # why there is no picture
    finding = models.CharField(max_length=8, choices=Finding.choices, blank=True)
    boxes = models.JSONField(default=list, blank=True)  # drawn by the officer, in image pixels
    # Masked boxes that hide nothing, as they stand in the row: {kind, x, y, width, height}.
    wrong_boxes = models.JSONField(default=list, blank=True)
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
    """A security officer's decision on one round, bound to the report and the manifest.

    ``standing`` ends when a finding of the round changes after it was given.
    """

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
    mode = models.CharField(max_length=8, default="sample")  # what the policy asked for
    at_random = models.PositiveIntegerField(default=0)  # of the sampled; the bound rests on these
    wrong = models.PositiveIntegerField(default=0)  # files with boxes that hide nothing
    standing = models.BooleanField(default=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["version", "round", "officer"],
                condition=models.Q(standing=True),
                name="signature_once_each",
            )
        ]


class Destruction(models.Model):
    """The record that originals, pictures or quarantined files were destroyed.

    ``objects_gone`` names each destroyed object: its stored name (an HMAC), its key's identifier,
    and where it is known the SHA-256 of what it held. ``certificate`` is signed by a worker once
    it has seen that no key and no object is left.
    """

    version = models.ForeignKey(
        "catalog.DatasetVersion", on_delete=models.PROTECT, related_name="destructions"
    )
    what = models.CharField(max_length=40)
    count = models.PositiveIntegerField()
    bytes = models.PositiveBigIntegerField()
    objects_gone = models.JSONField(default=list, blank=True)
    certificate = models.TextField(blank=True, default="")
    at = models.DateTimeField(default=timezone.now)
