"""Originals, their report and the officer's examination over HTTP."""

from __future__ import annotations

import secrets
from typing import Any, BinaryIO, cast

from django.http import FileResponse, Http404, HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from policies.errors import Conflict, _
from portal.accounts.permissions import signed_in
from portal.catalog.api import VersionSerializer, find_version
from portal.ingest import actions, handing_out, queries
from portal.ingest.models import Destruction, ReportRow, ReviewItem, Signature
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
    quarantine_count = serializers.IntegerField(required=False)
    quarantine_destroy_after = serializers.DateTimeField(required=False, allow_null=True)
    quarantine_destroyed_at = serializers.DateTimeField(required=False, allow_null=True)


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
    frames = serializers.SerializerMethodField(help_text="frames that have pictures of their own")

    class Meta:
        model = ReviewItem
        fields = (
            "id",
            "round",
            "position",
            "stratum",
            "why",
            "target",
            "actions",
            "masked",
            "ready",
            "unseen",
            "width",
            "height",
            "frames",
            "frame_count",
            "finding",
            "boxes",
            "wrong_boxes",
            "note",
        )

    def get_ready(self, item: ReviewItem) -> bool:
        return bool(item.after_object or item.unseen)

    def get_frames(self, item: ReviewItem) -> list[int]:
        return sorted(int(number) for number in item.frames)


class OfficerFindingSerializer(serializers.Serializer[Any]):
    """The officer's word on one file."""

    finding = serializers.CharField(max_length=10)
    boxes = serializers.ListField(child=serializers.DictField(), required=False, default=list)
    wrong = serializers.ListField(child=serializers.DictField(), required=False, default=list)
    note = serializers.CharField(required=False, default="", allow_blank=True, max_length=500)


class SignSerializer(serializers.Serializer[Any]):
    """The officer's statement."""

    statement = serializers.CharField(required=False, default="", allow_blank=True, max_length=1000)
    correct = serializers.BooleanField(
        required=False, default=False, help_text="send it back for its wrong boxes alone"
    )


class SignatureSerializer(serializers.ModelSerializer[Signature]):
    """The decision on a round."""

    class Meta:
        model = Signature
        fields = (
            "round",
            "passed",
            "mode",
            "sampled",
            "at_random",
            "missed",
            "wrong",
            "population",
            "upper_bound",
            "report_sha256",
            "manifest_sha256",
            "statement",
            "standing",
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


class Next(APIView):
    """Hands the officer the next file that nobody else has; 204 when none is left."""

    @extend_schema(request=None, responses={200: ReviewItemSerializer, 204: None})
    def post(self, request: Request, slug: str, number: int) -> Response:
        version = find_version(request, slug, number)
        item = handing_out.hand_out(by=signed_in(request), version=version)
        return Response(ReviewItemSerializer(item).data) if item else Response(status=204)


class Turn(APIView):
    """Keeps (POST) or gives back (DELETE) a file that the officer has in hand."""

    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request, slug: str, number: int, item: int) -> Response:
        found = find_item(request, slug, number, item)
        handing_out.take(by=signed_in(request), item=found)
        return Response(status=204)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, slug: str, number: int, item: int) -> Response:
        found = find_item(request, slug, number, item)
        handing_out.give_back(by=signed_in(request), item=found)
        return Response(status=204)


class Picture(APIView):
    """A before or after picture, of one frame where one is named; each look is recorded."""

    @extend_schema(
        parameters=[OpenApiParameter("frame", int, description="a frame's number, from 1")],
        responses={(200, "image/png"): OpenApiTypes.BINARY},
    )
    def get(self, request: Request, slug: str, number: int, item: int, side: str) -> FileResponse:
        found = find_item(request, slug, number, item)
        frame = whole_number(request.query_params.get("frame") or "0") or 0
        by = signed_in(request)
        stream = queries.open_picture(by=by, item=found, side=side, frame=frame)
        response = FileResponse(stream, content_type="image/png")
        response["Cache-Control"] = "no-store"
        return response


class DifferenceSerializer(serializers.Serializer[Any]):
    """One place of the header that differs."""

    place = serializers.CharField()
    keyword = serializers.CharField(allow_blank=True)
    state = serializers.CharField()
    before = serializers.CharField(allow_blank=True)
    after = serializers.CharField(allow_blank=True)


class Header(APIView):
    """What the header said before and says now; never cached, each look is recorded."""

    @extend_schema(responses=DifferenceSerializer(many=True))
    def get(self, request: Request, slug: str, number: int, item: int) -> Response:
        found = find_item(request, slug, number, item)
        response = Response(queries.open_header(by=signed_in(request), item=found))
        response["Cache-Control"] = "no-store"
        return response


class DestructionSerializer(serializers.ModelSerializer[Destruction]):
    """The record that something was destroyed."""

    certified = serializers.SerializerMethodField()

    class Meta:
        model = Destruction
        fields = ("id", "what", "count", "bytes", "at", "certified")

    def get_certified(self, row: Destruction) -> bool:
        return bool(row.certificate)


class Destructions(ListAPIView[Destruction]):
    """What was destroyed of a version, for the report's readers."""

    serializer_class = DestructionSerializer

    def get_queryset(self) -> Any:
        if getattr(self, "swagger_fake_view", False):
            return Destruction.objects.none()
        version = find_version(self.request, self.kwargs["slug"], self.kwargs["number"])
        queries.report_for(signed_in(self.request), version)
        return version.destructions.order_by("-at", "-pk")


class Certificate(APIView):
    """The signed certificate of a destruction; ``glovebox verify`` checks it offline."""

    @extend_schema(responses={(200, "application/json"): OpenApiTypes.BINARY})
    def get(self, request: Request, slug: str, number: int, destruction: int) -> HttpResponse:
        version = find_version(request, slug, number)
        try:
            made = queries.certificate_of(signed_in(request), version, destruction)
        except Destruction.DoesNotExist:
            raise Http404 from None
        if not made.certificate:
            raise Conflict(
                _("The certificate is being signed; try again in a minute."), code="certificate"
            )
        name = f"{version.dataset.slug}-v{version.number}-{made.what}-{made.pk}.destroyed.json"
        return HttpResponse(
            made.certificate,
            content_type="application/json",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


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
