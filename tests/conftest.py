"""A portal of its own for each test run: temporary data and keys, one process with every role."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from rest_framework.test import APIClient

    from portal.accounts.models import Person, Unit

os.environ["GLOVEBOX_ROLE"] = "all"
# Tests that read text with another's package before ours is imported; see deid/pixels.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# The data of tests are made up, and the machine's swap is its own business.
os.environ["GLOVEBOX_PLAIN_PLACE"] = "any"
# How long one example takes is the machine's business.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")
PASSWORD = "a long enough password 1"


@pytest.fixture(scope="session")
def portal_home() -> Iterator[Path]:
    """Point the portal at a temporary folder: two test runs at once must not meet."""
    from django.conf import settings
    from django.db import connections

    from portal import keys

    with tempfile.TemporaryDirectory(prefix="glovebox-test-") as name:
        home = Path(name) / "data"
        for folder in (home, home / "uploads", home / "queue" / "messages", home / "queue/control"):
            folder.mkdir(parents=True)
        settings.HOME = home
        settings.KEYS = Path(name) / "keys"
        settings.AUDIT_CHECKPOINTS = Path(name) / "checkpoints"
        settings.FILE_UPLOAD_TEMP_DIR = home / "uploads"
        settings.EMAIL_FILE_PATH = home / "mail"
        settings.CELERY_BROKER_TRANSPORT_OPTIONS = {
            **settings.CELERY_BROKER_TRANSPORT_OPTIONS,
            "data_folder_in": str(home / "queue" / "messages"),
            "data_folder_out": str(home / "queue" / "messages"),
            "control_folder": str(home / "queue" / "control"),
        }
        # Scrypt is slow on purpose, and tests make hundreds of accounts.
        settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
        for connection in connections.all():
            if connection.vendor == "sqlite":
                connection.settings_dict["TEST"]["NAME"] = str(home / "portal.sqlite3")
        keys.make_all()
        yield home


@pytest.fixture(scope="session")
def django_db_modify_db_settings(portal_home: Path) -> None:
    """Make the test database inside the temporary folder."""


@pytest.fixture
def make_unit(db: None) -> Callable[..., Unit]:
    """Return a function that makes a unit: ``make_unit("Radiology", "Seoul Hospital")``."""
    from portal.accounts.models import Organisation, Unit

    def make(
        name: str = "Radiology", organisation: str = "Hospital", external: bool = True
    ) -> Unit:
        owner, _new = Organisation.objects.get_or_create(
            name=organisation, defaults={"external": external}
        )
        return Unit.objects.get_or_create(organisation=owner, name=name)[0]

    return make


@pytest.fixture
def make_person(make_unit: Callable[..., Unit]) -> Callable[..., Person]:
    """Return a function that makes a person with roles in force and (so) a second factor.

    ``make_person("reviewer@example.org", "reviewer", unit=unit)``; the password is ``PASSWORD``.
    """
    from allauth.account.models import EmailAddress
    from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
    from django.utils import timezone

    from portal.accounts.models import Person, RoleAssignment

    def make(
        email: str, *roles: str, unit: Unit | None = None, second_factor: bool | None = None
    ) -> Person:
        person = Person.objects.create_user(
            email, PASSWORD, name=email.split("@")[0], unit=unit or make_unit()
        )
        EmailAddress.objects.create(user=person, email=email, primary=True, verified=True)
        for role in roles:
            RoleAssignment.objects.create(person=person, role=role, confirmed_at=timezone.now())
        if bool(roles) if second_factor is None else second_factor:
            TOTP.activate(person, generate_totp_secret())
        return person

    return make


@pytest.fixture
def api() -> Callable[[Person | None], APIClient]:
    """Return a function that gives an API client with a real token of a person (None: nobody)."""
    from rest_framework.test import APIClient

    from portal.accounts import actions

    def sign_in(person: Person | None = None) -> APIClient:
        client = APIClient()
        if person is not None:
            _token, secret = actions.create_token(name="test", second_factor=True, by=person)
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
        return client

    return sign_in


@pytest.fixture
def totp_code() -> Callable[[Any], str]:
    """Return a function that gives a person's current one-time code."""
    import time

    from allauth.mfa.models import Authenticator
    from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
    from allauth.mfa.utils import decrypt

    def code(person: Any, step: int = 0) -> str:
        found = Authenticator.objects.get(user=person, type=Authenticator.Type.TOTP)
        counter = int(time.time()) // 30 + step
        return format_hotp_value(hotp_value(decrypt(found.data["secret"]), counter))

    return code


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that mounts memory of so many bytes; needs the rights to mount."""
    mounted = []

    def mount(size: int) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting needs root")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)
