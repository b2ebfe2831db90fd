"""How errors reach people: the text of a ``UserError``, and a neutral sentence for all else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext
from rest_framework.response import Response
from rest_framework.views import exception_handler

from policies.errors import CannotRun, Conflict, Denied, Invalid, UserError

STATUS: tuple[tuple[type[UserError], int], ...] = (
    (Denied, 403),
    (Conflict, 409),
    (Invalid, 400),
    (CannotRun, 503),
)


def status_of(error: UserError) -> int:
    """Return the HTTP status of an error's kind."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 400)


def sentence(error: UserError) -> str:
    """Return the error's sentence in the reader's language."""
    return gettext(error.message).format(**error.params) if error.params else gettext(error.message)


def api_exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer API errors as ``{"error": {"code", "message", "field"}}``."""
    if isinstance(error, UserError):
        body = {"code": error.code, "message": sentence(error), "field": error.field}
        return Response({"error": body}, status=status_of(error))
    response = exception_handler(error, context)
    if response is not None:
        detail = response.data
        message = detail.get("detail") if isinstance(detail, dict) else None
        field = "" if message else next(iter(detail), "") if isinstance(detail, dict) else ""
        if message is None:
            first = detail[field] if isinstance(detail, dict) and field else detail
            message = first[0] if isinstance(first, list) and first else first
        code = getattr(message, "code", "")
        response.data = {"error": {"code": code, "message": str(message), "field": str(field)}}
    return response


class UserErrorMiddleware:
    """Turn a ``UserError`` raised by a page's view into a page that says it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, UserError):
            return None
        context = {"sentence": sentence(error), "field": error.field}
        return render(request, "error.html", context, status=status_of(error))
