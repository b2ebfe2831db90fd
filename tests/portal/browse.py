"""A browser's side of the portal in tests: a session that has proved its second factor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from allauth.account.internal.flows.login import record_authentication
from django.http import HttpRequest
from django.test import Client

from portal.accounts.models import Person


def session_of(person: Person) -> Client:
    """Return a client signed in as somebody, with password and one-time code proved."""
    client = Client()
    client.force_login(person, "allauth.account.auth_backends.AuthenticationBackend")
    request = HttpRequest()
    request.session = session = client.session
    record_authentication(request, person, "password", email=person.email)
    record_authentication(request, person, "mfa", type="totp")
    session.save()
    return client


@pytest.fixture
def browse() -> Callable[[Person], Client]:
    """Return a function that signs somebody in to the pages."""
    return session_of
