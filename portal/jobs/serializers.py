"""The JSON shapes of submissions and jobs: the applicant's projection, and more for reviewers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils.translation import gettext
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from policies.quantities import format_bytes
from policies.queue import PRIORITIES
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.accounts.serializers import PersonBriefly
from portal.catalog.queries import policy_of
from portal.jobs import ledger, queries, rounding
from portal.jobs.models import Finding, Inspection, Job, Submission, Tick


class SubmissionSerializer(serializers.ModelSerializer[Submission]):
    """What was handed in; ``advice`` of the static scan only for who may examine it.

    The manifest holds the applicant's settings and the files' names: it is code, and null for
    whoever may not read that.
    """

    submitter = PersonBriefly()
    manifest = serializers.SerializerMethodField()
    manifest_text = serializers.SerializerMethodField()
    files = serializers.SerializerMethodField()
    archive_sha256 = serializers.SerializerMethodField()
    archive_bytes = serializers.SerializerMethodField()
    advice = serializers.SerializerMethodField()
    jobs: Any = serializers.PrimaryKeyRelatedField(many=True, read_only=True)

    class Meta:
        model = Submission
        fields = (
            "id",
            "grant",
            "name",
            "submitter",
            "manifest",
            "manifest_text",
            "files",
            "archive_sha256",
            "archive_bytes",
            "advice",
            "jobs",
            "created_at",
        )

    def _code(self, submission: Submission, field: str) -> Any:
        reads = queries.may_read_code(submission, self.context["request"].user)
        return getattr(submission, field) if reads else None

    def get_manifest(self, submission: Submission) -> dict[str, Any] | None:
        return dict(submission.manifest) if self._code(submission, "manifest") else None

    def get_manifest_text(self, submission: Submission) -> str | None:
        text: str | None = self._code(submission, "manifest_text")
        return text

    def get_files(self, submission: Submission) -> list[Any] | None:
        files: list[Any] | None = self._code(submission, "files")
        return files

    def get_archive_sha256(self, submission: Submission) -> str | None:
        sha256: str | None = self._code(submission, "archive_sha256")
        return sha256

    def get_archive_bytes(self, submission: Submission) -> int | None:
        size: int | None = self._code(submission, "archive_bytes")
        return size

    def get_advice(self, submission: Submission) -> list[dict[str, Any]] | None:
        viewer = self.context["request"].user
        jobs = submission.jobs.all()
        return submission.advice if any(queries.may_examine(job, viewer) for job in jobs) else None


class TickSerializer(serializers.ModelSerializer[Tick]):
    """Numbers at one step."""

    class Meta:
        model = Tick
        fields = ("step", "values")


class FindingSerializer(serializers.ModelSerializer[Finding]):
    """The public part of a finding."""

    class Meta:
        model = Finding
        fields = ("number", "rule", "severity", "hard", "artefact", "message", "evidence")


class InspectionSerializer(serializers.ModelSerializer[Inspection]):
    """What the inspection found, as anybody around the job may read it.

    ``official``, ``metrics``, ``sanitising`` (what was done to weights, what they can still carry,
    the official metrics before) and the digest, from which figures could be guessed, are null for
    the applicant until they were released. ``at`` is rounded: it follows the job's end.
    """

    findings = FindingSerializer(many=True)
    at = serializers.SerializerMethodField()
    official = serializers.SerializerMethodField()
    metrics = serializers.SerializerMethodField()
    sanitising = serializers.SerializerMethodField()
    report_sha256 = serializers.SerializerMethodField()

    class Meta:
        model = Inspection
        fields = (
            "verdict", "official", "metrics", "sanitising", "findings", "report_sha256", "at"
        )  # fmt: skip

    def _figures(self, inspection: Inspection) -> bool:
        request = self.context.get("request")
        return queries.may_see_figures(inspection.job, request.user if request else None)

    def get_at(self, inspection: Inspection) -> datetime | None:
        return rounding.rounded_minute(inspection.at)

    def get_report_sha256(self, inspection: Inspection) -> str | None:
        return inspection.report_sha256 if self._figures(inspection) else None

    def get_official(self, inspection: Inspection) -> dict[str, Any] | None:
        return inspection.official if self._figures(inspection) else None

    def get_sanitising(self, inspection: Inspection) -> dict[str, Any] | None:
        return inspection.sanitising if self._figures(inspection) else None

    def get_metrics(self, inspection: Inspection) -> dict[str, Any] | None:
        return inspection.metrics if self._figures(inspection) else None


class WaitingSerializer(serializers.Serializer[Any]):
    """Why a job waits."""

    code = serializers.CharField()
    sentence = serializers.CharField()
    facts = serializers.DictField()
    likely_start = serializers.DateTimeField(allow_null=True)


class FaultSerializer(serializers.Serializer[Any]):
    """What is told of an exception: a built-in type's name, a file of the submission, a line."""

    type = serializers.CharField()
    file = serializers.CharField()
    line = serializers.IntegerField()


