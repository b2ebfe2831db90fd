"""The JSON shapes of releases."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from portal.accounts.models import Person
from portal.accounts.serializers import PersonBriefly
from portal.jobs.models import Artefact
from portal.jobs.queries import may_examine, may_see_figures
from portal.jobs.serializers import InspectionSerializer
from portal.releases import queries
from portal.releases.models import Release
from portal.voting.serializers import VotingSerializer, voting_facts


class ArtefactSerializer(serializers.ModelSerializer[Artefact]):
    """A file that may leave; size and digest are null for the applicant until it has left."""

    class Meta:
        model = Artefact
        fields = ("id", "path", "kind", "origin", "bytes", "sha256")

    def to_representation(self, instance: Artefact) -> dict[str, Any]:
        shown = dict(super().to_representation(instance))
        if not self.context["sees_figures"]:
            shown |= {"bytes": None, "sha256": None}
        return shown


class BundleSerializer(serializers.Serializer[Any]):
    """Facts of the signed bundle."""

    ready = serializers.BooleanField()
    sha256 = serializers.CharField()
    bytes = serializers.IntegerField()
    statement_sha256 = serializers.CharField()
    released_at = serializers.DateTimeField(allow_null=True)


def bundle_facts(release: Release) -> dict[str, Any]:
    """Return the facts of a release's bundle."""
    return {
        "ready": bool(release.bundle_object),
        "sha256": release.bundle_sha256,
        "bytes": release.bundle_bytes,
        "statement_sha256": release.statement_sha256,
        "released_at": release.released_at,
    }


class ReleaseBriefly(serializers.ModelSerializer[Release]):
    """A release in a list."""

    dataset = serializers.CharField(source="job.version.dataset.slug")
    version = serializers.IntegerField(source="job.version.number")
    name = serializers.CharField(source="job.submission.name")
    organisation = serializers.CharField(source="job.grant.unit.organisation.name")

    class Meta:
        model = Release
        fields = (
            "id",
            "job",
            "name",
            "dataset",
            "version",
            "organisation",
            "state",
            "created_at",
            "released_at",
        )


class ReleaseSerializer(serializers.ModelSerializer[Release]):
    """A release as its reader may see it."""

    dataset = serializers.CharField(source="job.version.dataset.slug")
    version = serializers.IntegerField(source="job.version.number")
    name = serializers.CharField(source="job.submission.name")
    submission = serializers.IntegerField(source="job.submission_id")
    proposer = PersonBriefly()
    artefacts = serializers.SerializerMethodField()
    inspection = InspectionSerializer(source="job.inspection")
    voting = serializers.SerializerMethodField()
    actions = serializers.SerializerMethodField()
    bundle = serializers.SerializerMethodField()
    history = serializers.SerializerMethodField()
    advice = serializers.SerializerMethodField()

    class Meta:
        model = Release
        fields = (
            "id",
            "job",
            "submission",
            "name",
            "dataset",
            "version",
            "state",
            "reason",
            "proposer",
            "note",
            "round",
            "conflict_declared",
            "artefacts",
            "inspection",
            "voting",
            "ledger_before",
            "ledger_after",
            "bundle",
            "history",
            "advice",
            "actions",
            "created_at",
            "approved_at",
            "released_at",
            "revoked_at",
        )

    def _viewer(self) -> Person:
        viewer = self.context["request"].user
        assert isinstance(viewer, Person)
        return viewer

    @extend_schema_field(ArtefactSerializer(many=True))
    def get_artefacts(self, release: Release) -> Any:
        context = {"sees_figures": may_see_figures(release.job, self._viewer())}
        rows = sorted(release.artefacts.all(), key=lambda artefact: artefact.pk)
        return ArtefactSerializer(rows, many=True, context=context).data

    @extend_schema_field(VotingSerializer)
    def get_voting(self, release: Release) -> dict[str, Any]:
        # A digest of figures that are not released yet could be guessed at.
        shows_digest = may_see_figures(release.job, self._viewer())
        view = queries.voting_for(release, self._viewer())
        return voting_facts(view, shows_digest=shows_digest)

    def get_actions(self, release: Release) -> list[str]:
        return list(queries.actions_for(release, self._viewer()))

    @extend_schema_field(BundleSerializer)
    def get_bundle(self, release: Release) -> dict[str, Any]:
        return bundle_facts(release)

    @extend_schema_field(ReleaseBriefly(many=True))
    def get_history(self, release: Release) -> Any:
        """Earlier releases of this organisation on this dataset: for who examines."""
        if not may_examine(release.job, self._viewer()):
            return []
        return ReleaseBriefly(queries.history_of(release)[:20], many=True).data

    def get_advice(self, release: Release) -> list[dict[str, Any]] | None:
        """The static scan's advice on the code: for who examines."""
        if not may_examine(release.job, self._viewer()):
            return None
        return release.job.submission.advice


class ProposalInput(serializers.Serializer[Any]):
    """What is proposed."""

    job = serializers.IntegerField()
    note = serializers.CharField(required=False, allow_blank=True, default="")
    conflict_declared = serializers.BooleanField(required=False, default=False)


class AgainInput(serializers.Serializer[Any]):
    """The answer to reviewers who returned a release."""

    note = serializers.CharField(required=False, allow_blank=True, default="")
    conflict_declared = serializers.BooleanField(required=False, allow_null=True, default=None)


class LinkSerializer(serializers.Serializer[Any]):
    """A personal link; ``url`` is shown this once."""

    url = serializers.CharField()
    token = serializers.CharField()
    expires_at = serializers.DateTimeField()
    uses_allowed = serializers.IntegerField()
