"""The forms of releases: proposing, the reviewer's vote with its checklist, revoking."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from policies.checklist import LINES
from policies.lifting import MOST_REASON
from portal.accounts.models import Person
from portal.voting.forms import VoteForm


class ReviewForm(VoteForm):
    """A vote on a release; to approve, everything on the policy's checklist was looked at."""

    looked_at = forms.MultipleChoiceField(
        required=False,
        widget=forms.CheckboxSelectMultiple,
        label=_("Checklist"),
        help_text=_("All of it is needed to approve."),
    )
    field_order = ("bound_to", "looked_at", "choice", "comment")

    def __init__(self, *args: Any, checklist: Iterable[str], **options: Any) -> None:
        super().__init__(*args, **options)
        field = self.fields["looked_at"]
        assert isinstance(field, forms.MultipleChoiceField)
        asked = set(checklist)
        field.choices = [(name, gettext(words)) for name, words in LINES.items() if name in asked]


class LiftForm(forms.Form):
    """Why the steward lifts a soft block."""

    reason = forms.CharField(
        label=_("Reason"),
        help_text=_("It stands in the evidence of the bundle: name no person."),
        widget=forms.Textarea(attrs={"rows": 3, "maxlength": MOST_REASON}),
    )


class AgainForm(forms.Form):
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


class ProposalForm(AgainForm):
    """The same with what is said once."""

    proprietary = forms.BooleanField(
        required=False,
        label=_("The network is a secret of ours"),
        help_text=_("Then only the reviewers that the steward names see the code and vote."),
    )


class NameForm(forms.Form):
    """Which reviewers may see a proprietary network."""

    reviewers = forms.ModelMultipleChoiceField(
        queryset=Person.objects.none(),
        widget=forms.CheckboxSelectMultiple,
        label=_("Reviewers who see the network"),
        error_messages={"required": _("Name at least one reviewer.")},
    )

    def __init__(self, *args: Any, people: QuerySet[Person], **options: Any) -> None:
        super().__init__(*args, **options)
        field = self.fields["reviewers"]
        assert isinstance(field, forms.ModelMultipleChoiceField)
        field.queryset = people


class RevocationForm(forms.Form):
    """Why a release is revoked; the sentence is published."""

    reason = forms.CharField(
        label=_("Reason"),
        help_text=_("It stands in the published, signed list: name no person."),
        widget=forms.Textarea(attrs={"rows": 2, "maxlength": 2000}),
        error_messages={"required": _("Say why; it stands in the published list.")},
    )
