"""A browser's side of the portal in tests: a session that has proved its second factor."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from django.test import Client

from portal.accounts.models import Person


def session_of(person: Person) -> Client:
    """Return a client signed in as somebody, with password and one-time code proved."""
    client = Client()
    client.force_login(person, "allauth.account.auth_backends.AuthenticationBackend")
    session = client.session
    session["account_authentication_methods"] = [
        {"method": "password", "at": time.time(), "email": person.email},
        {"method": "mfa", "type": "totp", "at": time.time()},
    ]
    session.save()
    return client


@pytest.fixture
def browse() -> Callable[[Person], Client]:
    """Return a function that signs somebody in to the pages."""
    return session_of
