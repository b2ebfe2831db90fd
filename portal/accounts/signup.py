"""What signing up asks for beside address and password; allauth's form inherits from this one."""

from __future__ import annotations

from django import forms
from django.http import HttpRequest
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from portal.accounts.models import Person


class NameForm(forms.Form):
    """The name under which others see a person."""

    name = forms.CharField(
        label=_("Your name"),
        max_length=150,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    field_order = ("name", "email", "password1", "password2")

    def signup(self, request: HttpRequest, user: Person) -> None:
        """Keep the name, and the language that the page was shown in."""
        user.name = " ".join(self.cleaned_data["name"].split())
        user.language = "ko" if (get_language() or "").startswith("ko") else "en"
        user.save(update_fields=["name", "language"])
