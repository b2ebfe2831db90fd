"""Access requests, agreements and grants over HTTP."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import FileResponse
from django.utils.translation import gettext
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.parsers import MultiPartParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from policies.access import REQUEST_FIELDS
from portal.access import actions, decisions, grants, queries
from portal.access import serializers as shapes
from portal.access.models import AccessRequest, Agreement, Grant, RequestDocument
from portal.accounts.api import fields_of
from portal.accounts.permissions import signed_in
from portal.catalog.queries import published
from portal.voting.serializers import VoteInput


def _request(request: Request, pk: int) -> AccessRequest:
    """Return a request that the person may read, or answer 404."""
    return get_object_or_404(queries.requests_visible_to(signed_in(request)), pk=pk)


def _submitted(pk: int) -> AccessRequest:
    """Return any request that was handed in: voting on it is refused by rule, not hidden."""
    return get_object_or_404(AccessRequest.objects.filter(round__gt=0), pk=pk)


def _answer(request: Request, row: AccessRequest, status: int = 200) -> Response:
    shown = get_object_or_404(queries.requests_visible_to(signed_in(request)), pk=row.pk)
    context = {"request": request}
    data = shapes.RequestSerializer(queries.surround(shown), context=context).data
    return Response(data, status=status)


class Fields(APIView):
    """The fields of the request form with their rules and words."""

    permission_classes = (AllowAny,)

    @extend_schema(responses=shapes.FieldSerializer(many=True))
    def get(self, request: Request) -> Response:
        rows = [
            {
                "name": field.name,
                "kind": field.kind,
                "label": gettext(field.label),
                "help": gettext(field.help) if field.help else "",
                "required": field.required,
                "least": field.least,
                "most": field.most,
            }
            for field in REQUEST_FIELDS
        ]
        return Response(rows)


class ServiceLevels(APIView):
    """How long each step took, in the median: shown before somebody asks."""

    permission_classes = (AllowAny,)

    @extend_schema(responses=shapes.ServiceLevelSerializer(many=True))
    def get(self, request: Request) -> Response:
        return Response([vars(level) for level in queries.service_levels()])


class Requests(ListAPIView[AccessRequest]):
    """The requests one may read; anyone with a unit begins one."""

    serializer_class = shapes.RequestBriefly

    def get_queryset(self) -> QuerySet[AccessRequest]:
        rows = queries.requests_visible_to(signed_in(self.request))
        state = self.request.query_params.get("state", "")
        return rows.filter(state=state) if state else rows

    @extend_schema(request=shapes.NewRequest, responses={201: shapes.RequestSerializer})
    def post(self, request: Request) -> Response:
        given = fields_of(shapes.NewRequest, request)
        row = actions.create_request(
            by=signed_in(request),
            version=published(given["dataset"], given["version"]),
            fields=given["answers"],
            conflict=given["conflict_declared"],
        )
        return _answer(request, row, 201)


class OneRequest(APIView):
    """One request: read it, or change one's own draft."""

    @extend_schema(responses=shapes.RequestSerializer)
    def get(self, request: Request, pk: int) -> Response:
        return _answer(request, _request(request, pk))

    @extend_schema(request=shapes.RequestChanges, responses=shapes.RequestSerializer)
    def patch(self, request: Request, pk: int) -> Response:
        given = fields_of(shapes.RequestChanges, request)
        row = actions.edit_request(
            by=signed_in(request),
            request=_request(request, pk),
            fields=given["answers"],
            conflict=given["conflict_declared"],
        )
        return _answer(request, row)


class Submit(APIView):
    """Hand a draft or a returned request in."""

    @extend_schema(request=None, responses=shapes.RequestSerializer)
    def post(self, request: Request, pk: int) -> Response:
        row = actions.submit_request(by=signed_in(request), request=_request(request, pk))
        return _answer(request, row)


class Withdraw(APIView):
    """Take one's own request back for good."""

    @extend_schema(request=None, responses=shapes.RequestSerializer)
    def post(self, request: Request, pk: int) -> Response:
        row = actions.withdraw_request(by=signed_in(request), request=_request(request, pk))
        return _answer(request, row)


class Documents(APIView):
    """Attach a document to a draft: multipart, PDF, PNG or JPEG."""

    parser_classes = (MultiPartParser,)

    @extend_schema(request=shapes.DocumentInput, responses={201: shapes.DocumentSerializer})
    def post(self, request: Request, pk: int) -> Response:
        row = _request(request, pk)
        given = fields_of(shapes.DocumentInput, request)
        document = actions.add_document(
            by=signed_in(request),
            request=row,
            stream=given["file"].file,
            filename=given["file"].name,
            kind=given["kind"],
        )
        return Response(shapes.DocumentSerializer(document).data, status=201)


