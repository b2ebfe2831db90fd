"""What somebody who votes fills in, whatever is voted on."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _


class VoteForm(forms.Form):
    """A vote on exactly what ``bound_to`` names."""

    CHOICES = (
        ("approve", _("Approve")),
        ("return", _("Return for changes")),
        ("reject", _("Reject")),
    )
    bound_to = forms.CharField(max_length=64, widget=forms.HiddenInput)
    choice = forms.ChoiceField(
        choices=CHOICES,
        widget=forms.RadioSelect,
        label=_("Your vote"),
        error_messages={"required": _("Choose one.")},
    )
    comment = forms.CharField(
        required=False,
        label=_("Comment"),
        widget=forms.Textarea(attrs={"rows": 4, "maxlength": 5000}),
        help_text=_(
            "Needed unless you approve: the applicant reads it, without your name. The others who "
            "vote see it once the quorum has voted."
        ),
    )


class RecuseForm(forms.Form):
    """Somebody is too close to judge; the reason is theirs to give or not."""

    reason = forms.CharField(
        required=False,
        label=_("Reason (optional)"),
        widget=forms.Textarea(attrs={"rows": 2, "maxlength": 2000}),
    )
