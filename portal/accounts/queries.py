"""Who somebody is and what they hold: the only place where roles are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from allauth.mfa.models import Authenticator
from django.db import connection
from django.db.models import QuerySet

from portal.accounts.models import ApiToken, Person, Role, RoleAssignment

# Recovery codes alone are no second factor: they come with one.
SECOND_FACTORS = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def roles_in_force() -> QuerySet[RoleAssignment]:
    """Return the assignments in force: given by init or confirmed, and not ended."""
    return RoleAssignment.objects.exclude(confirmed_at=None).filter(
        ended_at=None, person__is_active=True
    )


def roles_proposed() -> QuerySet[RoleAssignment]:
    """Return the assignments that wait for a second person."""
    return RoleAssignment.objects.filter(confirmed_at=None, ended_at=None)


class _Remembered:
    """Who holds which roles, asked once for everybody: few people hold one."""

    def __init__(self) -> None:
        self._roles: dict[int, frozenset[str]] | None = None

    def of(self, person: int) -> frozenset[str]:
        if self._roles is None:
            held: dict[int, set[str]] = {}
            for pk, role in roles_in_force().values_list("person", "role"):
                held.setdefault(pk, set()).add(role)
            self._roles = {pk: frozenset(roles) for pk, roles in held.items()}
        return self._roles.get(person, frozenset())


_remembered: ContextVar[_Remembered | None] = ContextVar("roles_remembered", default=None)


@contextmanager
def roles_remembered() -> Iterator[None]:
    """Ask for roles once while the block runs; for showing, where a page asks dozens of times.

    What is written is decided by the roles as they are: inside a transaction, and in an action
    (``roles_asked_anew``), they are asked each time.
    """
    yield from _with(_Remembered())


@contextmanager
def roles_asked_anew() -> Iterator[None]:
    """Ask for roles each time while the block runs, whatever was remembered around it."""
    yield from _with(None)


def _with(remembered: _Remembered | None) -> Iterator[None]:
    token = _remembered.set(remembered)
    try:
        yield
    finally:
        _remembered.reset(token)


def roles_of(person: Person) -> frozenset[str]:
    """Return the role words somebody holds now, such as ``{"reviewer"}``."""
    if person.pk is None:
        return frozenset()
    remembered = _remembered.get()
    if remembered is not None and not connection.in_atomic_block:
        return remembered.of(person.pk)
    return frozenset(roles_in_force().filter(person=person).values_list("role", flat=True))


def roles_held_or_proposed(person: Person) -> frozenset[str]:
    """Return the role words that somebody holds or was proposed for."""
    proposed = roles_proposed().filter(person=person).values_list("role", flat=True)
    return roles_of(person) | frozenset(proposed)


def holds(person: Person, *roles: str) -> bool:
    """Whether somebody holds one of these roles now."""
    return bool(roles_of(person).intersection(roles))


def people_in(role: str) -> QuerySet[Person]:
    """Return the people who hold a role now."""
    assigned = roles_in_force().filter(role=role)
    return Person.objects.filter(pk__in=assigned.values("person")).order_by("pk")


def has_second_factor(person: Person) -> bool:
    """Whether somebody has set up a one-time code or a passkey."""
    return bool(Authenticator.objects.filter(user_id=person.pk, type__in=SECOND_FACTORS).exists())


def people_visible_to(viewer: Person) -> QuerySet[Person]:
    """Return whom somebody may list: administrators and auditors everybody, others themselves."""
    people = Person.objects.select_related("unit__organisation").order_by("pk")
    if holds(viewer, Role.ADMINISTRATOR, Role.AUDITOR):
        return people
    return people.filter(pk=viewer.pk)


def assignments_visible_to(viewer: Person) -> QuerySet[RoleAssignment]:
    """Return the role assignments somebody may list, ended ones included."""
    assignments = RoleAssignment.objects.select_related(
        "person", "proposed_by", "confirmed_by", "ended_by"
    ).order_by("pk")
    if holds(viewer, Role.ADMINISTRATOR, Role.AUDITOR):
        return assignments
    return assignments.filter(person=viewer)


def tokens_of(person: Person) -> QuerySet[ApiToken]:
    """Return somebody's tokens that were not revoked, expired ones included."""
    return ApiToken.objects.filter(person=person, revoked_at=None).order_by("pk")
