"""People as the voting rules see them."""

from __future__ import annotations

from policies.review import Party
from portal.accounts.models import Person
from portal.accounts.queries import roles_of


def party(person: Person) -> Party:
    """Return a person as policies.review sees them: who, of which unit, in which roles now.

    Somebody without a unit has an unknown one, which the rules take for everybody's.
    """
    unit = person.unit
    return Party(
        person=str(person.pk),
        unit=str(unit.pk) if unit else "",
        organisation=str(unit.organisation_id) if unit else "",
        roles=roles_of(person),
        external=unit.organisation.external if unit else False,
    )
