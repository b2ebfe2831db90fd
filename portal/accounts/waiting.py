"""What waits for people in their own account and in administration."""

from __future__ import annotations

from django.urls import reverse
from django.utils.translation import ngettext

from portal.accounts import queries
from portal.accounts.models import Person, Role
from portal.pages.waiting import Waiting


def waiting_for(person: Person) -> list[Waiting]:
    """Role proposals that this administrator may confirm, and people who have no unit yet."""
    if not queries.holds(person, Role.ADMINISTRATOR):
        return []
    proposals = queries.roles_proposed().exclude(proposed_by=person).exclude(person=person)
    unplaced = Person.objects.filter(unit=None, is_active=True).exclude(pk=person.pk)
    roles, people = proposals.count(), unplaced.count()
    return [
        Waiting(
            ngettext("role to confirm", "roles to confirm", roles),
            roles,
            reverse("administration-roles"),
        ),
        Waiting(
            ngettext("person without a unit", "people without a unit", people),
            people,
            reverse("administration"),
        ),
    ]
