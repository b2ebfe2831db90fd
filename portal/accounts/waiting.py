"""What waits for people in their own account and in administration."""

from __future__ import annotations

from django.urls import reverse
from django.utils.translation import gettext

from portal.accounts import queries
from portal.accounts.models import Person, Role
from portal.pages.waiting import Waiting


def waiting_for(person: Person) -> list[Waiting]:
    """Role proposals that this administrator may confirm, and people who have no unit yet."""
    if not queries.holds(person, Role.ADMINISTRATOR):
        return []
    proposals = queries.roles_proposed().exclude(proposed_by=person).exclude(person=person)
    unplaced = Person.objects.filter(unit=None, is_active=True).exclude(pk=person.pk)
    return [
        Waiting(gettext("roles to confirm"), proposals.count(), reverse("administration-roles")),
        Waiting(gettext("people without a unit"), unplaced.count(), reverse("administration")),
    ]
