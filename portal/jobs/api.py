"""Submissions and jobs over HTTP."""

from __future__ import annotations

import json
from typing import Any

from django.db.models import QuerySet
from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from policies.errors import Denied, _
from portal.access.api import attachment
from portal.access.models import Grant
from portal.accounts.api import fields_of
from portal.accounts.permissions import signed_in
from portal.jobs import actions, checkpoints, queries
from portal.jobs import serializers as shapes
from portal.jobs.models import Job, Submission
from portal.plain_input import whole_number


def _job(request: Request, pk: int) -> Job:
    """Return a job that the person may see, or answer 404."""
    return get_object_or_404(queries.jobs_visible_to(signed_in(request)), pk=pk)


def _shown(request: Request, job: Job) -> Any:
    return shapes.JobSerializer(queries.surround(job), context={"request": request}).data


class Submissions(APIView):
    """Hand in a zip under a grant: multipart with ``file`` and ``grant``."""

    parser_classes = (MultiPartParser,)

    @extend_schema(request=shapes.UploadSerializer, responses={201: shapes.SubmittedSerializer})
    def post(self, request: Request) -> Response:
        given = fields_of(shapes.UploadSerializer, request)
        grant = Grant.objects.select_related("version__dataset").filter(pk=given["grant"]).first()
        if grant is None:
            raise Denied(
                _("You are not one of the named analysts of this grant."),
                field="grant",
                code="access.analyst",
            )
        job = actions.submit(by=signed_in(request), grant=grant, stream=given["file"].file)
        context = {"request": request}
        body = {
            "submission": shapes.SubmissionSerializer(job.submission, context=context).data,
            "job": _shown(request, job),
        }
        return Response(body, status=201)


class OneSubmission(APIView):
    """One submission's facts."""

    @extend_schema(responses=shapes.SubmissionSerializer)
    def get(self, request: Request, pk: int) -> Response:
        row = get_object_or_404(
            Submission.objects.filter(
                jobs__in=queries.jobs_visible_to(signed_in(request))
            ).distinct(),
            pk=pk,
        )
        return Response(shapes.SubmissionSerializer(row, context={"request": request}).data)


class SubmissionArchive(APIView):
    """The archive: the grant's analysts and the reviewers; each opening is recorded."""

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def get(self, request: Request, pk: int) -> FileResponse:
        row = get_object_or_404(Submission.objects.all(), pk=pk)
        stream = queries.open_code(by=signed_in(request), submission=row)
        return attachment(stream, f"submission-{row.pk}.zip")


class Jobs(ListAPIView[Job]):
    """The jobs one may see, newest first; ``?state=`` and ``?grant=`` narrow the list."""

    serializer_class = shapes.JobBriefly

    def get_queryset(self) -> QuerySet[Job]:
        rows = queries.jobs_visible_to(signed_in(self.request))
        given = self.request.query_params
        if given.get("state"):
            rows = rows.filter(state=given["state"])
        if grant := whole_number(given.get("grant", "")):
            rows = rows.filter(grant=grant)
        return queries.listed(rows)


class OneJob(APIView):
    """One job: state, reason for waiting, rounded time, hint of an error, budget."""

    @extend_schema(responses=shapes.JobSerializer)
    def get(self, request: Request, pk: int) -> Response:
        return Response(_shown(request, _job(request, pk)))


class Cancel(APIView):
    """Stop a job: its submitter or the holder; the steward or an administrator evict it."""

    @extend_schema(request=None, responses=shapes.JobSerializer)
    def post(self, request: Request, pk: int) -> Response:
        # Who may not is refused by rule and recorded, so the row is looked up among all.
        job = get_object_or_404(Job.objects.all(), pk=pk)
        actions.cancel(by=signed_in(request), job=job)
        return Response(_shown(request, _job(request, pk)))


class PriorityOf(APIView):
    """Let a waiting job go behind others (who handed it in) or before them (administrators)."""

    @extend_schema(request=shapes.PrioritySerializer, responses=shapes.JobSerializer)
    def post(self, request: Request, pk: int) -> Response:
        job = get_object_or_404(Job.objects.all(), pk=pk)
        given = shapes.PrioritySerializer(data=request.data)
        given.is_valid(raise_exception=True)
        priority = given.validated_data["priority"]
        actions.prioritise(by=signed_in(request), job=job, priority=priority)
        return Response(_shown(request, _job(request, pk)))


class CheckpointOf(APIView):
    """Remove the checkpoint that a job left: the grant's analysts and its holder."""

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        checkpoints.remove_by(by=signed_in(request), job=get_object_or_404(Job, pk=pk))
        return Response(status=204)


class Curves(APIView):
    """The declared metrics as the job reported them."""

    @extend_schema(responses=shapes.TickSerializer(many=True))
    def get(self, request: Request, pk: int) -> Response:
        job = _job(request, pk)
        if not queries.may_read_numbers(job, signed_in(request)):
            raise Denied(_("The curves are the analysts' and the reviewers'."), code="job.curves")
        return Response(shapes.TickSerializer(queries.curves(job), many=True).data)


class InspectionReport(APIView):
    """The public part of the inspection; 404 before there is one."""

    @extend_schema(responses=shapes.InspectionSerializer)
    def get(self, request: Request, pk: int) -> Response:
        job = _job(request, pk)
        if not queries.may_read_numbers(job, signed_in(request)):
            raise Denied(_("The report is the analysts' and the reviewers'."), code="job.report")
        found = get_object_or_404(type(job).objects.exclude(inspection=None), pk=job.pk)
        context = {"request": request}
        return Response(shapes.InspectionSerializer(found.inspection, context=context).data)


class InternalFindings(APIView):
    """All of the findings, internal parts too: reviewers; each reading is recorded."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, pk: int) -> Response:
        job = get_object_or_404(Job.objects.all(), pk=pk)
        answer = Response(json.loads(queries.internal_findings(by=signed_in(request), job=job)))
        answer["Cache-Control"] = "no-store"
        return answer


class Log(APIView):
    """The raw log as inert text: reviewers; each reading is recorded."""

    @extend_schema(responses=shapes.LogSerializer)
    def get(self, request: Request, pk: int) -> Response:
        job = get_object_or_404(Job.objects.all(), pk=pk)
        answer = Response({"log": queries.read_log(by=signed_in(request), job=job)})
        answer["Cache-Control"] = "no-store"
        return answer
