"""Whoever holds a role signs in with two factors, and reaches nothing before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import include, path
from django.utils import timezone

from portal.accounts import actions
from portal.accounts.models import Person, RoleAssignment
from portal.audit.models import Event
from portal.urls import urlpatterns as portal_urls
from tests.conftest import PASSWORD

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]
MakePerson = Callable[..., Person]


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("secret page")


urlpatterns = [
    path("page/", page),
    path("home/", page, name="home"),
    path("", include(portal_urls)),
]


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    cache.clear()


def password_sign_in(client: Client, person: Person, password: str = PASSWORD) -> Any:
    return client.post("/accounts/login/", {"login": person.email, "password": password})


def test_a_person_without_a_role_needs_a_password_only(
    client: Client, make_person: MakePerson
) -> None:
    password_sign_in(client, make_person("applicant@example.org"))
    answer = client.get("/page/")
    assert answer.content == b"secret page"
    assert answer["Cache-Control"] == "no-store"
    assert Event.objects.get(action="sign-in.succeeded").details["methods"] == ["password"]


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_role_holder_without_one_is_sent_to_set_it_up(
    method: str, client: Client, make_person: MakePerson
) -> None:
    password_sign_in(client, make_person("r@example.org", "reviewer", second_factor=False))
    answer = getattr(client, method)("/page/")
    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/2fa/")
    assert client.get("/accounts/2fa/").status_code == 200
    refused = client.get("/api/v1/me")
    assert (refused.status_code, refused.json()["error"]["code"]) == (
        403,
        "accounts.second-factor",
    )


def test_email_and_password_pages_are_shut_before_the_second_factor(
    client: Client, make_person: MakePerson
) -> None:
    password_sign_in(client, make_person("r@example.org", "reviewer", second_factor=False))
    for address in ("/accounts/email/", "/accounts/password/change/"):
        assert client.get(address).status_code == 302


def test_a_role_holder_signs_in_with_password_and_code(
    client: Client, make_person: MakePerson, totp_code: Callable[..., str]
) -> None:
    person = make_person("r@example.org", "reviewer")
    password_sign_in(client, person)
    assert (
        b"secret page" not in client.get("/page/").content or "_auth_user_id" not in client.session
    )
    assert "_auth_user_id" not in client.session
    client.post("/accounts/2fa/authenticate/", {"code": totp_code(person)})
    assert client.get("/page/").content == b"secret page"
    assert client.get("/api/v1/me").status_code == 200
    event = Event.objects.get(action="sign-in.succeeded")
    assert event.details["methods"] == ["mfa", "password"]


def test_a_code_cannot_be_used_twice(
    client: Client, make_person: MakePerson, totp_code: Callable[..., str]
) -> None:
    person = make_person("r@example.org", "reviewer")
    code = totp_code(person)
    password_sign_in(client, person)
    client.post("/accounts/2fa/authenticate/", {"code": code})
    assert "_auth_user_id" in client.session
    thief = Client()
    password_sign_in(thief, person)
    thief.post("/accounts/2fa/authenticate/", {"code": code})
    assert "_auth_user_id" not in thief.session
    assert Event.objects.get(action="sign-in.failed").details["reason"] == "second-factor"


def test_a_session_begun_before_the_role_must_prove_the_factor(
    client: Client, make_person: MakePerson, totp_code: Callable[..., str]
) -> None:
    person = make_person("r@example.org")
    password_sign_in(client, person)
    assert client.get("/page/").status_code == 200
    from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret

    TOTP.activate(person, generate_totp_secret())
    RoleAssignment.objects.create(person=person, role="reviewer", confirmed_at=timezone.now())
    answer = client.get("/page/")
    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/2fa/reauthenticate/")
    # Removing the factor instead of proving it is no way out.
    assert client.get("/accounts/2fa/totp/deactivate/").status_code == 302
    client.post("/accounts/2fa/reauthenticate/", {"code": totp_code(person)})
    assert client.get("/page/").content == b"secret page"


def test_a_factor_that_was_removed_before_the_role_proves_nothing(
    client: Client, make_person: MakePerson, totp_code: Callable[..., str]
) -> None:
    person = make_person("r@example.org", second_factor=True)
    password_sign_in(client, person)
    client.post("/accounts/2fa/authenticate/", {"code": totp_code(person)})
    _token, secret = actions.create_token(name="t", second_factor=True, by=person)
    assert client.get("/page/").content == b"secret page"
    Authenticator.objects.filter(user=person).delete()
    RoleAssignment.objects.create(person=person, role="reviewer", confirmed_at=timezone.now())
    answer = client.get("/page/")
    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/2fa/")
    token = Client(headers={"Authorization": f"Bearer {secret}"})
    assert token.get("/api/v1/me").status_code == 401
    assert Event.objects.get(action="token.refused").details == {"reason": "second-factor"}


def test_nobody_takes_an_address_that_no_mail_proves(
    client: Client, make_person: MakePerson
) -> None:
    person = make_person("a@example.org")
    password_sign_in(client, person)
    for action in ("action_add", "action_primary"):
        client.post("/accounts/email/", {"email": "director@hospital.example", action: ""})
    client.post("/accounts/email/", {"email": person.email, "action_remove": ""})
    person.refresh_from_db()
    assert person.email == "a@example.org"
    assert [row.email for row in EmailAddress.objects.all()] == ["a@example.org"]


def test_a_role_holder_cannot_remove_the_last_factor(make_person: MakePerson) -> None:
    from portal.accounts.adapter import MFAAdapter

    person = make_person("r@example.org", "reviewer")
    totp = Authenticator.objects.get(user=person)
    assert not MFAAdapter().can_delete_authenticator(totp)
    passkey = Authenticator.objects.create(
        user=person, type=Authenticator.Type.WEBAUTHN, data={"name": "key", "credential": {}}
    )
    assert MFAAdapter().can_delete_authenticator(totp)
    assert MFAAdapter().can_delete_authenticator(passkey)


def test_the_secret_of_a_code_is_not_in_the_database(
    make_person: MakePerson, totp_code: Callable[..., str]
) -> None:
    from portal.accounts.adapter import MFAAdapter

    person = make_person("r@example.org", "reviewer")
    stored = Authenticator.objects.get(user=person).data["secret"]
    secret = MFAAdapter().decrypt(stored)
    assert secret not in stored
    assert len(totp_code(person)) == 6


def test_codes_are_set_up_over_the_api(
    make_person: MakePerson, api: Callable[..., Any], totp_code: Callable[..., str]
) -> None:
    import time

    person = make_person("person@example.org")
    client = api(person)
    started = client.post("/api/v1/me/totp").json()
    assert started["secret"] in started["url"]
    wrong = client.put("/api/v1/me/totp", {"proof": started["proof"], "code": "000000"})
    assert wrong.json()["error"]["field"] == "code"
    code = format_hotp_value(hotp_value(started["secret"], int(time.time()) // 30))
    other = api(make_person("other@example.org"))
    stolen = other.put("/api/v1/me/totp", {"proof": started["proof"], "code": code})
    assert stolen.json()["error"]["field"] == "proof"
    done = client.put("/api/v1/me/totp", {"proof": started["proof"], "code": code})
    assert len(done.json()["recovery_codes"]) == 10
    again = client.put("/api/v1/me/totp", {"proof": started["proof"], "code": code})
    assert again.status_code == 409
    assert client.post("/api/v1/me/totp").status_code == 409
    assert Event.objects.filter(action="second-factor.added").count() == 1


def test_guessing_a_password_on_the_page_is_throttled_and_recorded(
    client: Client, make_person: MakePerson
) -> None:
    person = make_person("target@example.org")
    for i in range(8):
        password_sign_in(client, person, password=f"wrong password {i}")
    password_sign_in(client, person)
    assert "_auth_user_id" not in client.session
    assert Event.objects.filter(action="sign-in.failed", about_id=str(person.pk)).count() >= 5


def test_signing_up_and_out_is_recorded(client: Client, db: None) -> None:
    client.post(
        "/accounts/signup/",
        {
            "name": "New",
            "email": "new@example.org",
            "password1": PASSWORD,
            "password2": PASSWORD,
        },
    )
    client.post("/accounts/logout/")
    done = set(Event.objects.values_list("action", flat=True))
    assert {"person.signed-up", "sign-in.succeeded", "sign-out"} <= done


@pytest.mark.parametrize("name", ["evil\u202ename", "a\x1b[31mb", "zero\u200bwidth", "a\x7fb"])
def test_a_name_on_the_page_is_what_it_looks_like(name: str, client: Client, db: None) -> None:
    answer = client.post(
        "/accounts/signup/",
        {"name": name, "email": "n@example.org", "password1": PASSWORD, "password2": PASSWORD},
    )
    assert (answer.status_code, Person.objects.count()) == (200, 0)
    assert "At most 150 ordinary characters." in answer.content.decode()


def refusing_to_record(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("the trail cannot be written")

    monkeypatch.setattr("portal.accounts.sign_in_events.record", fail)
    client.raise_request_exception = False


@pytest.mark.django_db(transaction=True)
def test_nobody_signs_up_unrecorded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing_to_record(monkeypatch, client)
    account = {"name": "N", "email": "n@example.org", "password1": PASSWORD, "password2": PASSWORD}
    assert client.post("/accounts/signup/", account).status_code == 500
    assert not Person.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_no_password_changes_unrecorded(
    client: Client, make_person: MakePerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = make_person("a@example.org")
    password_sign_in(client, person)
    refusing_to_record(monkeypatch, client)
    new = "another long password 2"
    change = {"oldpassword": PASSWORD, "password1": new, "password2": new}
    assert client.post("/accounts/password/change/", change).status_code == 500
    person.refresh_from_db()
    assert person.check_password(PASSWORD)


def test_pages_carry_the_headers_that_keep_browsers_safe(client: Client, db: None) -> None:
    answer = client.get("/accounts/login/")
    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "unsafe-eval" not in policy
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Cross-Origin-Opener-Policy"] == "same-origin"


def test_session_cookies_are_out_of_scripts_reach(client: Client, make_person: MakePerson) -> None:
    password_sign_in(client, make_person("a@example.org"))
    cookie = client.cookies["sessionid"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"


def test_a_write_by_session_needs_a_csrf_token(make_person: MakePerson) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_person("a@example.org"))
    answer = client.patch("/api/v1/me", {"name": "Forged"}, content_type="application/json")
    assert answer.status_code == 403
    assert Person.objects.get().name == "a"
