"""Who may do what by role; the sentences are the rules."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext
from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from policies.errors import Denied, _
from portal.accounts import queries
from portal.accounts.models import Person, Role


def check_role(person: Person, *roles: str) -> None:
    """Raise Denied unless somebody holds one of the roles now."""
    if not queries.holds(person, *roles):
        raise Denied(
            _("Only people with this role may do this: {roles}."),
            code="accounts.role",
            roles=", ".join(gettext(str(Role(role).label)) for role in roles),
        )


def signed_in(request: HttpRequest | Request) -> Person:
    """Return who asks. Raises NotAuthenticated (401) for nobody."""
    person = request.user
    if not isinstance(person, Person) or not person.is_active:
        raise NotAuthenticated
    return person


class SignedIn(BasePermission):
    """The default of the API: an active person with a session or a token."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return isinstance(request.user, Person) and request.user.is_active
