"""The forms of releases: proposing, the reviewer's vote with its checklist, revoking."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from portal.voting.forms import VoteForm

# What a reviewer has looked at before agreeing; all of them, for an approval.
CHECKLIST = (
    ("artefacts", _("What leaves is what the work needs, and no more.")),
    ("findings", _("I have read every finding, with its internal part.")),
    ("code", _("I have read the code where the scan points, and where data are written.")),
    ("metrics", _("The metrics say nothing of single subjects.")),
    ("history", _("With the earlier releases and the ledger, the whole is still proportionate.")),
)


class ReviewForm(VoteForm):
    """A vote on a release; to approve, everything on the checklist was looked at."""

    looked_at = forms.MultipleChoiceField(
        choices=CHECKLIST,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        label=_("Checklist"),
        help_text=_("All of it is needed to approve."),
    )
    field_order = ("bound_to", "looked_at", "choice", "comment")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        looked_at = cleaned.pop("looked_at", [])
        if cleaned.get("choice") == "approve" and len(looked_at) < len(CHECKLIST):
            self.add_error(
                "looked_at", gettext("Tick what you have looked at; an approval needs all of it.")
            )
        return cleaned


class ProposalForm(forms.Form):
    """The applicant's words to the reviewers."""

    note = forms.CharField(
        required=False,
        label=_("Note to the reviewers (optional)"),
        help_text=_("What the model is, what its figures mean, what they may wonder about."),
        widget=forms.Textarea(attrs={"maxlength": 5000}),
    )
    conflict_declared = forms.BooleanField(
        required=False,
        label=_("I declare a conflict of interest"),
        help_text=_("Needed where you and the dataset's owner share an organisation."),
    )


class RevocationForm(forms.Form):
    """Why a release is revoked; the sentence is published."""

    reason = forms.CharField(
        label=_("Reason"),
        help_text=_("It stands in the published, signed list: name no person."),
        widget=forms.Textarea(attrs={"rows": 2, "maxlength": 2000}),
        error_messages={"required": _("Say why; it stands in the published list.")},
    )
