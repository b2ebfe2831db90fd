"""How errors reach people: the text of a ``UserError``, and a neutral sentence for all else.

Every refusal by a rule (403) leaves an audit event.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Any

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template import loader
from django.utils.translation import gettext
from rest_framework.exceptions import PermissionDenied
from rest_framework.response import Response
from rest_framework.views import exception_handler

from policies.errors import CannotRun, Conflict, Denied, Invalid, UserError, _

STATUS: tuple[tuple[type[UserError], int], ...] = (
    (Denied, 403),
    (Conflict, 409),
    (Invalid, 400),
    (CannotRun, 503),
)
REFUSALS = (Denied, PermissionDenied, DjangoPermissionDenied)


def status_of(error: UserError) -> int:
    """Return the HTTP status of an error's kind."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 400)


def sentence(error: UserError) -> str:
    """Return the error's sentence in the reader's language."""
    return gettext(error.message).format(**error.params) if error.params else gettext(error.message)


def _first(detail: Any, field: str = "") -> tuple[str, Any]:
    """Return the first message inside a serializer's errors, and the dotted field it is about."""
    while isinstance(detail, dict | list) and detail:
        if isinstance(detail, dict):
            name, detail = next(iter(detail.items()))
            if name != "non_field_errors":
                field = f"{field}.{name}" if field else str(name)
        else:
            detail = detail[0]
    return field, detail


def api_exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer API errors as ``{"error": {"code", "message", "field"}}``."""
    if isinstance(error, REFUSALS):
        # The app registry is not ready when settings are read, so these are imported when used.
        from portal.audit.denied import record_denied

        record_denied(_django_request(context), error)
    if isinstance(error, UserError):
        body = {"code": error.code, "message": sentence(error), "field": error.field}
        return Response({"error": body}, status=status_of(error))
    response = exception_handler(error, context)
    if response is not None:
        detail = response.data
        field = ""
        if isinstance(detail, dict) and "detail" in detail:
            message = detail["detail"]
        else:
            field, message = _first(detail)
        code = str(getattr(message, "code", ""))
        response.data = {"error": {"code": code, "message": str(message), "field": field}}
    return response


def _django_request(context: dict[str, Any]) -> HttpRequest:
    """Return the request under DRF's, with the user that DRF found."""
    request = context["request"]
    plain: HttpRequest = request._request
    plain.user = request.user
    return plain


def _unavailable(error: BaseException | None) -> CannotRun | None:
    """Return what to say of a failure that passes by itself or by an operator's hand."""
    if isinstance(error, OperationalError):
        return CannotRun(
            _(
                "The portal cannot write just now: its database is busy, or its disk is full. "
                "Nothing was changed; try again in a minute."
            ),
            code="portal.database",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CannotRun(
            _("A disk of the portal is full. Nothing was changed; tell an administrator."),
            code="portal.disk",
        )
    return None


def failed(request: HttpRequest) -> HttpResponse:
    """Answer what no rule foresaw: 503 where trying again helps, else 500; JSON to programs.

    Django calls it with the exception still being handled. It asks nothing of the database.
    """
    error = _unavailable(sys.exc_info()[1])
    status = 503 if error else 500
    if request.path.startswith("/api/"):
        message = sentence(error) if error else gettext("Something went wrong on our side")
        code = error.code if error else "portal.internal"
        body = {"error": {"code": code, "message": message, "field": ""}}
        return JsonResponse(body, status=status)
    context = {"sentence": sentence(error) if error else ""}
    return HttpResponse(loader.get_template("500.html").render(context), status=status)


class UserErrorMiddleware:
    """Turn a ``UserError`` raised by a page's view into a page that says it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, REFUSALS):
            from portal.audit.denied import record_denied

            record_denied(request, error)
        if not isinstance(error, UserError):
            return None
        context = {"sentence": sentence(error), "field": error.field}
        return render(request, "error.html", context, status=status_of(error))
