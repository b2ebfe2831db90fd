"""What the API shows of people, and what it takes."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from portal.accounts import queries
from portal.accounts.models import ApiToken, Organisation, Person, RoleAssignment, Unit


class OrganisationSerializer(serializers.ModelSerializer[Organisation]):
    class Meta:
        model = Organisation
        fields = ("id", "name", "country", "external")


class NewOrganisationSerializer(serializers.Serializer[Any]):
    # Without a uniqueness check here: who may not add one does not learn which names there are.
    name = serializers.CharField(max_length=200)
    country = serializers.CharField(max_length=2, default="KR")
    external = serializers.BooleanField(default=True)


class UnitSerializer(serializers.ModelSerializer[Unit]):
    organisation_name = serializers.CharField(source="organisation.name", read_only=True)

    class Meta:
        model = Unit
        fields = ("id", "organisation", "organisation_name", "name")


class NewUnitSerializer(serializers.Serializer[Any]):
    organisation = serializers.PrimaryKeyRelatedField(queryset=Organisation.objects.all())
    name = serializers.CharField(max_length=200)


class PersonSerializer(serializers.ModelSerializer[Person]):
    unit_name = serializers.CharField(source="unit.name", read_only=True, default=None)
    organisation = serializers.IntegerField(
        source="unit.organisation_id", read_only=True, default=None
    )
    organisation_name = serializers.CharField(
        source="unit.organisation.name", read_only=True, default=None
    )
    roles = serializers.SerializerMethodField()
    second_factor = serializers.SerializerMethodField()

    class Meta:
        model = Person
        fields = (
            "id",
            "email",
            "name",
            "language",
            "unit",
            "unit_name",
            "organisation",
            "organisation_name",
            "is_active",
            "joined_at",
            "roles",
            "second_factor",
        )

    def get_roles(self, person: Person) -> list[str]:
        return sorted(queries.roles_of(person))

    def get_second_factor(self, person: Person) -> bool:
        return queries.has_second_factor(person)


class PersonBriefly(serializers.ModelSerializer[Person]):
    """Who somebody is, as those they work with see it."""

    unit = serializers.CharField(source="unit.name", default="", read_only=True)
    organisation = serializers.CharField(source="unit.organisation.name", default="")

    class Meta:
        model = Person
        fields = ("id", "name", "email", "unit", "organisation")


class NewPersonSerializer(serializers.Serializer[Any]):
    email = serializers.CharField(max_length=254)
    name = serializers.CharField(max_length=150)
    password = serializers.CharField(max_length=200, trim_whitespace=False, write_only=True)
    language = serializers.CharField(max_length=5, default="en")


class SignedUpSerializer(serializers.Serializer[Any]):
    """What a sign-up is answered with: nothing but what was sent, whoever had the address."""

    email = serializers.CharField(max_length=254)
    name = serializers.CharField(max_length=150)
    language = serializers.CharField(max_length=5)

    def to_representation(self, instance: Any) -> dict[str, Any]:
        shown = dict(super().to_representation(instance))
        return shown | {"email": shown["email"].lower()}


class PlaceSerializer(serializers.Serializer[Any]):
    unit = serializers.PrimaryKeyRelatedField(queryset=Unit.objects.all(), allow_null=True)


class OwnDetailsSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=150, required=False, default=None)
    language = serializers.CharField(max_length=5, required=False, default=None)


class RoleSerializer(serializers.ModelSerializer[RoleAssignment]):
    state = serializers.SerializerMethodField()
    person_email = serializers.CharField(source="person.email", read_only=True)

    class Meta:
        model = RoleAssignment
        fields = (
            "id",
            "person",
            "person_email",
            "role",
            "state",
            "proposed_by",
            "proposed_at",
            "confirmed_by",
            "confirmed_at",
            "ended_by",
            "ended_at",
        )

    def get_state(self, assignment: RoleAssignment) -> str:
        if assignment.ended_at is not None:
            return "ended"
        return "proposed" if assignment.confirmed_at is None else "in_force"


class NewRoleSerializer(serializers.Serializer[Any]):
    person = serializers.PrimaryKeyRelatedField(queryset=Person.objects.all())
    role = serializers.CharField(max_length=20)


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    class Meta:
        model = ApiToken
        fields = ("id", "name", "created_at", "expires_at", "last_used_at", "second_factor")


class SignInSerializer(serializers.Serializer[Any]):
    email = serializers.CharField(max_length=254)
    password = serializers.CharField(max_length=200, trim_whitespace=False, write_only=True)
    totp = serializers.CharField(max_length=12, required=False, default="", allow_blank=True)
    name = serializers.CharField(max_length=100, default="api")
    days = serializers.IntegerField(required=False, default=30)


class OwnTokenSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=100)
    days = serializers.IntegerField(required=False, default=30)


class NewTokenSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    token = serializers.CharField(help_text="Shown this once.")
    expires_at = serializers.DateTimeField()


class TotpStartSerializer(serializers.Serializer[Any]):
    secret = serializers.CharField()
    url = serializers.CharField(help_text="otpauth:// address for an authenticator.")
    proof = serializers.CharField(help_text="Send back with the first code.")


class TotpConfirmSerializer(serializers.Serializer[Any]):
    proof = serializers.CharField(max_length=500)
    code = serializers.CharField(max_length=12)


class RecoveryCodesSerializer(serializers.Serializer[Any]):
    recovery_codes = serializers.ListField(child=serializers.CharField())
