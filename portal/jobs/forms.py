"""The form that hands a submission in."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from portal.access.models import Grant


class GrantChoice(forms.ModelChoiceField):  # type: ignore[type-arg] # not generic when run
    """A grant as its analysts know it: dataset, version, end."""

    def label_from_instance(self, obj: Any) -> str:
        text = _("{dataset} {version}, grant {number}, until {end}")
        return str(text).format(
            dataset=obj.version.dataset.slug,
            version=obj.version.number,
            number=obj.pk,
            end=obj.ends_at.date().isoformat(),
        )


class SubmissionForm(forms.Form):
    """A zip and the grant under which it runs."""

    grant = GrantChoice(
        queryset=Grant.objects.none(),
        label=_("Grant"),
        empty_label=None,
        error_messages={
            "required": _("Choose a grant."),
            "invalid_choice": _("You are not one of the named analysts of this grant."),
        },
    )
    archive = forms.FileField(
        label=_("Submission"),
        help_text=_(
            "A zip with glovebox.toml at its top (zip the folder's content, not the folder)."
        ),
        widget=forms.FileInput(attrs={"accept": ".zip,application/zip"}),
        error_messages={
            "required": _("Choose a zip file."),
            "empty": _("This file is empty."),
        },
    )

    def __init__(self, *args: Any, grants: QuerySet[Grant], **options: Any) -> None:
        super().__init__(*args, **options)
        field = self.fields["grant"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = grants