def _document(request: Request, pk: int, document: int) -> RequestDocument:
    return get_object_or_404(queries.documents_of(_request(request, pk)), pk=document)


class OneDocument(APIView):
    """A document's bytes, always as an attachment; or remove it from a draft."""

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def get(self, request: Request, pk: int, document: int) -> FileResponse:
        row = _document(request, pk, document)
        return attachment(actions.open_document(by=signed_in(request), document=row), row.filename)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int, document: int) -> Response:
        row = _document(request, pk, document)
        actions.remove_document(by=signed_in(request), document=row)
        return Response(status=204)


def attachment(stream: Any, filename: str, size: int | None = None) -> FileResponse:
    """Answer with bytes that a browser saves and never shows, runs or keeps.

    ``size`` is for a stream that can only be read on: then nobody else can tell its length.
    """
    response = FileResponse(
        stream, as_attachment=True, filename=filename, content_type="application/octet-stream"
    )
    if size is not None:
        response["Content-Length"] = str(size)
    response["Cache-Control"] = "no-store"
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return response


class Votes(APIView):
    """Vote on a request. Who may not gets 403 with the rule's sentence, and it is recorded."""

    @extend_schema(request=VoteInput, responses={201: shapes.RequestSerializer})
    def post(self, request: Request, pk: int) -> Response:
        given = fields_of(VoteInput, request)
        row = _submitted(pk)
        decisions.cast_vote(by=signed_in(request), request=row, **given)
        return _answer(request, row, 201)


class Recuse(APIView):
    """Say that one is too close to a request to judge it."""

    @extend_schema(request=shapes.ReasonInput, responses=shapes.RequestSerializer)
    def post(self, request: Request, pk: int) -> Response:
        given = fields_of(shapes.ReasonInput, request)
        row = _submitted(pk)
        decisions.recuse(by=signed_in(request), request=row, reason=given["reason"])
        return _answer(request, row)


class SignAgreement(APIView):
    """Sign the current agreement for one's approved request; the grant begins."""

    @extend_schema(request=shapes.SignatureInput, responses={201: shapes.GrantSerializer})
    def post(self, request: Request, pk: int) -> Response:
        given = fields_of(shapes.SignatureInput, request)
        grant = grants.sign_agreement(
            by=signed_in(request),
            request=_request(request, pk),
            agreement=get_object_or_404(Agreement.objects.all(), pk=given["agreement"]),
            typed_name=given["typed_name"],
            language=given["language"],
        )
        return Response(shapes.GrantSerializer(grant).data, status=201)


class Agreements(ListAPIView[Agreement]):
    """All versions of the agreements, newest first; a steward publishes the next."""

    serializer_class = shapes.AgreementSerializer
    queryset = Agreement.objects.order_by("name", "-number")

    def get_permissions(self) -> list[Any]:
        reading = self.request.method in ("GET", "HEAD", "OPTIONS")
        return [AllowAny()] if reading else list(super().get_permissions())

    @extend_schema(request=shapes.AgreementSerializer, responses={201: shapes.AgreementSerializer})
    def post(self, request: Request) -> Response:
        given = fields_of(shapes.AgreementSerializer, request)
        row = grants.publish_agreement(by=signed_in(request), **given)
        return Response(shapes.AgreementSerializer(row).data, status=201)


class Grants(ListAPIView[Grant]):
    """The grants one may read; ``?usable=1`` only those one may work under now."""

    serializer_class = shapes.GrantSerializer

    def get_queryset(self) -> QuerySet[Grant]:
        if self.request.query_params.get("usable"):
            return queries.grants_usable_by(signed_in(self.request)).order_by("-pk")
        return queries.grants_visible_to(signed_in(self.request))


class OneGrant(APIView):
    """One grant."""

    @extend_schema(responses=shapes.GrantSerializer)
    def get(self, request: Request, pk: int) -> Response:
        row = get_object_or_404(queries.grants_visible_to(signed_in(request)), pk=pk)
        return Response(shapes.GrantSerializer(row).data)


class ChangeGrant(APIView):
    """Suspend, resume or revoke a grant, with a reason."""

    action = ""

    @extend_schema(request=shapes.ReasonInput, responses=shapes.GrantSerializer)
    def post(self, request: Request, pk: int) -> Response:
        given = fields_of(shapes.ReasonInput, request)
        # Who may not is refused by rule and recorded, so the row is looked up among all.
        row = get_object_or_404(Grant.objects.all(), pk=pk)
        changed = grants.change_grant(
            by=signed_in(request), grant=row, action=self.action, reason=given["reason"]
        )
        return Response(shapes.GrantSerializer(changed).data)
