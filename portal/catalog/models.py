"""Datasets, their immutable versions, the subjects whose data they hold, and stored objects."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from portal.leases import Leased


class Dataset(models.Model):
    """What an owner offers: public words, a kind, a policy that tightens the portal's own."""

    class Kind(models.TextChoices):
        DICOM = "dicom", _("DICOM images")
        MAMMOGRAPHY = "mammography", _("mammography")
        PHOTOS = "photos", _("photographs")

    slug = models.SlugField(unique=True, max_length=60)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    title = models.CharField(_("title"), max_length=200)
    title_ko = models.CharField(_("Korean title"), max_length=200, blank=True)
    description = models.TextField(_("description"))
    description_ko = models.TextField(_("Korean description"), blank=True)
    licence = models.CharField(max_length=200, default="Glovebox data-use agreement")
    steward = models.ForeignKey("accounts.Person", on_delete=models.PROTECT, related_name="+")
    unit = models.ForeignKey("accounts.Unit", on_delete=models.PROTECT, related_name="+")
    deid_profile = models.CharField(max_length=60, default="research")
    # Pseudonyms must agree over versions: one key a dataset, wrapped by the data master key.
    wrapped_pseudonym_key = models.BinaryField(null=True)
    # Overrides of the default policy; policies.document.tighten refuses what would loosen it.
    policy = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.slug


class DatasetVersion(models.Model):
    """One immutable edition; ``state`` moves by policies.workflow.DATASET_VERSION only."""

    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=20, default="draft")
    reason = models.CharField(max_length=300, blank=True)  # why it waits or what went wrong
    # The version's key wrapped by the data master key; only workers can unwrap it.
    wrapped_key = models.BinaryField(null=True)
    manifest = models.JSONField(default=dict, blank=True)  # public counts only
    manifest_object = models.CharField(max_length=64, blank=True)
    manifest_sha256 = models.CharField(max_length=64, blank=True)
    subjects = models.PositiveIntegerField(default=0)
    files = models.PositiveIntegerField(default=0)
    bytes = models.PositiveBigIntegerField(default=0)
    training_samples = models.PositiveIntegerField(default=0)
    card = models.JSONField(default=dict, blank=True)  # public facts: QA bound, counts by split
    created_at = models.DateTimeField(default=timezone.now)
    published_at = models.DateTimeField(null=True, blank=True)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["dataset", "number"], name="version_once")
        ]

    def __str__(self) -> str:
        return f"{self.dataset.slug} v{self.number}"


class Subject(models.Model):
    """A person whose data the dataset holds, under a pseudonym."""

    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="subjects")
    pseudonym = models.CharField(max_length=64)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["dataset", "pseudonym"], name="subject_once")
        ]


class SubjectKey(models.Model):
    """A subject's own key in one version, wrapped by the version's key.

    Withdrawal deletes the row: what it opened is gone in every copy that holds objects only.
    """

    version = models.ForeignKey(
        DatasetVersion, on_delete=models.PROTECT, related_name="subject_keys"
    )
    subject = models.ForeignKey(Subject, on_delete=models.PROTECT, related_name="keys")
    wrapped_key = models.BinaryField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["version", "subject"], name="subject_key_once")
        ]


class Sample(models.Model):
    """The open synthetic sample of a dataset: same layout, made from public parameters."""

    dataset = models.OneToOneField(Dataset, on_delete=models.CASCADE, related_name="sample")
    object_name = models.CharField(max_length=64)
    wrapped_key = models.BinaryField()  # by the view master key: anyone may have the sample
    sha256 = models.CharField(max_length=64)
    bytes = models.PositiveBigIntegerField()
    files = models.PositiveIntegerField()
    made_at = models.DateTimeField(default=timezone.now)


class Packing(Leased):
    """The work of packing a published version's small files; the lease says who does it."""

    version = models.OneToOneField(DatasetVersion, on_delete=models.PROTECT, related_name="packing")
    done_at = models.DateTimeField(null=True, blank=True)
    retry_at = models.DateTimeField(null=True, blank=True)  # after a failure, not before this


class Pack(models.Model):
    """A stored object that holds many small files of a version (decision 24)."""

    version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="packs")
    object_name = models.CharField(max_length=64, unique=True)
    bytes = models.PositiveBigIntegerField(default=0)  # as stored
    written_at = models.DateTimeField(null=True, blank=True)  # None until rows name it
    # The files' own objects, which it takes the place of, until they are removed.
    replaced = models.JSONField(default=list, blank=True)


class StoredFile(models.Model):
    """A file of a published version: where it lies encrypted and what it must hash to.

    It is an object of its own, or a member of a pack, never both.
    """

    version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="stored")
    subject = models.ForeignKey(Subject, on_delete=models.PROTECT, null=True, related_name="+")
    path = models.CharField(max_length=300)
    split = models.CharField(max_length=12, blank=True)  # train, validation, sealed, "" (shared)
    # HMAC, never a hash of plain content; empty for a member of a pack.
    object_name = models.CharField(max_length=64, blank=True)
    pack = models.ForeignKey(Pack, on_delete=models.PROTECT, null=True, related_name="+")
    offset = models.PositiveBigIntegerField(null=True, blank=True)  # in the pack
    sha256 = models.CharField(max_length=64)
    bytes = models.PositiveBigIntegerField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["version", "path"], name="stored_file_once"),
            models.CheckConstraint(
                condition=models.Q(pack=None, offset=None) & ~models.Q(object_name="")
                | models.Q(pack__isnull=False, offset__isnull=False, object_name=""),
                name="stored_file_in_one_place",
            ),
        ]
