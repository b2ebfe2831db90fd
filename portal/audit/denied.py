"""An audit event for every attempt that a rule refused."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest

from policies.errors import UserError
from portal.accounts.models import Person
from portal.audit.record import record_attempt

# Only these parts of an address are kept: others may be secrets, such as a download's link.
KEPT = frozenset({"pk", "id", "slug", "number", "n", "version"})


def record_denied(request: HttpRequest, error: Exception) -> None:
    """Record a refused request, in a transaction of its own after the action's was rolled back.

    Raises what the database raises: an attempt that cannot be written down is answered as an
    internal error, not as if nothing had been tried.
    """
    user = getattr(request, "user", None)
    person = user if isinstance(user, Person) else None
    match = request.resolver_match
    details = {
        "method": request.method or "",
        "rule": error.code if isinstance(error, UserError) else "",
        # The template, not the sentence: what fills it may be somebody's input.
        "sentence": error.message if isinstance(error, UserError) else type(error).__name__,
        "of": {
            key: str(value) for key, value in (match.kwargs if match else {}).items() if key in KEPT
        },
    }
    if isinstance(error, PermissionDenied):
        details["sentence"] = "PermissionDenied"
    with transaction.atomic():
        route = match.route if match else ""
        record_attempt("denied", by=person, subject=route, kind="request", details=details)
