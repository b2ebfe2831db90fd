"""Submissions and their jobs: rows are the truth, workers hold them by leases."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

from portal.accounts.models import Person
from portal.leases import Leased


class Submission(models.Model):
    """Code, configuration and resources that an analyst handed in; the archive is encrypted."""

    grant = models.ForeignKey("access.Grant", on_delete=models.PROTECT, related_name="submissions")
    submitter = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="submissions")
    name = models.CharField(max_length=100)
    manifest_text = models.TextField()
    manifest = models.JSONField()  # as parsed: policies.submission.Manifest.as_mapping()
    files = models.JSONField(default=list)  # [[name, bytes], ...] of the archive
    archive_object = models.CharField(max_length=64, unique=True)
    archive_key = models.BinaryField()  # wrapped by the view master key
    archive_sha256 = models.CharField(max_length=64)
    archive_bytes = models.PositiveBigIntegerField()
    # Advice of the static scan for reviewers; null until a worker made it.
    advice = models.JSONField(null=True)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"submission {self.pk}"


class Node(models.Model):
    """A machine that runs jobs, and what of it jobs may use together.

    The row is locked while a job is admitted, so that two workers cannot both give the last core.
    """

    name = models.CharField(max_length=120, unique=True)
    cpus = models.PositiveIntegerField()
    memory_bytes = models.PositiveBigIntegerField()
    gpus = models.PositiveIntegerField(default=0)
    seen_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.name


class Job(Leased):
    """One run of a submission; moves by policies.workflow.JOB."""

    submission = models.ForeignKey(Submission, on_delete=models.PROTECT, related_name="jobs")
    grant = models.ForeignKey("access.Grant", on_delete=models.PROTECT, related_name="jobs")
    version = models.ForeignKey(
        "catalog.DatasetVersion", on_delete=models.PROTECT, related_name="jobs"
    )
    state = models.CharField(max_length=20, default="submitted")
    reason = models.CharField(max_length=20, blank=True)  # a word of sandbox_runner.spec.REASONS
    # Why it waits, for the applicant: a code of portal.jobs.queries.WAITING and its figures.
    waiting = models.CharField(max_length=30, blank=True)
    waiting_facts = models.JSONField(default=dict, blank=True)
    # Asked from outside (cancelled, lapsed, evicted); the worker that holds the lease obeys.
    stop_requested = models.CharField(max_length=20, blank=True)
    stop_requested_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, related_name="+"
    )
    # A sentence naming the field, where the job was refused by a rule.
    message = models.CharField(max_length=300, blank=True)
    field = models.CharField(max_length=100, blank=True)
    # What the applicant learns of an exception: built-in type, file of the submission, line.
    fault_type = models.CharField(max_length=60, blank=True)
    fault_file = models.CharField(max_length=255, blank=True)
    fault_line = models.PositiveIntegerField(default=0)
    # Shares of what it asked for, in steps of 10 %, where the budget had room for them.
    utilisation = models.JSONField(default=dict, blank=True)
    # What became of the checkpoint that it asked to keep: a word of portal.jobs.checkpoints.WORDS.
    checkpoint_state = models.CharField(max_length=10, blank=True)
    # The operator's facts; never shown to the applicant as they stand.
    exit_code = models.IntegerField(null=True)
    wall_seconds = models.FloatField(null=True)
    cpu_seconds = models.FloatField(null=True)
    peak_memory_bytes = models.PositiveBigIntegerField(null=True)
    backend = models.CharField(max_length=30, blank=True)
    backend_version = models.CharField(max_length=100, blank=True)
    rejected = models.JSONField(default=list, blank=True)  # [{path, why}]
    # The machine that holds its plain files between staging and collecting.
    node = models.ForeignKey(Node, on_delete=models.PROTECT, null=True, related_name="jobs")
    # When it was given room there, and when it likely will be.
    admitted_at = models.DateTimeField(null=True, blank=True)
    starts_at = models.DateTimeField(null=True, blank=True)
    priority = models.SmallIntegerField(default=0)  # of policies.queue.PRIORITIES
    attempts = models.PositiveIntegerField(default=0)  # how often a step was begun in this state
    retry_at = models.DateTimeField(null=True, blank=True)
    runs = models.PositiveIntegerField(default=0)  # how often the code was started
    curves_stopped = models.BooleanField(default=False)
    log_object = models.CharField(max_length=64, blank=True)
    # The runner's own record of a private training (policies/privacy.py), None for any other.
    privacy = models.JSONField(null=True, blank=True)
    log_key = models.BinaryField(null=True)
    log_bytes = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)
    state_since = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["state", "lease_until"], name="job_due"),
            models.Index(fields=["grant", "state"], name="job_of_grant"),
        ]

    def __str__(self) -> str:
        return f"job {self.pk}"


class JobStep(models.Model):
    """One attempt at one state by one lease: what was begun, by whom, and how it ended."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="steps")
    state = models.CharField(max_length=20)
    owner = models.CharField(max_length=80, blank=True)
    began_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)
    result = models.CharField(max_length=20, blank=True)  # next state, "lost" or "retry"

    class Meta:
        ordering: ClassVar = ["id"]
        constraints: ClassVar = [
            # Two attempts of one job can never be open at once.
            models.UniqueConstraint(
                fields=["job"], condition=Q(ended_at=None), name="job_step_one_open"
            )
        ]


