"""Audit events about signing in: who came in, who was turned away, whose factors changed."""

from __future__ import annotations

from typing import Any

from allauth.account import signals as account_signals
from allauth.account.adapter import get_adapter
from allauth.account.authentication import get_authentication_records
from allauth.mfa import signals as mfa_signals
from allauth.mfa.models import Authenticator
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.dispatch import receiver
from django.utils import timezone

from portal.accounts.models import Person
from portal.accounts.queries import tokens_of
from portal.audit.record import record, record_attempt


def client_address(request: Any) -> str:
    """Return the address a request came from, believing no proxy but our own."""
    return str(get_adapter().get_client_ip(request)) if request is not None else ""


def sign_in_failed(email: str, *, reason: str, address: str) -> None:
    """Record a failed sign-in. An unknown address is not kept: people type passwords there."""
    person = Person.objects.filter(email=email.strip().lower()).first()
    details = {"reason": reason, "address": address}
    with transaction.atomic():
        if person is None:
            record_attempt("sign-in.failed", by=None, subject="unknown", details=details)
        else:
            record("sign-in.failed", by=None, about=person, details=details)


def _record(action: str, person: Any, request: Any = None, **details: Any) -> None:
    if isinstance(person, Person):
        if request is not None:
            details["address"] = client_address(request)
        with transaction.atomic():
            record(action, by=person, about=person, details=details)


@receiver(account_signals.user_logged_in)
def _signed_in(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    methods = sorted({entry["method"] for entry in get_authentication_records(request, user)})
    _record("sign-in.succeeded", user, request, methods=methods)


@receiver(user_logged_out)
def _signed_out(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    _record("sign-out", user)


@receiver(mfa_signals.authentication_failed)
def _code_refused(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    sign_in_failed(user.email, reason="second-factor", address=client_address(request))


@receiver(mfa_signals.authenticator_added)
def _factor_added(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    _record("second-factor.added", user, request, type=_type(kwargs))


@receiver(mfa_signals.authenticator_removed)
def _factor_removed(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    _record("second-factor.removed", user, request, type=_type(kwargs))


@receiver(mfa_signals.authenticator_reset)
def _factor_reset(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    _record("second-factor.reset", user, request, type=_type(kwargs))


@receiver(mfa_signals.authenticator_used)
def _factor_used(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    _record("second-factor.used", user, request, type=_type(kwargs))


def _type(kwargs: dict[str, Any]) -> str:
    authenticator = kwargs.get("authenticator")
    return str(authenticator.type) if isinstance(authenticator, Authenticator) else ""


@receiver(account_signals.password_changed)
@receiver(account_signals.password_set)
@receiver(account_signals.password_reset)
def _password_changed(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    """A new password ends what the old one made: sessions (Django's doing) and tokens."""
    if isinstance(user, Person):
        with transaction.atomic():
            tokens = tokens_of(user).update(revoked_at=timezone.now())
            details = {"tokens": tokens, "address": client_address(request)}
            record("password.changed", by=user, about=user, details=details)


@receiver(account_signals.user_signed_up)
def _signed_up(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    _record("person.signed-up", user, request)


@receiver(account_signals.email_changed)
def _email_changed(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    _record("email.changed", user, request)
