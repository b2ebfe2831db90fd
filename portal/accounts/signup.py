"""What signing up asks for beside address and password; allauth's form inherits from this one."""

from __future__ import annotations

from django import forms
from django.http import HttpRequest
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from policies.errors import UserError
from portal.accounts.actions import checked_text
from portal.accounts.models import Person
from portal.errors import sentence


class NameForm(forms.Form):
    """The name under which others see a person."""

    name = forms.CharField(
        label=_("Your name"),
        max_length=150,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    field_order = ("name", "email", "password1", "password2")

    def clean_name(self) -> str:
        """Return the name as others will read it: the rule is that of the API's sign-up."""
        try:
            return checked_text(self.cleaned_data["name"], "name", 150)
        except UserError as error:
            raise forms.ValidationError(sentence(error)) from None

    def signup(self, request: HttpRequest, user: Person) -> None:
        """Keep the name, and the language that the page was shown in."""
        user.name = self.cleaned_data["name"]
        user.language = "ko" if (get_language() or "").startswith("ko") else "en"
        user.save(update_fields=["name", "language"])
