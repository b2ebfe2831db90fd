"""The start page, and whether the portal is well."""

from __future__ import annotations

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from portal.accounts.queries import roles_of
from portal.catalog import queries as catalog
from portal.pages.reader import visitor
from portal.pages.waiting import waiting_for


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Show what Glovebox is, what is in it, and what waits for the reader."""
    person = visitor(request)
    context = {
        "datasets": catalog.public_datasets()[:6],
        "roles": sorted(roles_of(person)) if person else [],
        "waiting": waiting_for(person) if person else [],
    }
    return render(request, "home.html", context)


@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """Answer 200 while the database answers, 503 otherwise; for load balancers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()
    except DatabaseError:
        return JsonResponse({"state": "database"}, status=503)
    return JsonResponse({"state": "well"})
