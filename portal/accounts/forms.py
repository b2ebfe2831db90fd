"""The forms of one's own page and of administration."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from portal.accounts import api_tokens
from portal.accounts.models import Organisation, Person, Role, Unit


class DetailsForm(forms.Form):
    """One's own name and language."""

    name = forms.CharField(
        label=_("Name"), max_length=150, widget=forms.TextInput(attrs={"autocomplete": "name"})
    )
    language = forms.ChoiceField(label=_("Language"), choices=settings.LANGUAGES)


class TokenForm(forms.Form):
    """A new token for a program."""

    name = forms.CharField(
        label=_("What is it for?"), max_length=100, help_text=_("Such as: laptop, nightly run.")
    )
    days = forms.IntegerField(
        label=_("Valid for, in days"),
        min_value=1,
        max_value=api_tokens.MAXIMUM_DAYS,
        initial=api_tokens.DEFAULT_DAYS,
    )


class OrganisationForm(forms.Form):
    """A hospital, company or university."""

    name = forms.CharField(label=_("Name"), max_length=200)
    country = forms.CharField(
        label=_("Country"), max_length=2, initial="KR", help_text=_("Two letters, such as KR.")
    )
    external = forms.BooleanField(
        label=_("External: independent of whoever runs this portal"), initial=True, required=False
    )


class UnitForm(forms.Form):
    """A department of an organisation."""

    organisation = forms.ModelChoiceField(
        label=_("Organisation"), queryset=Organisation.objects.order_by("name")
    )
    name = forms.CharField(label=_("Name"), max_length=200)


def units() -> Any:
    """Return all units as they are offered to choose from."""
    return Unit.objects.select_related("organisation").order_by("organisation__name", "name")


class PlaceForm(forms.Form):
    """Which unit somebody belongs to."""

    unit = forms.ModelChoiceField(
        label=_("Unit"), queryset=Unit.objects.none(), required=False, empty_label=_("none")
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["unit"].queryset = units()  # type: ignore[attr-defined]


class RoleForm(forms.Form):
    """A role to be proposed for somebody."""

    person = forms.ModelChoiceField(label=_("Person"), queryset=Person.objects.none())
    role = forms.ChoiceField(label=_("Role"), choices=Role.choices)

    def __init__(self, *args: Any, by: Person, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        people = Person.objects.filter(is_active=True, unit__isnull=False).exclude(pk=by.pk)
        self.fields["person"].queryset = people.order_by("name")  # type: ignore[attr-defined]
