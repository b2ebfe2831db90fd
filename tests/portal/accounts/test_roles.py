"""A role is given by two administrators together, and some exclude each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from policies.errors import Conflict, Denied, Invalid
from portal.accounts import actions, queries, roles
from portal.accounts.models import Person, Role, RoleAssignment
from portal.audit import record as recording
from portal.audit.models import Event

pytestmark = pytest.mark.django_db
MakePerson = Callable[..., Person]


@pytest.fixture
def administrators(make_person: MakePerson) -> tuple[Person, Person]:
    return (
        make_person("first@example.org", "administrator"),
        make_person("second@example.org", "administrator"),
    )


def test_a_role_counts_once_a_second_administrator_confirmed(
    administrators: tuple[Person, Person], make_person: MakePerson
) -> None:
    first, second = administrators
    person = make_person("reviewer@example.org")
    assignment = roles.propose_role(person=person, role="reviewer", by=first)
    assert queries.roles_of(person) == frozenset()
    roles.confirm_role(assignment=assignment, by=second)
    assert queries.roles_of(person) == {"reviewer"}
    actions_done = list(Event.objects.values_list("action", "actor"))
    assert ("role.proposed", first.email) in actions_done
    assert ("role.confirmed", second.email) in actions_done


def test_who_proposed_does_not_confirm(
    administrators: tuple[Person, Person], make_person: MakePerson
) -> None:
    first, _second = administrators
    person = make_person("reviewer@example.org")
    assignment = roles.propose_role(person=person, role="reviewer", by=first)
    with pytest.raises(Denied):
        roles.confirm_role(assignment=assignment, by=first)
    assert queries.roles_of(person) == frozenset()


def test_nobody_gives_or_confirms_their_own_role(
    administrators: tuple[Person, Person], make_person: MakePerson
) -> None:
    first, second = administrators
    with pytest.raises(Denied):
        roles.propose_role(person=first, role="reviewer", by=first)
    person = make_person("third@example.org")
    assignment = roles.propose_role(person=person, role="administrator", by=first)
    RoleAssignment.objects.create(person=person, role="steward", confirmed_at=timezone.now())
    with pytest.raises(Denied):
        roles.confirm_role(assignment=assignment, by=person)
    assert second.pk != person.pk


@pytest.mark.parametrize("role", [None, *(role for role in Role.values if role != "administrator")])
def test_only_administrators_propose_confirm_and_end(
    role: str | None, administrators: tuple[Person, Person], make_person: MakePerson
) -> None:
    first, _second = administrators
    other = make_person("other@example.org", *([role] if role else []))
    person = make_person("person@example.org")
    with pytest.raises(Denied):
        roles.propose_role(person=person, role="reviewer", by=other)
    assignment = roles.propose_role(person=person, role="reviewer", by=first)
    with pytest.raises(Denied):
        roles.confirm_role(assignment=assignment, by=other)
    with pytest.raises(Denied):
        roles.end_role(assignment=assignment, by=other)


@pytest.mark.parametrize(("held", "wanted"), list(itertools.permutations(Role.values, 2)))
def test_administrators_and_auditors_hold_nothing_else(
    held: str, wanted: str, administrators: tuple[Person, Person], make_person: MakePerson
) -> None:
    first, _second = administrators
    person = make_person("person@example.org", held)
    apart = {"administrator", "auditor"}
    if held in apart or wanted in apart:
        with pytest.raises(Denied):
            roles.propose_role(person=person, role=wanted, by=first)
    else:
        roles.propose_role(person=person, role=wanted, by=first)


def test_two_open_proposals_cannot_sneak_past_each_other(
    administrators: tuple[Person, Person], make_person: MakePerson
) -> None:
    first, second = administrators
    person = make_person("person@example.org")
    reviewer = roles.propose_role(person=person, role="reviewer", by=first)
    with pytest.raises(Denied):
        roles.propose_role(person=person, role="auditor", by=second)
    # Even rows made behind the rule's back are not confirmed.
    auditor = RoleAssignment.objects.create(person=person, role="auditor", proposed_by=first)
    roles.confirm_role(assignment=reviewer, by=second)
    with pytest.raises(Denied):
        roles.confirm_role(assignment=auditor, by=second)


def test_a_proposal_falls_with_the_administrator_who_made_it(
    administrators: tuple[Person, Person], make_person: MakePerson
) -> None:
    first, second = administrators
    third = make_person("third@example.org", "administrator")
    person = make_person("person@example.org")
    assignment = roles.propose_role(person=person, role="reviewer", by=first)
    roles.end_role(assignment=first.role_assignments.get(), by=third)
    with pytest.raises(Conflict):
        roles.confirm_role(assignment=assignment, by=second)


def test_a_double_click_confirms_once(
    administrators: tuple[Person, Person], make_person: MakePerson
) -> None:
    first, second = administrators
    assignment = roles.propose_role(
        person=make_person("person@example.org"), role="reviewer", by=first
    )
    roles.confirm_role(assignment=assignment, by=second)
    with pytest.raises(Conflict):
        roles.confirm_role(assignment=assignment, by=second)
    with pytest.raises(Conflict):
        roles.propose_role(person=assignment.person, role="reviewer", by=first)
    assert Event.objects.filter(action="role.confirmed").count() == 1


def test_an_ended_role_gives_nothing_and_can_be_given_again(
    administrators: tuple[Person, Person], make_person: MakePerson
) -> None:
    first, second = administrators
    person = make_person("person@example.org", "reviewer")
    roles.end_role(assignment=person.role_assignments.get(), by=first)
    assert queries.roles_of(person) == frozenset()
    with pytest.raises(Conflict):
        roles.end_role(assignment=person.role_assignments.get(), by=first)
    again = roles.propose_role(person=person, role="reviewer", by=second)
    roles.confirm_role(assignment=again, by=first)
    assert queries.roles_of(person) == {"reviewer"}


def test_two_administrators_always_remain(administrators: tuple[Person, Person]) -> None:
    first, second = administrators
    with pytest.raises(Conflict):
        roles.end_role(assignment=first.role_assignments.get(), by=second)
    with pytest.raises(Conflict):
        roles.end_role(assignment=first.role_assignments.get(), by=first)
    with pytest.raises(Conflict):
        actions.deactivate_person(person=first, by=second)
    first.refresh_from_db()
    assert first.is_active


def test_a_closed_account_holds_no_role(
    administrators: tuple[Person, Person], make_person: MakePerson
) -> None:
    first, _second = administrators
    person = make_person("person@example.org", "reviewer", "committee")
    actions.deactivate_person(person=person, by=first)
    person.refresh_from_db()
    assert queries.roles_of(person) == frozenset()
    assert not person.is_active


def test_somebody_without_a_unit_gets_no_role(
    administrators: tuple[Person, Person], make_person: MakePerson
) -> None:
    first, _second = administrators
    person = make_person("person@example.org")
    actions.place_person(person=person, unit=None, by=first)
    with pytest.raises(Conflict):
        roles.propose_role(person=person, role="reviewer", by=first)


def test_nobody_is_moved_between_units_with_a_role(
    administrators: tuple[Person, Person],
    make_person: MakePerson,
    make_unit: Callable[..., Any],
) -> None:
    """One administrator alone must not make a reviewer independent of the applicant's unit."""
    first, second = administrators
    person, other = make_person("person@example.org"), make_unit("Elsewhere")
    proposed = roles.propose_role(person=person, role="reviewer", by=first)
    for unit in (other, None):
        with pytest.raises(Conflict):
            actions.place_person(person=person, unit=unit, by=first)
    roles.confirm_role(assignment=proposed, by=second)
    with pytest.raises(Conflict) as refused:
        actions.place_person(person=person, unit=other, by=first)
    assert refused.value.code == "accounts.role-unit"
    actions.place_person(person=person, unit=person.unit, by=first)  # no change
    roles.end_role(assignment=proposed, by=first)
    actions.place_person(person=person, unit=other, by=first)
    person.refresh_from_db()
    assert person.unit == other


