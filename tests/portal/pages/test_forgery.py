"""No page does anything for another site, or for a program's token."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from portal.accounts import actions
from portal.accounts.models import Person
from portal.audit.models import Event

pytestmark = pytest.mark.django_db
FILL = {"slug": "x", "use": "release", "action": "end", "provider_id": "x"}
# Pages for whoever is not signed in: they take nothing from a session, or send away who has one.
SENT_AWAY = {301, 302, 404, 405}


def pages(found: URLResolver, before: str = "") -> Iterator[str]:
    """Give an address of each page, its parts filled in."""
    for each in found.url_patterns:
        here = before + str(each.pattern).lstrip("^")
        if isinstance(each, URLResolver):
            yield from pages(each, here)
        elif isinstance(each, URLPattern) and not here.startswith("api/"):
            path = re.sub(r"\(\?P<(\w+)>[^)]*\)", lambda m: FILL.get(m[1], "1"), here)
            path = re.sub(r"<(?:\w+:)?(\w+)>", lambda m: FILL.get(m[1], "1"), path)
            yield "/" + path.removesuffix("$")


def test_no_page_takes_a_write_from_another_site(make_person: Callable[..., Person]) -> None:
    person = make_person("a@example.org")
    client = Client(enforce_csrf_checks=True)
    client.force_login(person)
    before = Event.objects.count()
    taken = {}
    asked = list(pages(get_resolver()))
    for path in asked:
        for method in ("post", "put", "patch", "delete"):
            answer = getattr(client, method)(path, {"reason": "x"})
            if answer.status_code not in SENT_AWAY | {403}:
                taken[method, path] = answer.status_code
    assert len(asked) > 80
    assert not taken
    assert Event.objects.exclude(action="denied").count() == before
    assert client.get("/me/").status_code == 200  # and nobody was signed out


def test_a_token_opens_no_page(make_person: Callable[..., Person]) -> None:
    person = make_person("r@example.org", "reviewer")
    _token, secret = actions.create_token(name="t", second_factor=True, by=person)
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    assert client.get("/api/v1/me").status_code == 200
    for path in ("/me/", "/jobs/", "/releases/", "/administration/"):
        answer = client.get(path)
        assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/accounts/login/")