class UtilisationSerializer(serializers.Serializer[Any]):
    """How much of what it asked for a job used, in steps of 10 %."""

    cpu = serializers.IntegerField()
    memory = serializers.IntegerField()
    data_wait = serializers.IntegerField(required=False)


class JobSerializer(serializers.ModelSerializer[Job]):
    """A job as its reader may see it; ``operator`` is null for the applicant."""

    dataset = serializers.CharField(source="version.dataset.slug")
    version = serializers.IntegerField(source="version.number")
    name = serializers.CharField(source="submission.name")
    submitter = PersonBriefly(source="submission.submitter")
    resources = serializers.DictField(source="submission.manifest.resources")
    waiting = serializers.SerializerMethodField()
    seconds = serializers.SerializerMethodField()
    fault = serializers.SerializerMethodField()
    utilisation = serializers.SerializerMethodField()
    checkpoint = serializers.CharField(source="checkpoint_state")
    verdict = serializers.SerializerMethodField()
    releases: Any = serializers.PrimaryKeyRelatedField(many=True, read_only=True)
    actions = serializers.SerializerMethodField()
    artefacts = serializers.SerializerMethodField()
    operator = serializers.SerializerMethodField()
    state_since = serializers.SerializerMethodField()
    ended_at = serializers.SerializerMethodField()
    budget = serializers.SerializerMethodField()

    class Meta:
        model = Job
        fields = (
            "id",
            "submission",
            "grant",
            "dataset",
            "version",
            "name",
            "submitter",
            "state",
            "reason",
            "message",
            "field",
            "waiting",
            "seconds",
            "fault",
            "utilisation",
            "checkpoint",
            "resources",
            "priority",
            "curves_stopped",
            "budget",
            "artefacts",
            "verdict",
            "releases",
            "actions",
            "operator",
            "created_at",
            "state_since",
            "ended_at",
        )

    def _viewer(self) -> Person:
        viewer = self.context["request"].user
        assert isinstance(viewer, Person)
        return viewer

    def _runs_machine_only(self, job: Job) -> bool:
        """An administrator sees that a job is there and what it needs, not what it says."""
        viewer = self._viewer()
        return "administrator" in roles_of(viewer) and not queries.is_insider(job, viewer)

    @extend_schema_field(WaitingSerializer(allow_null=True))
    def get_waiting(self, job: Job) -> dict[str, Any] | None:
        code, facts = queries.waiting_of(job)
        if code not in queries.WAITING:
            return None
        if code in ("memory", "room"):
            sizes = {name: format_bytes(facts[name]) for name in ("wanted", "free")}
            facts = {**facts, **sizes}
        return {
            "code": code,
            "sentence": gettext(queries.WAITING[code]).format(**facts),
            "facts": facts,
            "likely_start": queries.likely_start(job),
        }

    def get_seconds(self, job: Job) -> int | None:
        return rounding.rounded_seconds(job.wall_seconds)

    @extend_schema_field(FaultSerializer(allow_null=True))
    def get_fault(self, job: Job) -> dict[str, Any] | None:
        if not job.fault_type or self._runs_machine_only(job):
            return None
        return {"type": job.fault_type, "file": job.fault_file, "line": job.fault_line}

    @extend_schema_field(UtilisationSerializer(allow_null=True))
    def get_utilisation(self, job: Job) -> dict[str, Any] | None:
        if not job.utilisation or self._runs_machine_only(job):
            return None
        return dict(job.utilisation)

    def get_verdict(self, job: Job) -> str | None:
        inspection = getattr(job, "inspection", None)
        return inspection.verdict if inspection else None

    def get_actions(self, job: Job) -> list[str]:
        return list(queries.actions_for(job, self._viewer()))

    def get_artefacts(self, job: Job) -> list[dict[str, Any]]:
        sees = queries.may_see_figures(job, self._viewer())
        return [
            {
                "id": artefact.pk,
                "path": artefact.path,
                "kind": artefact.kind,
                "origin": artefact.origin,
                "bytes": artefact.bytes if sees else None,
            }
            for artefact in sorted(job.artefacts.all(), key=lambda artefact: artefact.path)
        ]

    def get_state_since(self, job: Job) -> datetime | None:
        return rounding.rounded_minute(job.state_since)

    def get_ended_at(self, job: Job) -> datetime | None:
        return rounding.rounded_minute(job.ended_at)

    def get_budget(self, job: Job) -> dict[str, Any] | None:
        """Bits spent and allowed, for the job and its grant."""
        if self._runs_machine_only(job):
            return None
        balances = ledger.balances(job, policy_of(job.version.dataset))
        return {
            name: {"spent": round(balances[name].spent), "limit": int(balances[name].limit)}
            for name in ("job", "grant")
        }

    @extend_schema_field(serializers.DictField(allow_null=True))
    def get_operator(self, job: Job) -> dict[str, Any] | None:
        """What the machine's operator knows: reviewers, auditors and the steward."""
        if not queries.may_examine(job, self._viewer()):
            return None
        return {
            "exit_code": job.exit_code,
            "wall_seconds": job.wall_seconds,
            "cpu_seconds": job.cpu_seconds,
            "peak_memory_bytes": job.peak_memory_bytes,
            "backend": job.backend,
            "backend_version": job.backend_version,
            "rejected": job.rejected,
            "log_bytes": job.log_bytes,
            "runs": job.runs,
            "steps": [
                {
                    "state": step.state,
                    "began_at": step.began_at,
                    "ended_at": step.ended_at,
                    "result": step.result,
                }
                for step in job.steps.all()
            ],
        }


