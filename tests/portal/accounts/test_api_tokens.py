"""Tokens: shown once, kept as a digest, short-lived, and no way around the second factor."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from policies.errors import Denied, Invalid
from portal.accounts import actions, api_tokens
from portal.accounts.models import ApiToken, Person, RoleAssignment
from portal.audit.models import Event
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db
MakePerson = Callable[..., Person]
URL = "/api/v1/tokens"


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    cache.clear()


def sign_in(client: Client, **fields: Any) -> Any:
    body = {"password": PASSWORD, "name": "test", **fields}
    return client.post(URL, body, content_type="application/json")


def bearer(secret: str) -> dict[str, str]:
    return {"HTTP_AUTHORIZATION": f"Bearer {secret}"}


def test_a_token_is_got_used_and_revoked(client: Client, make_person: MakePerson) -> None:
    person = make_person("applicant@example.org")
    answer = sign_in(client, email="Applicant@Example.org")
    assert answer.status_code == 201
    secret = answer.json()["token"]
    assert secret.startswith("gbx_")
    me = client.get("/api/v1/me", **bearer(secret))
    assert me.json()["email"] == person.email
    token = ApiToken.objects.get()
    assert secret not in str(list(ApiToken.objects.values()))
    assert token.digest == api_tokens.digest(secret)
    gone = client.delete(f"{URL}/{token.pk}", **bearer(secret))
    assert gone.status_code == 204
    assert client.get("/api/v1/me", **bearer(secret)).status_code == 401
    done = list(Event.objects.order_by("id").values_list("action", flat=True))
    assert done == ["token.created", "token.used", "token.revoked", "token.refused"]
    assert secret not in str(list(Event.objects.values()))


def test_an_expired_token_is_refused(client: Client, make_person: MakePerson) -> None:
    person = make_person("applicant@example.org")
    token, secret = actions.create_token(name="t", second_factor=False, by=person)
    ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert client.get("/api/v1/me", **bearer(secret)).status_code == 401
    assert Event.objects.get(action="token.refused").details == {"reason": "expired"}
    assert token.expires_at - token.created_at <= timedelta(days=90, seconds=1)


@pytest.mark.parametrize("days", [0, -1, 91, 10_000])
def test_no_token_outlives_ninety_days(days: int, make_person: MakePerson) -> None:
    with pytest.raises(Invalid) as caught:
        actions.create_token(
            name="t", days=days, second_factor=False, by=make_person("a@example.org")
        )
    assert caught.value.field == "days"


@pytest.mark.parametrize("secret", ["", "gbx_", "gbx_" + "x" * 43, "x", "gbx_\u0000"])
def test_invented_tokens_are_refused(client: Client, secret: str, db: None) -> None:
    assert client.get("/api/v1/me", **bearer(secret)).status_code == 401


def test_a_closed_account_s_token_is_refused(client: Client, make_person: MakePerson) -> None:
    person = make_person("applicant@example.org")
    _token, secret = actions.create_token(name="t", second_factor=False, by=person)
    Person.objects.update(is_active=False)
    assert client.get("/api/v1/me", **bearer(secret)).status_code == 401


def test_a_role_holder_needs_a_code(
    client: Client, make_person: MakePerson, totp_code: Callable[..., str]
) -> None:
    person = make_person("reviewer@example.org", "reviewer")
    answer = sign_in(client, email=person.email)
    assert (answer.status_code, answer.json()["error"]["field"]) == (403, "totp")
    assert not ApiToken.objects.exists()
    assert sign_in(client, email=person.email, totp=totp_code(person)).status_code == 201


def test_so_does_who_has_set_one_up_without_a_role(client: Client, make_person: MakePerson) -> None:
    person = make_person("careful@example.org", second_factor=True)
    assert sign_in(client, email=person.email).status_code == 403


def test_a_role_holder_who_never_set_one_up_gets_no_token(
    client: Client, make_person: MakePerson
) -> None:
    person = make_person("reviewer@example.org", "reviewer", second_factor=False)
    assert sign_in(client, email=person.email).status_code == 403
    assert sign_in(client, email=person.email, totp="123456").status_code == 403


def test_a_code_works_once(
    client: Client, make_person: MakePerson, totp_code: Callable[..., str]
) -> None:
    person = make_person("reviewer@example.org", "reviewer")
    code = totp_code(person)
    assert sign_in(client, email=person.email, totp=code).status_code == 201
    replay = sign_in(client, email=person.email, totp=code)
    assert (replay.status_code, replay.json()["error"]["code"]) == (403, "accounts.totp")
    assert Event.objects.get(action="sign-in.failed").details == {
        "reason": "second-factor",
        "address": "127.0.0.1",
    }


def test_a_token_made_before_the_role_stops_with_it(
    client: Client, make_person: MakePerson
) -> None:
    person = make_person("applicant@example.org")
    _token, secret = actions.create_token(name="t", second_factor=False, by=person)
    assert client.get("/api/v1/me", **bearer(secret)).status_code == 200
    RoleAssignment.objects.create(person=person, role="reviewer", confirmed_at=timezone.now())
    assert client.get("/api/v1/me", **bearer(secret)).status_code == 401


def test_wrong_password_unknown_address_and_closed_account_sound_the_same(
    client: Client, make_person: MakePerson
) -> None:
    make_person("known@example.org")
    closed = make_person("closed@example.org")
    Person.objects.filter(pk=closed.pk).update(is_active=False)
    answers = [
        sign_in(client, email="known@example.org", password="not this password 1"),
        sign_in(client, email="nobody@example.org"),
        sign_in(client, email=closed.email),
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.content for answer in answers}) == 1
    # An unknown address may be a password typed into the wrong field: it is not kept.
    assert "nobody@example.org" not in str(list(Event.objects.values()))


def test_guessing_is_throttled_and_recorded(client: Client, make_person: MakePerson) -> None:
    person = make_person("target@example.org")
    codes = [
        sign_in(client, email=person.email, password=f"wrong password {i}").json()["error"]["code"]
        for i in range(8)
    ]
    assert codes[0] == "accounts.sign-in"
    assert codes[-1] == "accounts.throttled"
    # Not even the right password gets through now.
    assert sign_in(client, email=person.email).status_code == 403
    failed = Event.objects.filter(action="sign-in.failed").order_by("id")
    assert [event.details["reason"] for event in failed] == ["password"] * 5 + ["throttled"] * 4


def test_guessing_codes_is_throttled(client: Client, make_person: MakePerson) -> None:
    person = make_person("target@example.org", "reviewer")
    codes = [
        sign_in(client, email=person.email, totp=f"{i:06}").json()["error"]["code"]
        for i in range(8)
    ]
    assert codes[-1] == "accounts.throttled"


def test_a_token_makes_no_token(
    client: Client, make_person: MakePerson, api: Callable[..., Any]
) -> None:
    answer = api(make_person("a@example.org")).post("/api/v1/me/tokens", {"name": "more"})
    assert answer.status_code == 403


def test_nobody_revokes_anothers_token(make_person: MakePerson) -> None:
    token, _secret = actions.create_token(
        name="t", second_factor=False, by=make_person("a@example.org")
    )
    with pytest.raises(Denied):
        actions.revoke_token(token=token, by=make_person("b@example.org", "reviewer"))
    actions.revoke_token(token=token, by=make_person("c@example.org", "administrator"))


def test_a_new_password_ends_sessions_and_tokens(client: Client, make_person: MakePerson) -> None:
    person = make_person("a@example.org")
    _token, secret = actions.create_token(name="t", second_factor=False, by=person)
    other = Client()
    for browser in (client, other):
        browser.post("/accounts/login/", {"login": person.email, "password": PASSWORD})
    new = "another long password 2"
    answer = client.post(
        "/accounts/password/change/",
        {"oldpassword": PASSWORD, "password1": new, "password2": new},
    )
    assert answer.status_code == 302
    assert client.get("/api/v1/me").status_code == 200
    assert other.get("/api/v1/me").status_code == 401
    assert Client().get("/api/v1/me", **bearer(secret)).status_code == 401
    assert Event.objects.get(action="password.changed").details["tokens"] == 1


def test_a_closed_account_s_session_ends(client: Client, make_person: MakePerson) -> None:
    person = make_person("a@example.org")
    client.post("/accounts/login/", {"login": person.email, "password": PASSWORD})
    assert client.get("/api/v1/me").status_code == 200
    Person.objects.update(is_active=False)
    assert client.get("/api/v1/me").status_code == 401


def test_where_addresses_are_confirmed_an_unconfirmed_one_gets_no_token(
    client: Client, make_person: MakePerson, settings: Any
) -> None:
    from allauth.account.models import EmailAddress

    person = make_person("a@example.org")
    EmailAddress.objects.update(verified=False)
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    answer = sign_in(client, email=person.email)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "accounts.confirm-email")
    account = {"email": "b@example.org", "name": "b", "password": PASSWORD}
    signed_up = client.post("/api/v1/people", account, content_type="application/json")
    assert signed_up.status_code == 403
    EmailAddress.objects.update(verified=True)
    assert sign_in(client, email=person.email).status_code == 201
