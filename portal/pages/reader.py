"""Who reads a page."""

from __future__ import annotations

from django.http import HttpRequest

from portal.accounts.models import Person


def reader(request: HttpRequest) -> Person:
    """Return the signed-in person; for views behind ``login_required``."""
    person = request.user
    if not isinstance(person, Person):
        raise TypeError("this view needs login_required")
    return person


def visitor(request: HttpRequest) -> Person | None:
    """Return the signed-in person, or None for a visitor."""
    return request.user if isinstance(request.user, Person) else None
