"""Nobody decides anything with a password alone."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from allauth.account.authentication import get_authentication_records
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import Resolver404, resolve, reverse
from django.utils import translation
from django.utils.translation import gettext

from portal.accounts import queries
from portal.accounts.models import Person

# What a role holder may reach before the second factor stands: setting it up, proving it, leaving.
SET_UP = frozenset(
    {
        "account_logout",
        "account_reauthenticate",
        "mfa_index",
        "mfa_activate_totp",
        "mfa_add_webauthn",
        "mfa_view_recovery_codes",
        "mfa_generate_recovery_codes",
        "mfa_download_recovery_codes",
    }
)
PROVE = frozenset(
    {
        "account_logout",
        "account_reauthenticate",
        "mfa_reauthenticate",
        "mfa_reauthenticate_webauthn",
    }
)


# What people change about their own account on allauth's pages.
WRITE = frozenset(
    {
        "account_signup",
        "account_email",
        "account_confirm_email",
        "account_change_password",
        "account_set_password",
        "account_reset_password_from_key",
        "mfa_activate_totp",
        "mfa_deactivate_totp",
        "mfa_generate_recovery_codes",
        "mfa_add_webauthn",
        "mfa_edit_webauthn",
        "mfa_remove_webauthn",
    }
)
SAFE = frozenset({"GET", "HEAD"})


def proved_second_factor(request: HttpRequest) -> bool:
    """Whether this session has proved a second factor (code, passkey, recovery code)."""
    if not isinstance(request.user, Person):
        return False
    records = get_authentication_records(request, request.user)
    return any(record.get("method") == "mfa" for record in records)


class RolesMiddleware:
    """Roles are asked once in a request that only reads, and each time in one that may write."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.method not in SAFE:
            return self.get_response(request)
        with queries.roles_remembered():
            return self.get_response(request)


class SecondFactorMiddleware:
    """A role holder without a second factor is sent to set one up; all else is denied.

    So is one whose session has not proved it: a session begun before the role was given, or
    before the factor was set up. API tokens carry their own proof (see ``api_tokens``).
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.user.is_authenticated and "Cache-Control" not in response:
            # What a signed-in person sees stays out of shared and on-disk caches.
            response["Cache-Control"] = "no-store"
        return response

    def process_view(
        self, request: HttpRequest, view: object, args: object, kwargs: object
    ) -> HttpResponse | None:
        person = request.user
        if not isinstance(person, Person) or not queries.roles_of(person):
            return None
        # A factor that was proved and then removed, before the role was given, proves nothing now.
        stands = queries.has_second_factor(person)
        if stands and proved_second_factor(request):
            return None
        match = request.resolver_match
        name = match.url_name if match else None
        if stands:
            allowed, target = PROVE, "mfa_reauthenticate"
        else:
            allowed, target = SET_UP, "mfa_index"
        if name in allowed:
            return None
        if request.path.startswith("/api/"):
            sentence = gettext("People with a role must prove a second factor first.")
            error = {"code": "accounts.second-factor", "message": sentence, "field": ""}
            return JsonResponse({"error": error}, status=403)
        if request.method in SAFE:
            query = urlencode({"next": request.get_full_path()})
            return HttpResponseRedirect(f"{reverse(target)}?{query}")
        return HttpResponseRedirect(reverse(target))


class OneTransactionMiddleware:
    """The pages of accounts that write do so in one transaction with the audit event about it.

    allauth saves first and tells afterwards; what cannot be written down is then taken back.
    Signing in is not among them: a slow hash must not keep other writers waiting.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.method != "POST" or not _writes(request):
            return self.get_response(request)
        with transaction.atomic():
            response = self.get_response(request)
            if response.status_code >= 500:
                # Django has made an answer of the exception already.
                transaction.set_rollback(True)
            return response


def _writes(request: HttpRequest) -> bool:
    try:
        return resolve(request.path_info).url_name in WRITE
    except Resolver404:
        return False


class LanguageMiddleware:
    """The signed-in person's own language, unless they chose another for this browser."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        person = request.user
        if isinstance(person, Person) and "django_language" not in request.COOKIES:
            translation.activate(person.language)
            request.LANGUAGE_CODE = translation.get_language()
        return self.get_response(request)
