"""Bearer tokens for programs: random, shown once, kept as a digest, gone after 90 days at most."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from portal.accounts import queries
from portal.accounts.models import ApiToken, Person
from portal.audit.record import record

PREFIX = "gbx_"
MAXIMUM_DAYS = 90
DEFAULT_DAYS = 30
# A token's use is written down at its first use and again after this pause, not at each request:
# what it is used for has audit events of its own.
USE_NOTED_AFTER = timedelta(hours=1)


def new_secret() -> str:
    """Return a fresh token: the prefix and 256 random bits, so that a leak can be searched for."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return what is kept of a token. Its 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _note_use(token: ApiToken) -> None:
    now = timezone.now()
    with transaction.atomic():
        # Conditional: of many requests at the same instant one writes the event.
        unused = ApiToken.objects.filter(pk=token.pk, last_used_at=token.last_used_at)
        if unused.update(last_used_at=now) == 1:
            record("token.used", by=token.person, about=token, details={"name": token.name})


def _refused(token: ApiToken, reason: str) -> AuthenticationFailed:
    with transaction.atomic():
        record("token.refused", by=token.person, about=token, details={"reason": reason})
    return AuthenticationFailed(_("This token is not valid, has expired or was revoked."))


def person_of(secret: str) -> tuple[Person, ApiToken]:
    """Return whose token this is. Raises AuthenticationFailed with one sentence for all reasons."""
    token = (
        ApiToken.objects.select_related("person__unit__organisation")
        .filter(digest=digest(secret))
        .first()
    )
    if token is None:
        raise AuthenticationFailed(_("This token is not valid, has expired or was revoked."))
    if token.revoked_at is not None:
        raise _refused(token, "revoked")
    if token.expires_at <= timezone.now():
        raise _refused(token, "expired")
    if not token.person.is_active:
        raise _refused(token, "inactive")
    proved = token.second_factor and queries.has_second_factor(token.person)
    if not proved and queries.roles_of(token.person):
        # Made before its owner was given a role, with a password alone or a factor since removed.
        raise _refused(token, "second-factor")
    if token.last_used_at is None or timezone.now() - token.last_used_at > USE_NOTED_AFTER:
        _note_use(token)
    return token.person, token


class TokenAuthentication(BaseAuthentication):
    """``Authorization: Bearer gbx_...``"""

    def authenticate(self, request: Request) -> tuple[Person, ApiToken] | None:
        scheme, _space, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        return person_of(secret.strip())

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class TokenScheme(OpenApiAuthenticationExtension):
    """How the OpenAPI document names the tokens."""

    target_class = "portal.accounts.api_tokens.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
