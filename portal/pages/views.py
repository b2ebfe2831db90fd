"""The start page."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.catalog import queries as catalog


def home(request: HttpRequest) -> HttpResponse:
    """Show what Glovebox is, what is in it, and what waits for the reader."""
    person = request.user if isinstance(request.user, Person) else None
    context = {
        "datasets": catalog.public_datasets()[:6],
        "roles": sorted(roles_of(person)) if person else [],
    }
    return render(request, "home.html", context)
