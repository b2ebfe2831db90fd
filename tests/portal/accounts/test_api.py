"""People, organisations and roles over the API, as the demonstration makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache

from portal.accounts.models import Person
from portal.audit.models import Event
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db
MakePerson = Callable[..., Person]
Api = Callable[..., Any]


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    cache.clear()


def test_from_signing_up_to_a_role_given_by_two(make_person: MakePerson, api: Api) -> None:
    first = api(make_person("first@example.org", "administrator"))
    second = api(make_person("second@example.org", "administrator"))
    account = {
        "email": "New@Example.org",
        "name": "새 사람",
        "password": PASSWORD,
        "language": "ko",
    }
    assert api(None).post("/api/v1/people", account).json()["email"] == "new@example.org"
    (new,) = first.get("/api/v1/people", {"email": "new@example.org"}).json()["results"]
    assert (new["email"], new["roles"], new["unit"]) == ("new@example.org", [], None)
    hospital = first.post(
        "/api/v1/organisations", {"name": "Hospital B", "country": "KR", "external": True}
    ).json()
    unit = first.post("/api/v1/units", {"organisation": hospital["id"], "name": "AI"}).json()
    placed = first.patch(f"/api/v1/people/{new['id']}", {"unit": unit["id"]}).json()
    assert placed["organisation_name"] == "Hospital B"
    role = first.post("/api/v1/roles", {"person": new["id"], "role": "reviewer"}).json()
    assert role["state"] == "proposed"
    assert first.post(f"/api/v1/roles/{role['id']}/confirm").status_code == 403
    confirmed = second.post(f"/api/v1/roles/{role['id']}/confirm").json()
    assert confirmed["state"] == "in_force"
    listed = first.get("/api/v1/people", {"email": "new@example.org"}).json()
    assert set(listed) == {"count", "next", "previous", "results"}
    assert listed["results"][0]["roles"] == ["reviewer"]
    ended = first.post(f"/api/v1/roles/{role['id']}/end").json()
    assert ended["state"] == "ended"
    denied = Event.objects.get(action="denied")
    assert (denied.actor, denied.details["rule"]) == ("first@example.org", "accounts.two-people")


@pytest.mark.parametrize("role", [None, "reviewer", "steward", "officer", "committee"])
def test_people_see_themselves_alone(role: str | None, make_person: MakePerson, api: Api) -> None:
    other = make_person("other@example.org", "auditor")
    person = make_person("a@example.org", *([role] if role else []))
    client = api(person)
    assert [row["id"] for row in client.get("/api/v1/people").json()["results"]] == [person.pk]
    assert client.get(f"/api/v1/people/{other.pk}").status_code == 404
    assert client.get("/api/v1/roles").json()["count"] == (1 if role else 0)


@pytest.mark.parametrize("role", [None, "reviewer", "steward", "officer", "committee", "auditor"])
def test_only_administrators_change_the_house(
    role: str | None, make_person: MakePerson, make_unit: Callable[..., Any], api: Api
) -> None:
    person = make_person("a@example.org", *([role] if role else []))
    client, unit = api(person), make_unit()
    before = person.unit_id
    for answer in (
        client.post("/api/v1/organisations", {"name": "Mine"}),
        client.post("/api/v1/units", {"organisation": unit.organisation_id, "name": "Mine"}),
        client.patch(f"/api/v1/people/{person.pk}", {"unit": make_unit("Else").pk}),
        client.post("/api/v1/roles", {"person": person.pk, "role": "reviewer"}),
        client.delete(f"/api/v1/people/{person.pk}"),
    ):
        assert answer.status_code == 403
    person.refresh_from_db()
    assert (person.unit_id, person.is_active) == (before, True)
    assert Event.objects.filter(action="denied", actor=person.email).count() == 5


def test_an_administrator_does_not_place_or_close_their_own_account(
    make_person: MakePerson, make_unit: Callable[..., Any], api: Api
) -> None:
    person = make_person("a@example.org", "administrator")
    client = api(person)
    assert (
        client.patch(f"/api/v1/people/{person.pk}", {"unit": make_unit("Else").pk}).status_code
        == 403
    )
    assert client.delete(f"/api/v1/people/{person.pk}").status_code == 403


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "not an address"}, "email"),
        ({"email": ""}, "email"),
        ({"name": " "}, "name"),
        ({"name": "a\u0000b"}, "name"),
        ({"name": "evil\u202ename"}, "name"),
        ({"password": "short"}, "password"),
        ({"password": "password1234"}, "password"),
        ({"password": "new@example.org"}, "password"),
        ({"language": "xx"}, "language"),
    ],
)
def test_a_wrong_account_is_refused_by_its_field(
    change: dict[str, str], field: str, api: Api
) -> None:
    account = {"email": "new@example.org", "name": "New", "password": PASSWORD, **change}
    answer = api(None).post("/api/v1/people", account)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)
    assert not Person.objects.exists()


def test_an_address_has_one_account(make_person: MakePerson, api: Api) -> None:
    owner = make_person("a@example.org")
    account = {"email": "A@example.org", "name": "A", "password": "another long password 2"}
    taken = api(None).post("/api/v1/people", account)
    free = api(None).post("/api/v1/people", account | {"email": "B@example.org"})
    # Who has an account is nobody's business: both are answered alike.
    assert taken.status_code == free.status_code == 201
    assert taken.json() == {"email": "a@example.org", "name": "A", "language": "en"}
    assert free.json() == taken.json() | {"email": "b@example.org"}
    assert Person.objects.get(email="a@example.org").check_password(PASSWORD)
    event = Event.objects.get(action="person.sign-up-again")
    assert (event.about_id, event.actor) == (str(owner.pk), "system")


def test_signing_up_gives_nothing_that_was_not_meant(api: Api) -> None:
    new = api(None).post(
        "/api/v1/people",
        {
            "email": "new@example.org",
            "name": "New",
            "password": PASSWORD,
            "unit": 1,
            "roles": ["administrator"],
            "is_active": False,
            "pseudonym": "p-chosen",
        },
        format="json",
    )
    assert set(new.json()) == {"email", "name", "language"}
    person = Person.objects.get()
    assert person.unit is None
    assert person.pseudonym != "p-chosen"
    assert person.role_assignments.count() == 0


def test_a_sentence_is_in_the_reader_s_language(make_person: MakePerson, api: Api) -> None:
    client = api(make_person("a@example.org"))
    answer = client.post("/api/v1/organisations", {"name": "x"}, HTTP_ACCEPT_LANGUAGE="ko")
    assert answer["Content-Language"] == "ko"
