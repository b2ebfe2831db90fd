"""The request's form, made from policies.access.REQUEST_FIELDS, and the small forms beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils.translation import gettext, gettext_noop, ngettext
from django.utils.translation import gettext_lazy as _

from policies.access import REQUEST_FIELDS, RequestField, entitlement
from policies.document import Policy
from policies.errors import UserError
from portal.access.models import AccessRequest
from portal.errors import sentence

# The order in which the form asks: by what a committee judges, not by how a row is stored.
GROUPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        gettext_noop("The work"),
        gettext_noop("What for, how, and what is to leave in the end."),
        ("purpose", "title", "aim", "method", "outputs"),
    ),
    (
        gettext_noop("People and time"),
        gettext_noop("Only the named analysts may work, and only until the end of the period."),
        ("analysts", "expertise", "days"),
    ),
    (
        gettext_noop("Risk for the subjects"),
        gettext_noop("What could recognise a subject. “None” is an answer, too; say why."),
        ("means", "gain", "linkage", "relation"),
    ),
    (
        gettext_noop("Protection"),
        gettext_noop("How your place, your accounts and the released model are guarded."),
        ("protection", "access_control", "material"),
    ),
    (
        gettext_noop("Documents and declarations"),
        gettext_noop("PDF, PNG or JPEG, at most 20 MiB each. Stored encrypted."),
        ("ethics_document", "conflict_declared", "pledge"),
    ),
)
PURPOSES: Mapping[str, str] = {
    "research": gettext_noop("Research"),
    "education": gettext_noop("Education"),
    "commercial": gettext_noop("Commercial use"),
    "download": gettext_noop("Download of the data"),
}
MORE_HELP: Mapping[str, str] = {
    "analysts": gettext_noop("One on a line. Each needs an account with a unit here; name yourself "
                             "if you will work, too."),
    "gain": gettext_noop("Who would gain what if a subject were recognised."),
    "relation": gettext_noop("Shares, contracts, staff or funds in common with the owner."),
    "material": gettext_noop("Weights, tables or other files you want to bring to the data."),
    "ethics_document": gettext_noop("The decision of your ethics board for this work."),
}  # fmt: skip


def purpose_label(purpose: str, policy: Policy) -> str:
    """Return a purpose with what it gives."""
    given = entitlement(purpose, policy)
    what = []
    if given.train:
        what.append(gettext("training in the sealed room"))
    if given.weights:
        what.append(gettext("trained weights leave"))
    elif given.train:
        what.append(gettext("weights stay, figures leave"))
    word = gettext(PURPOSES.get(purpose, purpose))
    return f"{word}: {', '.join(what)}" if what else word


def purposes_open(policy: Policy) -> list[str]:
    """Return the purposes for which a dataset is given at all."""
    return [name for name, given in policy.access.purposes.items() if given.train]


class RequestForm(forms.Form):
    """All fields of a request; nothing is required here, for a draft may be incomplete."""

    use_required_attribute = False

    def __init__(self, *args: Any, policy: Policy, **options: Any) -> None:
        super().__init__(*args, **options)
        for spec in REQUEST_FIELDS:
            self.fields[spec.name] = _field(spec, policy)
        self.fields["conflict_declared"] = forms.BooleanField(
            required=False,
            label=_("I declare a conflict of interest"),
            help_text=_(
                "Needed where you and the dataset's owner share an organisation; then most votes "
                "have to come from external members."
            ),
        )

    def answers(self) -> dict[str, Any]:
        """Return what was filled in, in the shape that the actions take."""
        given = dict(self.cleaned_data)
        given.pop("ethics_document", None)
        given.pop("conflict_declared", None)
        people = str(given.get("analysts") or "").replace(",", "\n").split()
        return {**given, "analysts": people}

    def show(self, faults: Mapping[str, UserError]) -> None:
        """Put each fault beside its field."""
        for name, fault in faults.items():
            self.add_error(name if name in self.fields else None, sentence(fault))

    def groups(self) -> list[dict[str, Any]]:
        """Return the form's fields, group by group."""
        return [
            {
                "title": gettext(title),
                "help": gettext(text),
                "number": number,
                "fields": [self[name] for name in names],
            }
            for number, (title, text, names) in enumerate(GROUPS, start=1)
        ]

    def summary(self) -> list[tuple[str, str, str]]:
        """Return (id, label, sentence) of every fault, in the order of the page."""
        return [
            (field.id_for_label if field.widget_type != "radioselect" else f"{field.auto_id}_0",
             str(field.label), str(text))
            for group in self.groups()
            for field in group["fields"]
            for text in field.errors
        ]  # fmt: skip


def _help(spec: RequestField) -> str:
    parts = [gettext(text) for text in (spec.help, MORE_HELP.get(spec.name, "")) if text]
    if spec.kind in ("line", "text") and spec.least > 2:
        text = gettext("Between {least} and {most} characters.")
        parts.append(text.format(least=spec.least, most=f"{spec.most:,}"))
    return " ".join(parts)


def _field(spec: RequestField, policy: Policy) -> forms.Field:
    label = gettext(spec.label)
    if not spec.required:
        label = f"{label} ({gettext('optional')})"
    common: dict[str, Any] = {"required": False, "label": label, "help_text": _help(spec)}
    if spec.kind == "choice":
        choices = [(name, purpose_label(name, policy)) for name in purposes_open(policy)]
        return forms.ChoiceField(choices=choices, widget=forms.RadioSelect, **common)
    if spec.kind == "days":
        most = policy.access.maximum_days
        common["help_text"] = ngettext(
            "At most {most} day.", "At most {most} days.", most
        ).format(most=most)  # fmt: skip
        # What is no number is told by the rule, with its own words.
        return forms.IntegerField(min_value=1, max_value=most, **common)
    if spec.kind == "people":
        return forms.CharField(widget=forms.Textarea(attrs={"rows": 3}), **common)
    if spec.kind == "yes":
        return forms.BooleanField(**common)
    if spec.kind == "document":
        widget = forms.FileInput(attrs={"accept": ".pdf,.png,.jpg,.jpeg"})
        return forms.FileField(widget=widget, **common)
    attributes = {"maxlength": spec.most}
    if spec.kind == "line":
        return forms.CharField(widget=forms.TextInput(attrs=attributes), **common)
    return forms.CharField(widget=forms.Textarea(attrs={**attributes, "rows": 4}), **common)


def initial_of(row: AccessRequest) -> dict[str, Any]:
    """Return a draft as the form shows it."""
    return {
        **row.answers,
        "analysts": "\n".join(row.answers.get("analysts", [])),
        "conflict_declared": row.conflict_declared,
    }


class ReasonForm(forms.Form):
    """Why something is stopped, given back or left to others."""

    reason = forms.CharField(
        label=_("Reason"),
        widget=forms.Textarea(attrs={"rows": 2, "maxlength": 2000}),
        error_messages={"required": _("Say why.")},
    )


class SignatureForm(forms.Form):
    """A signature under the text that was shown."""

    agreement = forms.IntegerField(widget=forms.HiddenInput)
    typed_name = forms.CharField(
        max_length=150,
        label=_("Your full name, as it stands in your account"),
        error_messages={"required": _("Type your name to sign.")},
    )
