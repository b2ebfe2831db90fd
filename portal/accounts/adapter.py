"""Where allauth asks the portal: what to write down, and how second factors are kept."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from portal import keys
from portal.accounts import queries
from portal.accounts.models import Person
from portal.accounts.sign_in_events import client_address, sign_in_failed

CONTEXT = "mfa.secret"


class AccountAdapter(DefaultAccountAdapter):
    """Sign-in by e-mail; every failure leaves an audit event."""

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        try:
            super().pre_authenticate(request, **credentials)
        except ValidationError:
            self._failed(request, credentials, "throttled")
            raise

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        self._failed(request, credentials, "password")

    def _failed(self, request: HttpRequest, credentials: dict[str, Any], reason: str) -> None:
        email = str(credentials.get("email") or "")
        sign_in_failed(email, reason=reason, address=client_address(request))


class MFAAdapter(DefaultMFAAdapter):
    """One-time-code secrets are encrypted: a copy of the database makes no codes."""

    def encrypt(self, text: str) -> str:
        return keys.wrap(text.encode(), by=keys.master("view"), context=CONTEXT).hex()

    def decrypt(self, encrypted_text: str) -> str:
        wrapped = bytes.fromhex(encrypted_text)
        return keys.unwrap(wrapped, by=keys.master("view"), context=CONTEXT).decode()

    def can_delete_authenticator(self, authenticator: Authenticator) -> bool:
        """A role holder cannot remove the last second factor, and so fall back to a password."""
        person = Person.objects.get(pk=authenticator.user_id)
        if authenticator.type not in queries.SECOND_FACTORS or not queries.roles_of(person):
            return True
        others = Authenticator.objects.filter(
            user_id=person.pk, type__in=queries.SECOND_FACTORS
        ).exclude(pk=authenticator.pk)
        return bool(others.exists())
