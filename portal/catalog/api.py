"""The catalogue over HTTP: metadata for anyone, changes for stewards."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from portal.accounts.models import Person
from portal.accounts.permissions import SignedIn, signed_in
from portal.catalog import actions, croissant, queries
from portal.catalog.models import Dataset, DatasetVersion


class VersionSerializer(serializers.ModelSerializer[DatasetVersion]):
    """A version's public facts and, for those who work on it, its state."""

    dataset = serializers.CharField(source="dataset.slug", read_only=True)

    class Meta:
        model = DatasetVersion
        fields = (
            "dataset",
            "number",
            "state",
            "reason",
            "subjects",
            "files",
            "bytes",
            "training_samples",
            "manifest_sha256",
            "card",
            "created_at",
            "published_at",
        )


class DatasetSerializer(serializers.ModelSerializer[Dataset]):
    """A dataset with the versions that the reader may see."""

    organisation = serializers.CharField(source="unit.organisation.name", read_only=True)
    versions = serializers.SerializerMethodField()
    sample_bytes = serializers.IntegerField(source="sample.bytes", read_only=True, default=None)

    class Meta:
        model = Dataset
        fields = (
            "slug",
            "kind",
            "title",
            "title_ko",
            "description",
            "description_ko",
            "licence",
            "organisation",
            "deid_profile",
            "policy",
            "sample_bytes",
            "versions",
        )

    def get_versions(self, dataset: Dataset) -> list[dict[str, Any]]:
        rows = queries.versions_for(person_of(self.context["request"]))
        return list(VersionSerializer(rows.filter(dataset=dataset), many=True).data)


class NewDataset(serializers.Serializer[Any]):
    """What a steward says of a new dataset."""

    slug = serializers.CharField(max_length=60)
    kind = serializers.CharField(max_length=20)
    title = serializers.CharField(max_length=200)
    description = serializers.CharField(max_length=20_000)
    title_ko = serializers.CharField(max_length=200, required=False, default="")
    description_ko = serializers.CharField(max_length=20_000, required=False, default="")
    profile = serializers.CharField(max_length=60, required=False, default="research")
    policy = serializers.DictField(required=False, default=dict)


def person_of(request: Request) -> Person | None:
    """Return who asks, or None for a visitor."""
    return request.user if isinstance(request.user, Person) else None


def find_dataset(request: Request, slug: str) -> Dataset:
    """Return a dataset that the person may see, or answer 404."""
    return get_object_or_404(queries.datasets_for(person_of(request)), slug=slug)


def find_version(request: Request, slug: str, number: int) -> DatasetVersion:
    """Return a version that the person may see, or answer 404."""
    rows = queries.versions_for(person_of(request))
    return get_object_or_404(rows, dataset__slug=slug, number=number)


class Datasets(ListAPIView[Dataset]):
    """List the datasets one may see; a steward adds one."""

    permission_classes = (AllowAny,)
    serializer_class = DatasetSerializer

    def get_queryset(self) -> Any:
        return queries.datasets_for(person_of(self.request))

    def get_permissions(self) -> list[Any]:
        return [AllowAny()] if self.request.method in ("GET", "HEAD", "OPTIONS") else [SignedIn()]

    @extend_schema(request=NewDataset, responses={201: DatasetSerializer})
    def post(self, request: Request) -> Response:
        asked = NewDataset(data=request.data)
        asked.is_valid(raise_exception=True)
        dataset = actions.create_dataset(by=signed_in(request), **asked.validated_data)
        return Response(DatasetSerializer(dataset, context={"request": request}).data, status=201)


class OneDataset(APIView):
    """One dataset's metadata."""

    permission_classes = (AllowAny,)

    @extend_schema(responses=DatasetSerializer)
    def get(self, request: Request, slug: str) -> Response:
        dataset = find_dataset(request, slug)
        return Response(DatasetSerializer(dataset, context={"request": request}).data)


class CroissantDocument(APIView):
    """The newest published version as Croissant JSON-LD."""

    permission_classes = (AllowAny,)

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, slug: str) -> Response:
        get_object_or_404(queries.public_datasets(), slug=slug)
        version = queries.published(slug)
        url = f"{settings.BASE_URL}/datasets/{slug}/"
        return Response(croissant.document(version, url=url), content_type="application/ld+json")


class SampleArchive(APIView):
    """The open synthetic sample as a zip."""

    permission_classes = (AllowAny,)

    @extend_schema(responses={(200, "application/zip"): OpenApiTypes.BINARY})
    def get(self, request: Request, slug: str) -> FileResponse:
        dataset = find_dataset(request, slug)
        return FileResponse(
            queries.open_sample(dataset),
            as_attachment=True,
            filename=f"{dataset.slug}-sample.zip",
            content_type="application/zip",
        )


class Versions(APIView):
    """A dataset's versions; its steward opens the next."""

    def get_permissions(self) -> list[Any]:
        return [AllowAny()] if self.request.method in ("GET", "HEAD", "OPTIONS") else [SignedIn()]

    @extend_schema(responses=VersionSerializer(many=True))
    def get(self, request: Request, slug: str) -> Response:
        dataset = find_dataset(request, slug)
        rows = queries.versions_for(person_of(request)).filter(dataset=dataset)
        return Response(VersionSerializer(rows, many=True).data)

    @extend_schema(request=None, responses={201: VersionSerializer})
    def post(self, request: Request, slug: str) -> Response:
        version = actions.create_version(by=signed_in(request), dataset=find_dataset(request, slug))
        return Response(VersionSerializer(version).data, status=201)


class OneVersion(APIView):
    """One version."""

    permission_classes = (AllowAny,)

    @extend_schema(responses=VersionSerializer)
    def get(self, request: Request, slug: str, number: int) -> Response:
        return Response(VersionSerializer(find_version(request, slug, number)).data)


class Retire(APIView):
    """The steward takes a version out of the catalogue."""

    @extend_schema(request=None, responses=VersionSerializer)
    def post(self, request: Request, slug: str, number: int) -> Response:
        version = find_version(request, slug, number)
        return Response(
            VersionSerializer(actions.retire(by=signed_in(request), version=version)).data
        )
