"""The first administrators of an empty portal, made by its operator on the machine itself."""

from __future__ import annotations

import secrets
from typing import Any

from allauth.mfa.totp.internal.auth import generate_totp_secret
from django.conf import settings
from django.db import transaction

from portal.accounts import roles, second_factor
from portal.accounts.actions import add_person
from portal.accounts.models import Organisation, Unit


def make(emails: list[str], *, organisation: str, unit: str) -> list[dict[str, Any]]:
    """Make the administrators; return what each needs to sign in, to be shown once.

    All or none. Raises Invalid for fewer than two addresses, Conflict where there were any.
    """
    made = []
    with transaction.atomic():
        owner, _new = Organisation.objects.get_or_create(
            name=organisation, defaults={"external": False}
        )
        home, _new = Unit.objects.get_or_create(organisation=owner, name=unit)
        people = []
        for email in dict.fromkeys(email.strip().lower() for email in emails):
            password, secret = secrets.token_urlsafe(18), generate_totp_secret()
            person = add_person(
                email=email, name=email.split("@")[0], password=password, email_verified=True
            )
            person.unit = home
            person.save(update_fields=["unit"])
            codes = second_factor.set_up_totp(person=person, secret=secret, by=None)
            people.append(person)
            made.append(
                {
                    "email": email,
                    "password": password,
                    "totp_secret": secret,
                    "totp_url": f"otpauth://totp/{settings.MFA_TOTP_ISSUER}:{email}"
                    f"?secret={secret}&issuer={settings.MFA_TOTP_ISSUER}",
                    "recovery_codes": codes,
                }
            )
        roles.appoint_first_administrators(people=people)
    return made
