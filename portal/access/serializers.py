"""The JSON shapes of requests, agreements and grants."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from portal.access import queries
from portal.access.models import AccessRequest, Agreement, Grant, RequestDocument
from portal.accounts.models import Person
from portal.accounts.serializers import PersonBriefly
from portal.voting.serializers import VotingSerializer, voting_facts


class DocumentSerializer(serializers.ModelSerializer[RequestDocument]):
    """An uploaded document; its bytes are fetched from .../documents/<id>."""

    class Meta:
        model = RequestDocument
        fields = ("id", "kind", "filename", "media_type", "bytes", "sha256", "uploaded_at")


class RequestSerializer(serializers.ModelSerializer[AccessRequest]):
    """An access request as its reader may see it."""

    dataset = serializers.CharField(source="version.dataset.slug")
    version = serializers.IntegerField(source="version.number")
    applicant = PersonBriefly()
    analysts = PersonBriefly(many=True)
    answers = serializers.DictField()
    documents = serializers.SerializerMethodField()
    voting = serializers.SerializerMethodField()
    actions = serializers.SerializerMethodField()
    grant = serializers.SerializerMethodField()

    class Meta:
        model = AccessRequest
        fields = (
            "id",
            "state",
            "dataset",
            "version",
            "title",
            "purpose",
            "answers",
            "conflict_declared",
            "applicant",
            "analysts",
            "documents",
            "round",
            "bound_to",
            "voting",
            "reason",
            "actions",
            "grant",
            "created_at",
            "submitted_at",
            "decided_at",
        )

    def _viewer(self) -> Person:
        viewer = self.context["request"].user
        assert isinstance(viewer, Person)
        return viewer

    @extend_schema_field(DocumentSerializer(many=True))
    def get_documents(self, request: AccessRequest) -> Any:
        return DocumentSerializer(queries.documents_of(request), many=True).data

    @extend_schema_field(VotingSerializer)
    def get_voting(self, request: AccessRequest) -> dict[str, Any]:
        return voting_facts(queries.voting_for(request, self._viewer()))

    def get_actions(self, request: AccessRequest) -> list[str]:
        return list(queries.actions_for(request, self._viewer()))

    def get_grant(self, request: AccessRequest) -> int | None:
        return Grant.objects.filter(request=request).values_list("pk", flat=True).first()


class RequestBriefly(serializers.ModelSerializer[AccessRequest]):
    """A request in a list."""

    dataset = serializers.CharField(source="version.dataset.slug")
    version = serializers.IntegerField(source="version.number")
    applicant = PersonBriefly()

    class Meta:
        model = AccessRequest
        fields = (
            "id",
            "state",
            "dataset",
            "version",
            "title",
            "purpose",
            "applicant",
            "submitted_at",
            "decided_at",
        )


class NewRequest(serializers.Serializer[Any]):
    """What begins a request; ``answers`` may be incomplete."""

    dataset = serializers.CharField()
    version = serializers.IntegerField(required=False, allow_null=True, default=None)
    answers = serializers.DictField(required=False, default=dict)
    conflict_declared = serializers.BooleanField(required=False, default=False)


class RequestChanges(serializers.Serializer[Any]):
    """Fields of a draft to replace."""

    answers = serializers.DictField(required=False, default=dict)
    conflict_declared = serializers.BooleanField(required=False, allow_null=True, default=None)


class ReasonInput(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(required=False, allow_blank=True, default="", max_length=2000)


class SignatureInput(serializers.Serializer[Any]):
    """A signature under the current agreement."""

    agreement = serializers.IntegerField()
    typed_name = serializers.CharField(max_length=150)
    language = serializers.ChoiceField(choices=["en", "ko"], required=False, default="en")


class DocumentInput(serializers.Serializer[Any]):
    """A document as multipart form data."""

    file = serializers.FileField()
    kind = serializers.CharField(required=False, default="ethics")


class AgreementSerializer(serializers.ModelSerializer[Agreement]):
    """One version of an agreement with both texts (Markdown)."""

    class Meta:
        model = Agreement
        fields = (
            "id",
            "name",
            "number",
            "title_en",
            "title_ko",
            "text_en",
            "text_ko",
            "sha256",
            "published_at",
        )
        read_only_fields = ("id", "name", "number", "sha256", "published_at")


class GrantSerializer(serializers.ModelSerializer[Grant]):
    """A grant."""

    dataset = serializers.CharField(source="version.dataset.slug")
    version = serializers.IntegerField(source="version.number")
    holder = PersonBriefly()
    analysts = PersonBriefly(many=True)
    organisation = serializers.CharField(source="unit.organisation.name")

    class Meta:
        model = Grant
        fields = (
            "id",
            "request",
            "dataset",
            "version",
            "purpose",
            "state",
            "reason",
            "holder",
            "organisation",
            "analysts",
            "starts_at",
            "ends_at",
        )


class FieldSerializer(serializers.Serializer[Any]):
    """One field of the request form."""

    name = serializers.CharField()
    kind = serializers.CharField()
    label: Any = serializers.CharField()
    help = serializers.CharField()
    required: Any = serializers.BooleanField()
    least = serializers.IntegerField()
    most = serializers.IntegerField()


class ServiceLevelSerializer(serializers.Serializer[Any]):
    """Median days that requests stayed in a state."""

    state = serializers.CharField()
    median_days = serializers.FloatField()
    count = serializers.IntegerField()
