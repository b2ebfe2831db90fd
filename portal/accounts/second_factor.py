"""One-time codes over the API: setting one up, and proving it when a token is asked for."""

from __future__ import annotations

from allauth.account import app_settings as account_settings
from allauth.account.adapter import get_adapter
from allauth.account.models import EmailAddress
from allauth.mfa.adapter import get_adapter as get_mfa_adapter
from allauth.mfa.base.internal.flows import check_rate_limit
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret, validate_totp_code
from django.core import signing
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest

from policies.errors import Conflict, Denied, Invalid, _
from portal.accounts import queries
from portal.accounts.models import Person
from portal.accounts.sign_in_events import client_address, sign_in_failed
from portal.audit.record import record

SALT = "accounts.totp-set-up"
SET_UP_SECONDS = 600


def start_totp(*, by: Person) -> tuple[str, str, str]:
    """Return a fresh secret, its otpauth address, and a proof to send back with the first code.

    Nothing is stored until a code shows that the authenticator has the secret.
    """
    _check_has_none(by)
    secret = generate_totp_secret()
    proof = signing.dumps({"person": by.pk, "secret": secret}, salt=SALT)
    return secret, get_mfa_adapter().build_totp_url(by, secret), proof


def confirm_totp(*, proof: str, code: str, by: Person) -> list[str]:
    """Set one-time codes up; return the recovery codes, shown once. Raises Invalid, Conflict."""
    try:
        content = signing.loads(proof, salt=SALT, max_age=SET_UP_SECONDS)
    except signing.BadSignature:
        content = {}
    if content.get("person") != by.pk:
        raise Invalid(_("Begin again: this took too long."), field="proof")
    if not validate_totp_code(content["secret"], code):
        raise Invalid(_("This code is not right. Is the clock of your device?"), field="code")
    return set_up_totp(person=by, secret=content["secret"], by=by)


def set_up_totp(*, person: Person, secret: str, by: Person | None) -> list[str]:
    """Store a person's secret and return their recovery codes. Raises Conflict if there is one."""
    with transaction.atomic():
        Person.objects.select_for_update().get(pk=person.pk)
        _check_has_none(person)
        TOTP.activate(person, secret)
        recovery = RecoveryCodes.activate(person)
        record("second-factor.added", by=by, about=person, details={"type": "totp"})
        return list(recovery.get_unused_codes())


def _check_has_none(person: Person) -> None:
    if queries.has_second_factor(person):
        raise Conflict(_("There is a second factor already; change it on your account's page."))


def sign_in(request: HttpRequest, *, email: str, password: str, totp: str) -> tuple[Person, bool]:
    """Return whose e-mail and password these are, and whether a one-time code was proved too.

    Failures are throttled by address and by account, and recorded. Raises Denied with the same
    sentence for an unknown address, a wrong password and a closed account.
    """
    wrong = Denied(_("E-mail address or password is wrong."), code="accounts.sign-in")
    try:
        person = get_adapter().authenticate(request, email=email.strip().lower(), password=password)
    except ValidationError:
        raise Denied(
            _("Too many attempts. Wait some minutes."), code="accounts.throttled"
        ) from None
    address = client_address(request)
    if not isinstance(person, Person) or not person.is_active:
        if isinstance(person, Person):
            sign_in_failed(email, reason="inactive", address=address)
        raise wrong
    if must_confirm_email() and not _confirmed_email(person):
        raise Denied(_("Confirm your e-mail address first."), code="accounts.confirm-email")
    if not totp:
        return person, False
    _check_totp(person, totp, address)
    return person, True


def must_confirm_email() -> bool:
    """Whether this portal lets in confirmed addresses only."""
    return bool(
        account_settings.EMAIL_VERIFICATION == account_settings.EmailVerificationMethod.MANDATORY
    )


def _confirmed_email(person: Person) -> bool:
    addresses = EmailAddress.objects.filter(user=person, email__iexact=person.email)
    return bool(addresses.filter(verified=True).exists())


def _check_totp(person: Person, code: str, address: str) -> None:
    refused = Denied(_("This one-time code is not right, or was used."), code="accounts.totp")
    try:
        clear = check_rate_limit(person)
    except ValidationError:
        sign_in_failed(person.email, reason="throttled", address=address)
        raise Denied(
            _("Too many attempts. Wait some minutes."), code="accounts.throttled"
        ) from None
    authenticator = Authenticator.objects.filter(
        user_id=person.pk, type=Authenticator.Type.TOTP
    ).first()
    if authenticator is None or not TOTP(authenticator).validate_code(code):
        sign_in_failed(person.email, reason="second-factor", address=address)
        raise refused
    clear()
    authenticator.record_usage()
