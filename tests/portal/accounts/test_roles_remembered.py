"""A page asks once who holds which roles; what is written asks each time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from portal.access import decisions
from portal.access.models import AccessRequest, RequestVote
from portal.accounts import queries
from portal.accounts.middleware import RolesMiddleware
from portal.accounts.models import Person, RoleAssignment
from portal.audit.models import Event
from tests.portal.cast import Cast

# Real transactions: inside one roles are asked anew, and a test's own would be one.
pytestmark = pytest.mark.django_db(transaction=True)
SignIn = Callable[[Person], Client]


def end_roles(person: Person) -> None:
    RoleAssignment.objects.filter(person=person).update(ended_at=timezone.now())


def asked(context: CaptureQueriesContext) -> int:
    return sum(RoleAssignment._meta.db_table in query["sql"] for query in context)


def seen_twice(person: Person) -> Callable[[HttpRequest], HttpResponse]:
    """Return a view that says a person's roles before and after they ended."""

    def view(_request: HttpRequest) -> HttpResponse:
        before = queries.roles_of(person)
        end_roles(person)
        return HttpResponse(f"{sorted(before)} {sorted(queries.roles_of(person))}")

    return view


@pytest.mark.parametrize(
    ("method", "after"),
    [("GET", "['reviewer']"), ("HEAD", "['reviewer']")]
    + [(method, "[]") for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS")],
)
def test_roles_are_remembered_in_safe_requests_only(
    make_person: Callable[..., Person], method: str, after: str
) -> None:
    person = make_person("reviewer@example.org", "reviewer")
    request = RequestFactory().generic(method, "/")
    answer = RolesMiddleware(seen_twice(person))(request)
    assert answer.content.decode() == f"['reviewer'] {after}"
    # The next request knows nothing of this one.
    assert queries.roles_of(person) == frozenset()


def test_nothing_is_remembered_after_a_request_that_failed(
    make_person: Callable[..., Person],
) -> None:
    person = make_person("reviewer@example.org", "reviewer")

    def view(_request: HttpRequest) -> HttpResponse:
        queries.roles_of(person)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        RolesMiddleware(view)(RequestFactory().get("/"))
    end_roles(person)
    assert queries.roles_of(person) == frozenset()


def test_in_a_transaction_and_in_an_action_roles_are_as_they_are(
    make_person: Callable[..., Person],
) -> None:
    person = make_person("reviewer@example.org", "reviewer")
    with queries.roles_remembered():
        assert queries.roles_of(person) == {"reviewer"}
        end_roles(person)
        assert queries.roles_of(person) == {"reviewer"}
        with transaction.atomic():
            assert queries.roles_of(person) == frozenset()
        with queries.roles_asked_anew():
            assert queries.roles_of(person) == frozenset()
        assert queries.roles_of(person) == {"reviewer"}


def test_what_is_remembered_is_what_would_be_asked(cast: Cast) -> None:
    closed = cast.reviewers[0]
    Person.objects.filter(pk=closed.pk).update(is_active=False)
    RoleAssignment.objects.create(person=cast.stranger, role="auditor")  # nobody confirmed it
    RoleAssignment.objects.create(person=cast.steward, role="officer", confirmed_at=timezone.now())
    people = list(Person.objects.all())
    each = [queries.roles_of(person) for person in people]
    with queries.roles_remembered():
        assert [queries.roles_of(person) for person in people] == each
    assert each[people.index(closed)] == frozenset()
    assert each[people.index(cast.steward)] == {"steward", "officer"}


def test_a_role_that_ends_while_a_vote_is_on_its_way_casts_none(
    cast: Cast, browse: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, member = cast.submitted(), cast.committee[0]
    window = browse(member)
    locked = decisions.locked

    def ends_first(row: AccessRequest) -> AccessRequest:
        end_roles(member)
        return locked(row)

    monkeypatch.setattr(decisions, "locked", ends_first)
    given = {"choice": "approve", "bound_to": request.bound_to, "comment": ""}
    answer = window.post(reverse("request-vote", args=[request.pk]), given)
    assert answer.status_code == 403
    assert not RequestVote.objects.exists()
    assert Event.objects.filter(action="request.vote.refused").count() == 1


@pytest.mark.parametrize("page", ["home", "requests", "request", "releases", "jobs"])
def test_a_page_asks_for_roles_once(cast: Cast, browse: SignIn, page: str) -> None:
    request = cast.submitted()
    window = browse(cast.committee[0])
    address = reverse(page, args=[request.pk] if page == "request" else [])
    with CaptureQueriesContext(connection) as queries_of_page:
        assert window.get(address).status_code == 200
    assert asked(queries_of_page) == 1