class StagedCopy(Leased):
    """A version's plain, verified, read-only copy on one node, shared by the jobs that use it."""

    version = models.ForeignKey(
        "catalog.DatasetVersion", on_delete=models.PROTECT, related_name="+"
    )
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="staged")
    sealed = models.BooleanField(default=False)  # with the sealed split: for inspection only
    ready = models.BooleanField(default=False)
    # When its last job left, where the dataset's policy lets it stay warm for a while.
    idle_since = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["version", "node", "sealed"], name="staged_copy_once")
        ]

    def __str__(self) -> str:
        return f"staged copy {self.pk}"


class StagedUse(models.Model):
    """A job needs a staged copy; the copy is removed when the last of these is gone."""

    copy = models.ForeignKey(StagedCopy, on_delete=models.CASCADE, related_name="uses")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="staged_uses")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["copy", "job"], name="staged_use_once")
        ]


class Tick(models.Model):
    """Numbers of declared names that a running job reported, rounded, charged in bits."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="ticks")
    sequence = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField(default=1)  # a job that began again draws a new curve
    step = models.BigIntegerField()
    values = models.JSONField()
    bits = models.FloatField()
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering: ClassVar = ["sequence"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "sequence"], name="tick_once")
        ]


class LedgerEntry(models.Model):
    """What became known of a dataset, in bits or epsilon, and to whom. Rows are only ever added."""

    class Kind(models.TextChoices):
        TICK = "tick"
        FAULT = "fault"
        FIGURE = "figure"
        SEALED = "sealed"  # one question to the sealed split
        RELEASE = "release"

    kind = models.CharField(max_length=10, choices=Kind.choices)
    dataset = models.ForeignKey("catalog.Dataset", on_delete=models.PROTECT, related_name="+")
    organisation = models.ForeignKey(
        "accounts.Organisation", on_delete=models.PROTECT, related_name="+"
    )
    grant = models.ForeignKey("access.Grant", on_delete=models.PROTECT, related_name="ledger")
    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="ledger")
    bits = models.FloatField(default=0)
    epsilon = models.FloatField(default=0)
    delta = models.FloatField(default=0)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["dataset", "kind"], name="ledger_dataset"),
            models.Index(fields=["organisation", "kind"], name="ledger_organisation"),
            models.Index(fields=["grant", "kind"], name="ledger_grant"),
        ]


class Artefact(models.Model):
    """A file that a job left and that was collected, encrypted under the view key."""

    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="artefacts")
    path = models.CharField(max_length=255)
    kind = models.CharField(max_length=20)  # weights, metrics, config
    # As the job left it, or as the inspection rewrote it ("sanitised") for release.
    origin = models.CharField(max_length=12, default="job")
    bytes = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)
    object_name = models.CharField(max_length=64, unique=True)
    wrapped_key = models.BinaryField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "origin", "path"], name="artefact_once")
        ]

    def __str__(self) -> str:
        return f"artefact {self.pk} of job {self.job_id}"


class Checkpoint(models.Model):
    """What a job left for later jobs of its grant: encrypted for workers, and for nobody else."""

    job = models.OneToOneField(Job, on_delete=models.PROTECT, related_name="checkpoint")
    grant = models.ForeignKey("access.Grant", on_delete=models.PROTECT, related_name="checkpoints")
    bytes = models.PositiveBigIntegerField()
    object_name = models.CharField(max_length=64, unique=True)
    wrapped_key = models.BinaryField()  # by the data master key
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"checkpoint of job {self.job_id}"


class Inspection(models.Model):
    """The automatic examination of a job's artefacts."""

    job = models.OneToOneField(Job, on_delete=models.PROTECT, related_name="inspection")
    verdict = models.CharField(max_length=10)  # pass, review, block
    official = models.JSONField(default=dict)  # metrics that we measured on the sealed split
    metrics = models.JSONField(default=dict)  # the job's own, rounded and suppressed as may leave
    # How weights were rewritten, what they can still carry, and the official metrics before.
    sanitising = models.JSONField(default=dict)
    # The network's tensors, and a projection of the weights by which releases are compared
    # (sandbox_runner/inspection/sketch.py). For who examines.
    sketch = models.JSONField(default=dict, blank=True)
    # What of the policy it was held to (policies.document.inspected_under); empty in old rows.
    policy = models.JSONField(default=dict, blank=True)
    report_sha256 = models.CharField(max_length=64)  # of the public report and the internal one
    # Findings' internal parts (pictures, samples, subjects): encrypted, for reviewers only.
    internal_object = models.CharField(max_length=64, blank=True)
    internal_key = models.BinaryField(null=True)
    at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"inspection of job {self.job_id}"


class Finding(models.Model):
    """The public part of one finding."""

    inspection = models.ForeignKey(Inspection, on_delete=models.CASCADE, related_name="findings")
    number = models.PositiveIntegerField()
    rule = models.CharField(max_length=80)
    severity = models.CharField(max_length=10)  # info, review, block
    hard = models.BooleanField(default=False)
    artefact = models.CharField(max_length=255, blank=True)
    message = models.TextField()
    evidence = models.JSONField(default=dict)

    class Meta:
        ordering: ClassVar = ["number"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["inspection", "number"], name="finding_once")
        ]
