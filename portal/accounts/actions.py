"""Every change to people, organisations and tokens: one transaction, one audit event each."""

from __future__ import annotations

from datetime import timedelta

from allauth.account.models import EmailAddress
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.utils import timezone

from policies.errors import Conflict, Denied, Invalid, _
from portal.accounts import api_tokens, queries
from portal.accounts.models import ApiToken, Organisation, Person, Role, Unit
from portal.accounts.permissions import check_role
from portal.audit.record import record


def checked_text(value: str, field: str, limit: int) -> str:
    """Return one line of ordinary characters, its spaces made single. Raises Invalid."""
    value = " ".join(value.split())
    if not value:
        raise Invalid(_("This must not be empty."), field=field)
    if len(value) > limit or not value.isprintable():
        raise Invalid(_("At most {limit} ordinary characters."), field=field, limit=limit)
    return value


def create_organisation(
    *, name: str, country: str = "KR", external: bool = True, by: Person
) -> Organisation:
    """Add an organisation; administrators. Raises Denied, Invalid, Conflict."""
    check_role(by, Role.ADMINISTRATOR)
    name = checked_text(name, "name", 200)
    if len(country) != 2 or not (country.isascii() and country.isupper()):
        raise Invalid(_("A country is two capital letters (ISO 3166-1)."), field="country")
    try:
        with transaction.atomic():
            organisation = Organisation.objects.create(
                name=name, country=country, external=external
            )
            details = {"name": name, "country": country, "external": external}
            record("organisation.created", by=by, about=organisation, details=details)
            return organisation
    except IntegrityError:
        raise Conflict(_("There is an organisation of this name."), field="name") from None


def create_unit(*, organisation: Organisation, name: str, by: Person) -> Unit:
    """Add a unit to an organisation; administrators. Raises Denied, Invalid, Conflict."""
    check_role(by, Role.ADMINISTRATOR)
    name = checked_text(name, "name", 200)
    try:
        with transaction.atomic():
            unit = Unit.objects.create(organisation=organisation, name=name)
            record("unit.created", by=by, about=unit, details={"name": str(unit)})
            return unit
    except IntegrityError:
        raise Conflict(_("The organisation has a unit of this name."), field="name") from None


def add_person(
    *, email: str, name: str, password: str, language: str = "en", email_verified: bool = False
) -> Person:
    """Add an account that may do nothing yet: no unit, no role. The person signs up themselves.

    Raises Invalid (with the field), Conflict for an address that has an account.
    """
    email = email.strip().lower()
    name = checked_text(name, "name", 150)
    try:
        validate_email(email)
    except ValidationError:
        raise Invalid(_("This is no e-mail address."), field="email") from None
    if language not in ("en", "ko"):
        raise Invalid(_("The language is en or ko."), field="language")
    try:
        validate_password(password, Person(email=email, name=name))
    except ValidationError as error:
        # Django's sentences are translated already and quote nothing that was typed.
        raise Invalid("{sentence}", field="password", sentence=" ".join(error.messages)) from None
    try:
        with transaction.atomic():
            person = Person.objects.create_user(email, password, name=name, language=language)
            EmailAddress.objects.create(
                user=person, email=email, primary=True, verified=email_verified
            )
            record("person.signed-up", by=person, about=person)
            return person
    except IntegrityError:
        raise Conflict(_("This address has an account already."), field="email") from None


def sign_up(*, email: str, name: str, password: str, language: str, address: str) -> None:
    """Add an account as :func:`add_person` does, without telling whether the address had one.

    An address that has an account keeps it as it is, and the attempt is recorded about its owner.
    ``address`` is where the attempt came from. Raises Invalid (with the field).
    """
    try:
        add_person(email=email, name=name, password=password, language=language)
    except Conflict:
        owner = Person.objects.get(email=email.strip().lower())
        with transaction.atomic():
            record("person.sign-up-again", by=None, about=owner, details={"address": address})