class JobBriefly(serializers.ModelSerializer[Job]):
    """A job in a list."""

    dataset = serializers.CharField(source="version.dataset.slug")
    version = serializers.IntegerField(source="version.number")
    name = serializers.CharField(source="submission.name")
    seconds = serializers.SerializerMethodField()
    ended_at = serializers.SerializerMethodField()

    class Meta:
        model = Job
        fields = (
            "id",
            "name",
            "dataset",
            "version",
            "grant",
            "state",
            "reason",
            "seconds",
            "created_at",
            "ended_at",
        )

    def get_ended_at(self, job: Job) -> datetime | None:
        return rounding.rounded_minute(job.ended_at)

    def get_seconds(self, job: Job) -> int | None:
        return rounding.rounded_seconds(job.wall_seconds)


class UploadSerializer(serializers.Serializer[Any]):
    """A submission as multipart form data: a zip and the number of a grant."""

    grant = serializers.IntegerField()
    file = serializers.FileField()


class SubmittedSerializer(serializers.Serializer[Any]):
    """What was made of an upload."""

    submission = SubmissionSerializer()
    job = JobSerializer()


class PrioritySerializer(serializers.Serializer[Any]):
    """-1: behind others, 0: as usual, 1: before others."""

    priority = serializers.ChoiceField(choices=sorted(PRIORITIES))


class LogSerializer(serializers.Serializer[Any]):
    """A log as inert text."""

    log = serializers.CharField()
