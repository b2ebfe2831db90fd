"""Only a UserError's sentence reaches people, and every refusal is in the trail."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import include, path
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from policies.errors import CannotRun, Conflict, Denied, Invalid
from portal.accounts.models import Organisation, Person
from portal.audit.models import Event
from portal.audit.record import record
from portal.urls import handler500 as portal_handler500
from portal.urls import urlpatterns as portal_urls

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]
ERRORS = {
    "denied": Denied("You may not open {thing}.", code="test.rule", thing="this"),
    "conflict": Conflict("It has moved on.", code="test.conflict"),
    "invalid": Invalid("Too large.", field="resources.memory", code="test.invalid"),
    "cannot": CannotRun("No sandbox.", code="test.cannot"),
    "internal": RuntimeError("patient Kim at /srv/data"),
    "django": PermissionDenied("patient Kim"),
    "locked": OperationalError("database is locked at /srv/data for patient Kim"),
    "full": OSError(errno.ENOSPC, "No space left on device", "/srv/data/Kim"),
    "gone": OSError(errno.ENOENT, "No such file", "/srv/data/Kim"),
}
handler500 = portal_handler500


def failing_action(kind: str, person: Person) -> None:
    """Write something, with its event, and then fail."""
    with transaction.atomic():
        organisation = Organisation.objects.create(name="half done")
        record("organisation.created", by=person, about=organisation)
        raise ERRORS[kind]


class Shape(serializers.Serializer[Any]):
    size = serializers.IntegerField(max_value=3)


class View(APIView):
    def post(self, request: Request, slug: str, token: str) -> Any:
        failing_action(slug, request.user)

    def put(self, request: Request, slug: str, token: str) -> Any:
        Shape(data=request.data).is_valid(raise_exception=True)


def page(request: HttpRequest, slug: str) -> HttpResponse:
    failing_action(slug, request.user)  # type: ignore[arg-type]
    return HttpResponse()


urlpatterns = [
    path("api/fails/<slug:slug>/<str:token>", View.as_view()),
    path("fails/<slug:slug>", page),
    path("home/", page, name="home"),
    path("", include(portal_urls)),
]


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("denied", 403, {"code": "test.rule", "message": "You may not open this.", "field": ""}),
        ("conflict", 409, {"code": "test.conflict", "message": "It has moved on.", "field": ""}),
        (
            "invalid",
            400,
            {"code": "test.invalid", "message": "Too large.", "field": "resources.memory"},
        ),
        ("cannot", 503, {"code": "test.cannot", "message": "No sandbox.", "field": ""}),
    ],
)
def test_the_api_answers_with_the_rule_s_sentence(
    kind: str,
    status: int,
    error: dict[str, str],
    make_person: Callable[..., Person],
    api: Callable[..., Any],
) -> None:
    answer = api(make_person("a@example.org")).post(f"/api/fails/{kind}/secret-link")
    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_a_refusal_is_recorded_though_its_action_was_rolled_back(
    make_person: Callable[..., Person], api: Callable[..., Any]
) -> None:
    person = make_person("a@example.org")
    api(person).post("/api/fails/denied/secret-link")
    assert not Organisation.objects.filter(name="half done").exists()
    assert not Event.objects.filter(action="organisation.created").exists()
    event = Event.objects.get(action="denied")
    assert (event.actor, event.about_kind) == (person.email, "request")
    assert event.details == {
        "method": "POST",
        "rule": "test.rule",
        "sentence": "You may not open {thing}.",
        "of": {"slug": "denied"},
    }
    assert "secret-link" not in str(list(Event.objects.values()))


def test_a_refusal_on_a_page_is_recorded_too(
    client: Client, make_person: Callable[..., Person], settings: Any
) -> None:
    settings.TEMPLATES = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.locmem.Loader",
                        {"error.html": "<p>{{ sentence }}</p>"},
                    )
                ]
            },
        }
    ]
    person = make_person("a@example.org")
    client.force_login(person)
    answer = client.get("/fails/denied")
    assert (answer.status_code, answer.content) == (403, b"<p>You may not open this.</p>")
    assert Event.objects.get(action="denied").actor == person.email
    assert client.get("/fails/django").status_code == 403
    assert Event.objects.filter(action="denied").count() == 2
    assert "patient Kim" not in str(list(Event.objects.values()))


def test_an_internal_error_says_nothing(
    make_person: Callable[..., Person], api: Callable[..., Any]
) -> None:
    client = api(make_person("a@example.org"))
    client.raise_request_exception = False
    for kind in ("internal", "gone"):
        answer = client.post(f"/api/fails/{kind}/x")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "portal.internal")
        assert b"Kim" not in answer.content
        assert b"/srv" not in answer.content


@pytest.mark.parametrize("kind", ["locked", "full"])
def test_what_passes_is_answered_with_503_and_what_to_do(
    kind: str, make_person: Callable[..., Person], api: Callable[..., Any], client: Client
) -> None:
    person = make_person("a@example.org")
    program = api(person)
    program.raise_request_exception = client.raise_request_exception = False
    client.force_login(person)
    word = {"locked": "busy", "full": "full"}[kind]
    answer = program.post(f"/api/fails/{kind}/x")
    assert answer.status_code == 503
    assert word in answer.json()["error"]["message"]
    page = client.get(f"/fails/{kind}")
    assert page.status_code == 503
    assert word in page.content.decode()
    assert b"Kim" not in answer.content + page.content
    assert not Organisation.objects.filter(name="half done").exists()


def test_a_serializer_s_error_names_the_field(
    make_person: Callable[..., Person], api: Callable[..., Any]
) -> None:
    answer = api(make_person("a@example.org")).put("/api/fails/x/y", {"size": "9"})
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == "size"
    assert isinstance(answer.json()["error"]["message"], str)


def test_who_is_not_signed_in_gets_401_and_leaves_no_event(api: Callable[..., Any]) -> None:
    answer = api(None).post("/api/fails/denied/x")
    assert answer.status_code == 401
    assert set(answer.json()["error"]) == {"code", "message", "field"}
    assert not Event.objects.exists()


def test_the_api_is_described_and_its_page_asks_nobody_else(client: Client) -> None:
    assert client.get("/api/schema/").status_code == 200
    answer = client.get("/api/docs/")
    assert answer.status_code == 200
    text = answer.content.decode()
    assert "/api/v1/tokens" in text
    assert "http://" not in text
    assert "https://" not in text