def place_person(*, person: Person, unit: Unit | None, by: Person) -> None:
    """Say which unit somebody belongs to; administrators, and never about themselves.

    People do not choose their own unit: votes are kept apart by it. So nobody is moved while they
    hold a role or are proposed for one: ending it takes one administrator, giving it in the new
    unit two, and no vote is moved between units by one alone.
    """
    check_role(by, Role.ADMINISTRATOR)
    if person.pk == by.pk:
        raise Denied(_("Another administrator must do this for you."), code="accounts.own")
    with transaction.atomic():
        person = Person.objects.select_for_update().get(pk=person.pk)
        details = {"from": str(person.unit or ""), "to": str(unit or "")}
        if person.unit_id != (unit.pk if unit else None) and queries.roles_held_or_proposed(person):
            raise Conflict(
                _("Somebody with a role stays in their unit; end the role first."),
                code="accounts.role-unit",
                field="unit",
            )
        person.unit = unit
        person.save(update_fields=["unit"])
        record("person.placed", by=by, about=person, details=details)


def change_own_details(*, name: str | None = None, language: str | None = None, by: Person) -> None:
    """Change one's own name or language. Raises Invalid."""
    fields: dict[str, str] = {}
    if name is not None:
        fields["name"] = checked_text(name, "name", 150)
    if language is not None:
        if language not in ("en", "ko"):
            raise Invalid(_("The language is en or ko."), field="language")
        fields["language"] = language
    if not fields:
        return
    with transaction.atomic():
        Person.objects.filter(pk=by.pk).update(**fields)
        for field, value in fields.items():
            setattr(by, field, value)
        record("person.changed", by=by, about=by, details={"fields": sorted(fields)})


def deactivate_person(*, person: Person, by: Person) -> None:
    """Close an account: no sign-in, no token works, roles end. Nothing of it is deleted."""
    check_role(by, Role.ADMINISTRATOR)
    if person.pk == by.pk:
        raise Denied(_("Another administrator must do this for you."), code="accounts.own")
    with transaction.atomic():
        from portal.accounts.roles import end_all_roles

        person = Person.objects.select_for_update().get(pk=person.pk)
        if not person.is_active:
            raise Conflict(_("This account is closed already."))
        ended = end_all_roles(person=person, by=by)
        person.is_active = False
        person.save(update_fields=["is_active"])
        tokens = queries.tokens_of(person).update(revoked_at=timezone.now())
        details = {"roles": ended, "tokens": tokens}
        record("person.deactivated", by=by, about=person, details=details)


def create_token(
    *, name: str, days: int = api_tokens.DEFAULT_DAYS, second_factor: bool, by: Person
) -> tuple[ApiToken, str]:
    """Make a token for oneself; return it and its secret, which is shown this once.

    ``second_factor`` says that the person has just proved theirs; people who hold a role or have
    set a second factor up get no token without. Raises Denied, Invalid.
    """
    name = checked_text(name, "name", 100)
    if not 1 <= days <= api_tokens.MAXIMUM_DAYS:
        raise Invalid(
            _("A token lasts 1 to {days} days."), field="days", days=api_tokens.MAXIMUM_DAYS
        )
    if not second_factor and (queries.roles_of(by) or queries.has_second_factor(by)):
        raise Denied(
            _("A one-time code is needed; people with a role must have set one up."),
            field="totp",
            code="accounts.second-factor",
        )
    secret = api_tokens.new_secret()
    with transaction.atomic():
        token = ApiToken.objects.create(
            person=by,
            name=name,
            digest=api_tokens.digest(secret),
            expires_at=timezone.now() + timedelta(days=days),
            second_factor=second_factor,
        )
        details = {"name": name, "days": days, "second_factor": second_factor}
        record("token.created", by=by, about=token, details=details)
    return token, secret


def revoke_token(*, token: ApiToken, by: Person) -> None:
    """End a token: its owner, or an administrator for anybody. Raises Denied, Conflict."""
    if token.person_id != by.pk:
        check_role(by, Role.ADMINISTRATOR)
    with transaction.atomic():
        fresh = ApiToken.objects.filter(pk=token.pk, revoked_at=None)
        if fresh.update(revoked_at=timezone.now()) != 1:
            raise Conflict(_("This token was revoked already."))
        record("token.revoked", by=by, about=token, details={"name": token.name})
