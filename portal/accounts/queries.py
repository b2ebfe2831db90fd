"""Who somebody is and what they hold: the only place where roles are read."""

from __future__ import annotations

from allauth.mfa.models import Authenticator
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


def roles_of(person: Person) -> frozenset[str]:
    """Return the role words somebody holds now, such as ``{"reviewer"}``."""
    if person.pk is None:
        return frozenset()
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
