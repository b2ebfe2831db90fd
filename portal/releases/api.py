"""Releases, votes on them, links and revocations over HTTP."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.http import FileResponse, Http404, HttpResponse
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from policies.errors import Invalid, _
from portal.access.api import attachment
from portal.access.serializers import ReasonInput
from portal.accounts.api import fields_of
from portal.accounts.models import Person
from portal.accounts.permissions import signed_in
from portal.jobs.models import Job
from portal.jobs.queries import jobs_visible_to
from portal.plain_input import whole_number
from portal.releases import actions, downloads, lifts, queries
from portal.releases import serializers as shapes
from portal.releases.models import Release


def _any(pk: int) -> Release:
    """Return any release: what somebody may not do is refused by rule and recorded."""
    return get_object_or_404(Release.objects.all(), pk=pk)


def _answer(request: Request, pk: int, status: int = 200, *, looks: bool = False) -> Response:
    person = signed_in(request)
    row = queries.surround(get_object_or_404(queries.releases_visible_to(person), pk=pk))
    if looks:
        queries.note_view(row, person)
    context = {"request": request}
    shown = shapes.ReleaseSerializer(row, context=context).data
    return Response(shown, status=status)


class Releases(ListAPIView[Release]):
    """The releases one may see; an analyst proposes one from a finished job."""

    serializer_class = shapes.ReleaseBriefly

    def get_queryset(self) -> QuerySet[Release]:
        rows = queries.releases_visible_to(signed_in(self.request))
        given = self.request.query_params
        if given.get("state"):
            rows = rows.filter(state=given["state"])
        if job := whole_number(given.get("job", "")):
            rows = rows.filter(job=job)
        return queries.listed(rows)

    @extend_schema(request=shapes.ProposalInput, responses={201: shapes.ReleaseSerializer})
    def post(self, request: Request) -> Response:
        given = fields_of(shapes.ProposalInput, request)
        job = get_object_or_404(
            Job.objects.select_related("grant__version__dataset"), pk=given["job"]
        )
        release = actions.propose(
            by=signed_in(request),
            job=job,
            note=given["note"],
            conflict=given["conflict_declared"],
            proprietary=given["proprietary"],
        )
        return _answer(request, release.pk, 201)


class OneRelease(APIView):
    """One release: artefacts, inspection, voting as far as one may see it, ledger, bundle."""

    @extend_schema(responses=shapes.ReleaseSerializer)
    def get(self, request: Request, pk: int) -> Response:
        return _answer(request, pk, looks=True)


class ProposeAgain(APIView):
    """Answer reviewers who returned a release."""

    @extend_schema(request=shapes.AgainInput, responses=shapes.ReleaseSerializer)
    def post(self, request: Request, pk: int) -> Response:
        given = fields_of(shapes.AgainInput, request)
        actions.propose_again(
            by=signed_in(request),
            release=_any(pk),
            note=given["note"],
            conflict=given["conflict_declared"],
        )
        return _answer(request, pk)


class Votes(APIView):
    """Vote on exactly what ``bound_to`` names."""

    @extend_schema(request=shapes.ReviewInput, responses={201: shapes.ReleaseSerializer})
    def post(self, request: Request, pk: int) -> Response:
        given = fields_of(shapes.ReviewInput, request)
        actions.cast_vote(by=signed_in(request), release=_any(pk), **given)
        return _answer(request, pk, 201)


class Recuse(APIView):
    """Say that one is too close to a release to judge it."""

    @extend_schema(request=ReasonInput, responses=shapes.ReleaseSerializer)
    def post(self, request: Request, pk: int) -> Response:
        given = fields_of(ReasonInput, request)
        actions.recuse(by=signed_in(request), release=_any(pk), reason=given["reason"])
        return _answer(request, pk)


class Withdraw(APIView):
    """Take a proposal back for good."""

    @extend_schema(request=None, responses=shapes.ReleaseSerializer)
    def post(self, request: Request, pk: int) -> Response:
        actions.withdraw(by=signed_in(request), release=_any(pk))
        return _answer(request, pk)


class Revoke(APIView):
    """The dataset's steward revokes what has left."""

    @extend_schema(request=ReasonInput, responses=shapes.ReleaseSerializer)
    def post(self, request: Request, pk: int) -> Response:
        given = fields_of(ReasonInput, request)
        actions.revoke(by=signed_in(request), release=_any(pk), reason=given["reason"])
        return _answer(request, pk)


class NameReviewers(APIView):
    """The dataset's steward names who may see a proprietary network and vote on it."""

    @extend_schema(request=shapes.NamesInput, responses=shapes.ReleaseSerializer)
    def post(self, request: Request, pk: int) -> Response:
        wanted = fields_of(shapes.NamesInput, request)["reviewers"]
        people = list(Person.objects.filter(email__in=wanted))
        if len(people) != len(set(wanted)):
            raise Invalid(_("Somebody of these has no account here."), field="reviewers")
        actions.name_reviewers(by=signed_in(request), release=_any(pk), people=people)
        return _answer(request, pk)


class LiftBlock(APIView):
    """The dataset's steward lifts the soft blocks of a job; two reviewers must agree to it too."""

    @extend_schema(request=ReasonInput, responses={201: shapes.LiftSerializer})
    def post(self, request: Request, job: int) -> Response:
        given = fields_of(ReasonInput, request)
        row = get_object_or_404(jobs_visible_to(signed_in(request)), pk=job)
        made = lifts.lift(by=signed_in(request), job=row, reason=given["reason"])
        return Response(shapes.LiftSerializer(made).data, status=201)


class BundleFacts(APIView):
    """The bundle's digest and size, and whether it is there yet."""

    @extend_schema(responses=shapes.BundleSerializer)
    def get(self, request: Request, pk: int) -> Response:
        person = signed_in(request)
        row = get_object_or_404(queries.releases_visible_to(person), pk=pk)
        return Response(shapes.bundle_facts(row, person))


class Link(APIView):
    """Make a personal link to a released bundle; it is shown this once."""

    @extend_schema(request=None, responses={201: shapes.LinkSerializer})
    def post(self, request: Request, pk: int) -> Response:
        link, token = downloads.create_link(by=signed_in(request), release=_any(pk))
        body: dict[str, Any] = {
            "url": settings.BASE_URL + reverse("api-download", args=[token]),
            "token": token,
            "expires_at": link.expires_at,
            "uses_allowed": link.uses_allowed,
        }
        return Response(body, status=201, headers={"Cache-Control": "no-store"})


class Download(APIView):
    """Use a personal link: its owner, signed in, once."""

    # A HEAD request of a link preview must not use the link up.
    http_method_names = ("get",)

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def get(self, request: Request, token: str) -> FileResponse:
        try:
            release, stream, size = downloads.use_link(by=signed_in(request), token=token)
        except downloads.NoSuchLink:
            raise Http404 from None
        return attachment(stream, f"glovebox-release-{release.pk}.zip", size)


class Revocations(APIView):
    """The newest signed list of revoked bundles; empty (204) while nothing was revoked."""

    permission_classes = (AllowAny,)

    @extend_schema(responses={200: OpenApiTypes.OBJECT, 204: None})
    def get(self, request: Request) -> HttpResponse:
        newest = queries.revocation_list()
        if newest is None:
            return HttpResponse(status=204)
        return HttpResponse(newest.document, content_type="application/json")
