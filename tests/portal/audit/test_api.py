"""The trail is read by auditors alone, and reading it is in the trail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction

from portal.accounts.models import Person, Role
from portal.audit import chain, checkpoints
from portal.audit.models import Event
from portal.audit.record import record_attempt

pytestmark = pytest.mark.django_db
MakePerson = Callable[..., Person]
Api = Callable[..., Any]
URL = "/api/v1/audit/events"


def add(count: int) -> None:
    with transaction.atomic():
        for number in range(count):
            record_attempt(f"test.{number % 2}", by=None, subject=f"thing {number}")


@pytest.mark.parametrize("role", [None, *(role for role in Role.values if role != "auditor")])
def test_nobody_but_an_auditor_reads_it(
    role: str | None, make_person: MakePerson, api: Api
) -> None:
    person = make_person("a@example.org", *([role] if role else []))
    assert api(person).get(URL).status_code == 403
    denied = Event.objects.get(action="denied")
    assert denied.actor == person.email
    assert denied.details["rule"] == "accounts.role"


def test_reading_is_recorded_before_anything_is_shown(make_person: MakePerson, api: Api) -> None:
    auditor = make_person("auditor@example.org", "auditor")
    answer = api(auditor).get(URL, {"action": "token."})
    assert {row["action"] for row in answer.json()["results"]} <= {"token.created", "token.used"}
    viewed = Event.objects.get(action="audit.viewed")
    assert (viewed.actor, viewed.details["action"]) == (auditor.email, "token.")


def test_pages_by_id_show_each_event_once_while_others_are_added(
    make_person: MakePerson, api: Api
) -> None:
    add(25)
    client = api(make_person("auditor@example.org", "auditor"))
    seen: list[int] = []
    address = f"{URL}?limit=10&action=test."
    while address:
        page = client.get(address).json()
        seen += [row["id"] for row in page["results"]]
        address = page["next"]
        add(3)
    assert len(seen) == len(set(seen)) == 25
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "x"},
        {"before": "-1"},
        {"since": "yesterday"},
    ],
)
def test_a_wrong_filter_is_named(query: dict[str, str], make_person: MakePerson, api: Api) -> None:
    answer = api(make_person("auditor@example.org", "auditor")).get(URL, query)
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == next(iter(query))


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_nobody_writes_or_removes_events(method: str, make_person: MakePerson, api: Api) -> None:
    client = api(make_person("auditor@example.org", "auditor"))
    assert getattr(client, method)(URL).status_code == 405


def test_checkpoints_and_keys_are_for_everybody_and_verify(api: Api) -> None:
    add(3)
    chain.seal()
    checkpoints.make()
    client = api(None)
    row = client.get("/api/v1/audit/checkpoints").json()["results"][0]
    import json

    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    from portal import keys

    published = {
        entry["key_id"]: load_pem_public_key(entry["pem"].encode())
        for entry in client.get("/api/v1/keys").json()["results"]
        if entry["use"] == "audit"
    }
    assert checkpoints.parse(json.dumps(row)).holds(published)
    assert set(published) == set(keys.public_keys("audit"))
