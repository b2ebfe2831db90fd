"""What a steward says of a new dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from policies.document import POLICY_BYTES
from policies.errors import UserError
from policies.toml_text import read_toml
from portal.catalog.models import Dataset
from portal.errors import sentence

PROFILES = (
    ("research", _("research: one shift of whole days for each patient, clean descriptors")),
    ("basic", _("basic: no dates, no descriptors")),
    ("mammography", _("mammography: research, and what breast images need")),
)


class DatasetForm(forms.Form):
    """A new dataset."""

    title = forms.CharField(label=_("Title"), max_length=200)
    title_ko = forms.CharField(label=_("Korean title"), max_length=200, required=False)
    slug = forms.SlugField(
        label=_("Short name"),
        max_length=60,
        help_text=_("Small letters, digits and hyphens; submissions name the dataset by it."),
    )
    kind = forms.ChoiceField(label=_("Kind"), choices=Dataset.Kind.choices)
    description = forms.CharField(
        label=_("Description"),
        max_length=20_000,
        widget=forms.Textarea,
        help_text=_("Anyone can read this: what it is, how it was gathered, what it is good for."),
    )
    description_ko = forms.CharField(
        label=_("Korean description"), max_length=20_000, widget=forms.Textarea, required=False
    )
    profile = forms.ChoiceField(label=_("De-identification"), choices=PROFILES)
    policy = forms.CharField(
        label=_("Policy"),
        required=False,
        widget=forms.Textarea(attrs={"class": "mono", "spellcheck": "false"}),
        help_text=_(
            "TOML; only what is stricter than the portal's own policy. "
            "Empty: the portal's policy applies."
        ),
    )

    def clean_policy(self) -> Mapping[str, Any]:
        """Read the TOML; what it may say is checked by the action."""
        try:
            return read_toml(self.cleaned_data["policy"], "policy", POLICY_BYTES)
        except UserError as error:
            raise forms.ValidationError(sentence(error)) from None