def test_an_unknown_role_is_named(
    administrators: tuple[Person, Person], make_person: MakePerson
) -> None:
    with pytest.raises(Invalid) as caught:
        roles.propose_role(
            person=make_person("a@example.org"), role="superuser", by=administrators[0]
        )
    assert caught.value.field == "role"


def test_the_database_itself_refuses_one_person_as_both(
    administrators: tuple[Person, Person], make_person: MakePerson
) -> None:
    first, _second = administrators
    person = make_person("person@example.org")
    for fields in (
        {"proposed_by": first, "confirmed_by": first},
        {"proposed_by": first, "confirmed_by": person},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            RoleAssignment.objects.create(person=person, role="reviewer", **fields)


@pytest.mark.parametrize(
    "write",
    [
        lambda by, person, unit: actions.create_organisation(name="New", by=by),
        lambda by, person, unit: actions.create_unit(
            organisation=unit.organisation, name="New", by=by
        ),
        lambda by, person, unit: actions.place_person(person=person, unit=unit, by=by),
        lambda by, person, unit: roles.propose_role(person=person, role="reviewer", by=by),
        lambda by, person, unit: actions.deactivate_person(person=person, by=by),
        lambda by, person, unit: actions.change_own_details(name="Other", by=by),
        lambda by, person, unit: actions.create_token(name="t", second_factor=True, by=by),
    ],
)
def test_what_cannot_be_written_down_does_not_happen(
    write: Callable[[Person, Person, Any], object],
    administrators: tuple[Person, Person],
    make_person: MakePerson,
    make_unit: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = make_person("person@example.org")
    unit = make_unit("Pathology", "Elsewhere")

    def state() -> list[list[Any]]:
        from portal.accounts import models

        tables = (
            models.Organisation,
            models.Unit,
            models.Person,
            models.RoleAssignment,
            models.ApiToken,
        )
        return [list(table.objects.order_by("pk").values()) for table in tables]

    before = state()

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the trail is full")

    monkeypatch.setattr(recording.Event, "save", broken)
    with pytest.raises(RuntimeError, match="trail"):
        write(administrators[0], person, unit)
    assert state() == before


def test_first_administrators_are_made_once_and_are_two(make_person: MakePerson) -> None:
    one, two = make_person("one@example.org"), make_person("two@example.org")
    with pytest.raises(Invalid):
        roles.appoint_first_administrators(people=[one, one])
    roles.appoint_first_administrators(people=[one, two])
    with pytest.raises(Conflict):
        roles.appoint_first_administrators(people=[one, two])
