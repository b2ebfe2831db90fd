"""The trail for auditors; checkpoints and public keys for everybody."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from portal import keys
from portal.accounts.permissions import signed_in
from portal.audit import checkpoints, queries
from portal.audit.models import Checkpoint, Event
from portal.audit.record import record_attempt


class EventSerializer(serializers.ModelSerializer[Event]):
    class Meta:
        model = Event
        fields = (
            "id",
            "at",
            "actor_id",
            "actor",
            "action",
            "about_kind",
            "about_id",
            "about",
            "details",
            "digest",
        )


class FilterSerializer(serializers.Serializer[Any]):
    action = serializers.CharField(required=False, default="", max_length=80)
    actor_id = serializers.CharField(required=False, default="", max_length=40)
    about_kind = serializers.CharField(required=False, default="", max_length=60)
    about_id = serializers.CharField(required=False, default="", max_length=80)
    since = serializers.DateTimeField(required=False, default=None)
    until = serializers.DateTimeField(required=False, default=None)
    before = serializers.IntegerField(
        required=False, default=None, min_value=1, help_text="Only events with a smaller id."
    )
    limit = serializers.IntegerField(required=False, default=100, min_value=1, max_value=1000)


class EventPage(serializers.Serializer[Any]):
    count = serializers.IntegerField()
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)
    results = EventSerializer(many=True)


class EventsView(APIView):
    """Events, newest first, in pages by id: a page stays the same while events are added."""

    @extend_schema(parameters=[FilterSerializer], responses=EventPage)
    def get(self, request: Request) -> Response:
        asked = FilterSerializer(data=request.query_params)
        asked.is_valid(raise_exception=True)
        fields = dict(asked.validated_data)
        before, limit = fields.pop("before"), fields.pop("limit")
        where = queries.Filter(**fields)
        found = queries.events(viewer=signed_in(request), where=where)
        # Looking is an event too; it is written before anything is shown.
        with transaction.atomic():
            details = {**where.as_details(), "before": before, "limit": limit}
            record_attempt(
                "audit.viewed",
                by=signed_in(request),
                subject="events",
                kind="audit",
                details=details,
            )
        count = found.count()
        page = list((found.filter(id__lt=before) if before else found)[: limit + 1])
        following = None
        if len(page) > limit:
            page.pop()
            query = request.query_params.copy()
            query["before"] = str(page[-1].pk)
            following = request.build_absolute_uri(f"{request.path}?{query.urlencode()}")
        return Response(
            {
                "count": count,
                "next": following,
                "previous": None,
                "results": EventSerializer(page, many=True).data,
            }
        )


class StatementSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField()
    position = serializers.IntegerField()
    digest = serializers.CharField()
    at = serializers.CharField()
    key_id = serializers.CharField()
    signature = serializers.CharField()

    def to_representation(self, instance: Checkpoint) -> dict[str, Any]:
        """The very fields of a checkpoint file: saved as they are they can be verified with."""
        statement = checkpoints.of_row(instance)
        return {"kind": checkpoints.KIND, **vars(statement)}


class CheckpointsView(APIView):
    """Signed checkpoints of the audit chain, newest first; keep some where we cannot reach."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(responses=StatementSerializer(many=True))
    def get(self, request: Request) -> Response:
        paginator = LimitOffsetPagination()
        page = paginator.paginate_queryset(queries.checkpoints(), request, view=self)
        return paginator.get_paginated_response(StatementSerializer(page or [], many=True).data)


class PublicKeySerializer(serializers.Serializer[Any]):
    use = serializers.CharField()
    key_id = serializers.CharField()
    pem = serializers.CharField()


class KeysView(APIView):
    """The public keys that sign releases and audit checkpoints."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(responses=PublicKeySerializer(many=True))
    def get(self, request: Request) -> Response:
        rows = [
            {"use": use, "key_id": key_id, "pem": keys.public_pem(key).decode()}
            for use in ("release", "audit")
            for key_id, key in keys.public_keys(use).items()
        ]
        return Response({"count": len(rows), "next": None, "previous": None, "results": rows})
