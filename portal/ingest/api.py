"""Originals, their report and the officer's examination over HTTP."""

from __future__ import annotations

import secrets
from typing import Any, BinaryIO, cast

from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from portal.accounts.permissions import signed_in
from portal.catalog.api import VersionSerializer, find_version
from portal.ingest import actions, queries
from portal.ingest.models import ReportRow, ReviewItem, Signature
from portal.plain_input import whole_number


class RawStream(BaseParser):
    """Hands the body on as it comes: originals are encrypted while they arrive."""

    media_type = "application/zip"

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        return stream


class IntakeSerializer(serializers.Serializer[Any]):
    """How far the originals of a version are."""

    received = serializers.BooleanField()
    bytes = serializers.IntegerField(required=False)
    sha256 = serializers.CharField(required=False)
    done = serializers.IntegerField()
    total = serializers.IntegerField()
    counts = serializers.DictField(child=serializers.IntegerField())
    destroy_after = serializers.DateTimeField(required=False)
    destroyed_at = serializers.DateTimeField(required=False, allow_null=True)


class ReportRowSerializer(serializers.ModelSerializer[ReportRow]):
    """What became of one original."""

    class Meta:
        model = ReportRow
        fields = (
            "position",
            "source",
            "status",
            "target",
            "reason",
            "actions",
            "boxes",
            "facts",
            "seconds",
        )


class ReviewItemSerializer(serializers.ModelSerializer[ReviewItem]):
    """One file of the sample."""

    target = serializers.CharField(source="row.target", read_only=True)
    actions = serializers.JSONField(source="row.actions", read_only=True)
    masked = serializers.JSONField(source="row.boxes", read_only=True)
    ready = serializers.SerializerMethodField()

    class Meta:
        model = ReviewItem
        fields = (
            "id",
            "round",
            "position",
            "stratum",
            "target",
            "actions",
            "masked",
            "ready",
            "unseen",
            "width",
            "height",
            "finding",
            "boxes",
            "note",
        )

    def get_ready(self, item: ReviewItem) -> bool:
        return bool(item.after_object or item.unseen)


class OfficerFindingSerializer(serializers.Serializer[Any]):
    """The officer's word on one file."""

    finding = serializers.CharField(max_length=10)
    boxes = serializers.ListField(child=serializers.DictField(), required=False, default=list)
    note = serializers.CharField(required=False, default="", allow_blank=True, max_length=500)


class SignSerializer(serializers.Serializer[Any]):
    """The officer's statement."""

    statement = serializers.CharField(required=False, default="", allow_blank=True, max_length=1000)


class SignatureSerializer(serializers.ModelSerializer[Signature]):
    """The decision on a round."""

    class Meta:
        model = Signature
        fields = (
            "round",
            "passed",
            "sampled",
            "missed",
            "population",
            "upper_bound",
            "report_sha256",
            "manifest_sha256",
            "statement",
            "at",
        )


class Originals(APIView):
    """The steward sends the originals as one zip (PUT, application/zip)."""

    parser_classes = (RawStream,)

    @extend_schema(responses=IntakeSerializer)
    def get(self, request: Request, slug: str, number: int) -> Response:
        version = find_version(request, slug, number)
        queries.report_for(signed_in(request), version)  # the same readers
        return Response(queries.progress(version))

    @extend_schema(
        request={"application/zip": OpenApiTypes.BINARY}, responses={201: IntakeSerializer}
    )
    def put(self, request: Request, slug: str, number: int) -> Response:
        version = find_version(request, slug, number)
        stream = cast(BinaryIO, request.data or request._request)
        announced = whole_number(request.META.get("CONTENT_LENGTH") or "")
        actions.take_in(by=signed_in(request), version=version, stream=stream, announced=announced)
        return Response(queries.progress(version), status=201)


class Start(APIView):
    """The steward starts de-identification."""

    @extend_schema(request=None, responses={202: VersionSerializer})
    def post(self, request: Request, slug: str, number: int) -> Response:
        version = find_version(request, slug, number)
        version = actions.start(by=signed_in(request), version=version)
        return Response(VersionSerializer(version).data, status=202)


class Report(ListAPIView[ReportRow]):
    """One row a file."""

    serializer_class = ReportRowSerializer

    def get_queryset(self) -> Any:
        if getattr(self, "swagger_fake_view", False):
            return ReportRow.objects.none()
        version = find_version(self.request, self.kwargs["slug"], self.kwargs["number"])
        rows = queries.report_for(signed_in(self.request), version)
        status = self.request.query_params.get("status")
        return rows.filter(status=status) if status else rows


class Examination(ListAPIView[ReviewItem]):
    """The open round of the sample; an officer starts one."""

    serializer_class = ReviewItemSerializer

    def get_queryset(self) -> Any:
        if getattr(self, "swagger_fake_view", False):
            return ReviewItem.objects.none()
        version = find_version(self.request, self.kwargs["slug"], self.kwargs["number"])
        return queries.sample_for(signed_in(self.request), version)

    @extend_schema(request=None, responses={201: VersionSerializer})
    def post(self, request: Request, slug: str, number: int) -> Response:
        version = find_version(request, slug, number)
        version = actions.start_examination(
            by=signed_in(request), version=version, seed=secrets.randbits(32)
        )
        return Response(VersionSerializer(version).data, status=201)


def find_item(request: Request, slug: str, number: int, item: int) -> ReviewItem:
    """Return an item of a version that the person may see, or answer 404."""
    version = find_version(request, slug, number)
    queries.check_officer(signed_in(request), version)
    rows = ReviewItem.objects.filter(version=version).select_related(
        "row", "version__dataset__steward"
    )
    return get_object_or_404(rows, pk=item)


class Picture(APIView):
    """A before or after picture; never cached, each look is recorded."""

    @extend_schema(responses={(200, "image/png"): OpenApiTypes.BINARY})
    def get(self, request: Request, slug: str, number: int, item: int, side: str) -> FileResponse:
        found = find_item(request, slug, number, item)
        stream = queries.open_picture(by=signed_in(request), item=found, side=side)
        response = FileResponse(stream, content_type="image/png")
        response["Cache-Control"] = "no-store"
        return response


class Finding(APIView):
    """The officer's finding on one file."""

    @extend_schema(request=OfficerFindingSerializer, responses=ReviewItemSerializer)
    def post(self, request: Request, slug: str, number: int, item: int) -> Response:
        asked = OfficerFindingSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        found = find_item(request, slug, number, item)
        found = actions.record_finding(by=signed_in(request), item=found, **asked.validated_data)
        return Response(ReviewItemSerializer(found).data)


class Sign(APIView):
    """The officer closes the round."""

    @extend_schema(request=SignSerializer, responses={201: SignatureSerializer})
    def post(self, request: Request, slug: str, number: int) -> Response:
        asked = SignSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        version = find_version(request, slug, number)
        signature = actions.sign(by=signed_in(request), version=version, **asked.validated_data)
        return Response(SignatureSerializer(signature).data, status=201)
