"""People, the organisations and units they belong to, the roles they hold, their API tokens."""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


def new_pseudonym() -> str:
    """Return the name under which a person's decisions appear outside the portal."""
    return f"p-{secrets.token_hex(8)}"


class Organisation(models.Model):
    """A hospital, company or university."""

    name = models.CharField(_("name"), max_length=200, unique=True)
    country = models.CharField(_("country"), max_length=2, default="KR")
    # External to the portal's operator: committee quorums need at least one external member.
    external = models.BooleanField(_("external"), default=True)

    def __str__(self) -> str:
        return self.name


class Unit(models.Model):
    """A department; nobody judges a request or a release of their own unit."""

    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="units")
    name = models.CharField(_("name"), max_length=200)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["organisation", "name"], name="unit_once")
        ]

    def __str__(self) -> str:
        return f"{self.organisation} / {self.name}"


class PersonManager(BaseUserManager["Person"]):
    """Make people by e-mail address."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> Person:
        person = self.model(email=self.normalize_email(email).lower(), **fields)
        person.set_password(password)
        person.save()
        return person


class Person(AbstractBaseUser):
    """Somebody who signs in. What they may do follows from their roles, never from a flag."""

    email = models.EmailField(_("e-mail"), unique=True)
    name = models.CharField(_("name"), max_length=150)
    unit = models.ForeignKey(
        Unit, on_delete=models.PROTECT, related_name="people", null=True, blank=True
    )
    language = models.CharField(_("language"), max_length=5, default="en")
    pseudonym = models.CharField(max_length=40, unique=True, default=new_pseudonym)
    is_active = models.BooleanField(_("active"), default=True)
    joined_at = models.DateTimeField(default=timezone.now)

    objects = PersonManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name or self.email

    @property
    def organisation(self) -> Organisation | None:
        return self.unit.organisation if self.unit else None


class Role(models.TextChoices):
    """What a person may be appointed to. Anyone with a unit may apply: applicant is no role."""

    STEWARD = "steward", _("steward")
    COMMITTEE = "committee", _("committee member")
    OFFICER = "officer", _("security officer")
    REVIEWER = "reviewer", _("reviewer")
    AUDITOR = "auditor", _("auditor")
    ADMINISTRATOR = "administrator", _("administrator")


class RoleAssignment(models.Model):
    """A role proposed by one administrator and in force once a second person confirmed it."""

    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="role_assignments")
    role = models.CharField(max_length=20, choices=Role.choices)
    proposed_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, related_name="+", null=True, blank=True
    )
    confirmed_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, related_name="+", null=True, blank=True
    )
    proposed_at = models.DateTimeField(default=timezone.now)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    ended_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, related_name="+", null=True, blank=True
    )

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["person", "role"], condition=Q(ended_at=None), name="role_held_once"
            ),
            models.CheckConstraint(
                condition=Q(proposed_by=None)
                | Q(confirmed_by=None)
                | ~Q(proposed_by=models.F("confirmed_by")),
                name="role_given_by_two",
            ),
            models.CheckConstraint(
                condition=Q(confirmed_by=None) | ~Q(confirmed_by=models.F("person")),
                name="role_not_confirmed_by_holder",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.person}: {self.get_role_display()}"


class ApiToken(models.Model):
    """A bearer token for programs; only its digest is kept."""

    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True)
    # Whether it was made with a second factor; role holders' tokens need one.
    second_factor = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name
