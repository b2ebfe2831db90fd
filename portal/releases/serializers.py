"""The JSON shapes of releases."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from policies.checklist import LINES
from portal.accounts.models import Person
from portal.accounts.serializers import PersonBriefly
from portal.jobs.models import Artefact
from portal.jobs.queries import may_examine, may_see_figures
from portal.jobs.serializers import InspectionSerializer
from portal.releases import queries
from portal.releases.models import Lift, Release
from portal.voting.serializers import VoteInput, VotingSerializer, voting_facts


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


def bundle_facts(release: Release, viewer: Person) -> dict[str, Any]:
    """Return the facts of a release's bundle: of the viewer's own copy, where they have one."""
    own = next((copy for copy in release.copies.all() if copy.person_id == viewer.pk), release)
    return {
        "ready": bool(release.bundle_object),
        "sha256": own.bundle_sha256,
        "bytes": own.bundle_bytes,
        "statement_sha256": own.statement_sha256,
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
    checklist = serializers.SerializerMethodField()
    notices = serializers.SerializerMethodField()

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
            "proprietary",
            "artefacts",
            "inspection",
            "voting",
            "ledger_before",
            "ledger_after",
            "bundle",
            "history",
            "advice",
            "checklist",
            "notices",
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

    def get_notices(self, release: Release) -> list[dict[str, Any]] | None:
        """What the dataset's earlier releases say of this one: for who examines."""
        return release.notices if may_examine(release.job, self._viewer()) else None

    @extend_schema_field(serializers.ListField(child=serializers.DictField()))
    def get_checklist(self, release: Release) -> list[dict[str, str]]:
        """What the policy asks a reviewer to have looked at."""
        asked = queries.policy_for(release).review.checklist
        return [{"name": n, "sentence": gettext(s)} for n, s in LINES.items() if n in asked]

    def get_actions(self, release: Release) -> list[str]:
        return list(queries.actions_for(release, self._viewer()))

    @extend_schema_field(BundleSerializer)
    def get_bundle(self, release: Release) -> dict[str, Any]:
        return bundle_facts(release, self._viewer())

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
    proprietary = serializers.BooleanField(
        required=False, default=False, help_text="only reviewers that the steward names see it"
    )


class ReviewInput(VoteInput):
    """A vote on exactly what ``bound_to`` names, with what was looked at."""

    looked_at = serializers.ListField(
        child=serializers.CharField(max_length=40),
        required=False,
        default=list,
        max_length=40,
        help_text="lines of the release's checklist; an approval needs all of them",
    )


class NamesInput(serializers.Serializer[Any]):
    """Reviewers by their addresses."""

    reviewers = serializers.ListField(child=serializers.EmailField(), min_length=1, max_length=20)


class LiftSerializer(serializers.ModelSerializer[Lift]):
    """That a soft block was lifted, and why."""

    class Meta:
        model = Lift
        fields = ("job", "reason", "at")


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
