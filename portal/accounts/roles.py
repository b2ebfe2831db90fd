"""Roles are given by two administrators together, and taken away by one."""

from __future__ import annotations

from django.db import IntegrityError, transaction
from django.utils import timezone

from policies.errors import Conflict, Denied, Invalid, _
from portal.accounts import queries
from portal.accounts.models import Person, Role, RoleAssignment
from portal.accounts.permissions import check_role
from portal.audit.record import record

# An administrator gives roles and so must hold none that decides or reads data; an auditor reads
# everything and so must take part in nothing.
EXCLUSIVE = frozenset({Role.ADMINISTRATOR, Role.AUDITOR})
# Fewer could give no role any more.
MINIMUM_ADMINISTRATORS = 2


def check_compatible(role: str, others: frozenset[str]) -> None:
    """Raise Denied if ``role`` cannot be held together with ``others``."""
    clash = {other for other in others - {role} if role in EXCLUSIVE or other in EXCLUSIVE}
    if clash:
        raise Denied(
            _("{role} cannot be held together with {others}."),
            code="accounts.roles-apart",
            role=str(Role(role).label),
            others=", ".join(str(Role(other).label) for other in sorted(clash)),
        )


def propose_role(*, person: Person, role: str, by: Person) -> RoleAssignment:
    """Propose that somebody gets a role; it counts once another administrator confirms.

    Raises Denied (not an administrator; oneself; roles that exclude each other), Invalid,
    Conflict (held or proposed already).
    """
    check_role(by, Role.ADMINISTRATOR)
    if role not in Role.values:
        raise Invalid(
            _("Unknown role. There are: {roles}."), field="role", roles=", ".join(Role.values)
        )
    if person.pk == by.pk:
        raise Denied(_("Nobody gives a role to themselves."), code="accounts.own")
    try:
        with transaction.atomic():
            person = Person.objects.select_for_update().get(pk=person.pk)
            if not person.is_active:
                raise Conflict(_("This account is closed."), field="person")
            if person.unit_id is None:
                raise Conflict(_("Somebody with a role needs a unit."), field="person")
            proposed = queries.roles_proposed().filter(person=person)
            others = queries.roles_of(person) | set(proposed.values_list("role", flat=True))
            check_compatible(role, frozenset(others))
            assignment = RoleAssignment.objects.create(person=person, role=role, proposed_by=by)
            details = {"person": person.pk, "role": role}
            record("role.proposed", by=by, about=assignment, details=details)
            return assignment
    except IntegrityError:
        raise Conflict(_("The role is held or proposed already."), field="role") from None


def confirm_role(*, assignment: RoleAssignment, by: Person) -> None:
    """Put a proposed role in force; another administrator than who proposed it, never one's own."""
    check_role(by, Role.ADMINISTRATOR)
    with transaction.atomic():
        # The person's row is the lock: two roles that exclude each other cannot both be confirmed.
        person = Person.objects.select_for_update().get(pk=assignment.person_id)
        assignment = RoleAssignment.objects.select_for_update().get(pk=assignment.pk)
        if assignment.ended_at is not None or assignment.confirmed_at is not None:
            raise Conflict(_("This proposal has been decided already."))
        if by.pk in (assignment.proposed_by_id, assignment.person_id):
            raise Denied(
                _("A role is given by two people: another administrator must confirm it."),
                code="accounts.two-people",
            )
        if not person.is_active:
            raise Conflict(_("This account is closed."), field="person")
        proposer = assignment.proposed_by
        if proposer is None or not queries.holds(proposer, Role.ADMINISTRATOR):
            raise Conflict(_("Whoever proposed this is no longer an administrator."))
        check_compatible(assignment.role, queries.roles_of(person))
        assignment.confirmed_by = by
        assignment.confirmed_at = timezone.now()
        assignment.save(update_fields=["confirmed_by", "confirmed_at"])
        details = {"person": person.pk, "role": assignment.role}
        record("role.confirmed", by=by, about=assignment, details=details)


def end_role(*, assignment: RoleAssignment, by: Person) -> None:
    """End a role, or withdraw its proposal: an administrator alone, or who holds it.

    Raises Denied, and Conflict when it has ended or too few administrators would remain.
    """
    if by.pk != assignment.person_id:
        check_role(by, Role.ADMINISTRATOR)
    with transaction.atomic():
        if assignment.role == Role.ADMINISTRATOR:
            _keep_administrators(leaving=assignment.person_id)
        rows = RoleAssignment.objects.filter(pk=assignment.pk, ended_at=None)
        if rows.update(ended_at=timezone.now(), ended_by=by) != 1:
            raise Conflict(_("This role has ended already."))
        details = {"person": assignment.person_id, "role": assignment.role}
        record("role.ended", by=by, about=assignment, details=details)


def _keep_administrators(*, leaving: int) -> None:
    """Raise Conflict if ``leaving`` holds the role and too few others would remain."""
    held = queries.roles_in_force().filter(role=Role.ADMINISTRATOR).select_for_update()
    administrators = set(held.values_list("person_id", flat=True))
    if leaving in administrators and len(administrators) <= MINIMUM_ADMINISTRATORS:
        raise Conflict(
            _("At least {number} administrators must remain; appoint another first."),
            code="accounts.last-administrators",
            number=MINIMUM_ADMINISTRATORS,
        )


def end_all_roles(*, person: Person, by: Person) -> list[str]:
    """End all that a person holds or was proposed for; inside the action that closes an account."""
    _keep_administrators(leaving=person.pk)
    rows = RoleAssignment.objects.filter(person=person, ended_at=None)
    ended = sorted(rows.values_list("role", flat=True))
    rows.update(ended_at=timezone.now(), ended_by=by)
    return ended


def appoint_first_administrators(*, people: list[Person]) -> None:
    """Make the first administrators of an empty portal; ``glovebox portal init`` alone does this.

    Raises Conflict once there is or was any administrator, Invalid for fewer than two people.
    """
    if len({person.pk for person in people}) < MINIMUM_ADMINISTRATORS:
        raise Invalid(
            _("At least {number} administrators are needed: a role is given by two people."),
            field="administrator",
            number=MINIMUM_ADMINISTRATORS,
        )
    with transaction.atomic():
        if RoleAssignment.objects.filter(role=Role.ADMINISTRATOR).exists():
            raise Conflict(_("This portal has administrators already."))
        for person in people:
            assignment = RoleAssignment.objects.create(
                person=person, role=Role.ADMINISTRATOR, confirmed_at=timezone.now()
            )
            details = {"person": person.pk, "role": assignment.role}
            record("role.first", by=None, about=assignment, details=details)
