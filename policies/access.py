"""What each purpose may get, what a request must say, and when a grant may be used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from policies.document import Entitlement, Policy
from policies.errors import Denied, Invalid, UserError, _
from policies.names import is_inert, shown, unknown

__all__ = [
    "PURPOSES",
    "REQUEST_FIELDS",
    "Entitlement",
    "GrantFacts",
    "RequestField",
    "can_get",
    "can_use_grant",
    "check_can_get",
    "check_grant_covers",
    "check_grant_usable",
    "check_period",
    "check_request",
    "entitlement",
    "period_end",
    "request_faults",
]

PURPOSES = ("research", "education", "commercial", "download")

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")


@dataclass(frozen=True, slots=True)
class RequestField:
    """One field of an access request.

    ``kind`` is choice, line, text, days, people, document or yes. A line has one line; ``least``
    and ``most`` count its characters. ``label`` and ``help`` are untranslated sentences.
    """

    name: str
    kind: str
    label: str
    help: str = ""
    required: bool = True
    least: int = 0
    most: int = 0


# The criteria by which the adequacy of de-identification is judged (purpose, method, period,
# expertise and means, gain, protection, linkability, relation, access rights), asked one by one.
REQUEST_FIELDS: tuple[RequestField, ...] = (
    RequestField("purpose", "choice", _("Purpose")),
    RequestField("title", "line", _("Title of the work"), least=3, most=150),
    RequestField(
        "aim", "text", _("Aim"), _("What question is answered, and for whom."), least=20, most=4000
    ),
    RequestField(
        "method",
        "text",
        _("Method"),
        _("The kind of model, how it is trained and how it is judged."),
        least=20,
        most=4000,
    ),
    RequestField("days", "days", _("Period in days")),
    RequestField("analysts", "people", _("Analysts"), _("The e-mail address of each of them.")),
    RequestField(
        "expertise", "text", _("Expertise"), _("Of the named analysts."), least=10, most=2000
    ),
    RequestField(
        "means",
        "text",
        _("Means to re-identify"),
        _("Other data, tools or knowledge that could recognise a subject."),
        least=2,
        most=2000,
    ),
    RequestField("gain", "text", _("Gain from re-identification"), least=2, most=2000),
    RequestField(
        "protection", "text", _("Level of protection"), _("Where you work."), least=10, most=2000
    ),
    RequestField(
        "linkage",
        "text",
        _("Linking with other data"),
        _("Which, and why; or that there is none."),
        least=2,
        most=2000,
    ),
    RequestField("relation", "text", _("Relation to the dataset's owner"), least=2, most=2000),
    RequestField(
        "access_control",
        "text",
        _("Control of access rights"),
        _("Who in your organisation may use your account and the released model."),
        least=2,
        most=2000,
    ),
    RequestField(
        "outputs", "text", _("What is to leave"), _("Models and figures."), least=2, most=2000
    ),
    RequestField("material", "text", _("Material to carry in"), required=False, most=2000),
    RequestField("ethics_document", "document", _("Approval of an ethics board")),
    RequestField(
        "pledge",
        "yes",
        _("Security pledge"),
        _("I will not try to recognise any subject, and nobody but the analysts will work here."),
    ),
)


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """What a grant says; ``starts`` and ``ends`` are aware datetimes, ``ends`` is outside."""

    state: str
    starts: datetime
    ends: datetime
    analysts: frozenset[str]
    dataset: str
    version: str


def entitlement(purpose: str, policy: Policy) -> Entitlement:
    """Return what ``purpose`` may get; a purpose that the policy does not know gets nothing."""
    return policy.access.purposes.get(purpose, Entitlement(False, False, False, False))


def check_can_get(purpose: str, what: str, policy: Policy) -> None:
    """Raise Denied unless ``purpose`` may get train, weights, metrics or download_data."""
    if not can_get(purpose, what, policy):
        raise Denied(
            _("The purpose {purpose} does not include this: {what}."),
            field="purpose",
            code="access.purpose",
            purpose=shown(purpose),
            what=shown(what).replace("_", " "),
        )


def can_get(purpose: str, what: str, policy: Policy) -> bool:
    """Whether ``purpose`` may get ``what``."""
    given = entitlement(purpose, policy)
    return {
        "train": given.train,
        "weights": given.weights,
        "metrics": given.metrics,
        "download_data": given.download_data,
    }.get(what, False)


def check_grant_usable(grant: GrantFacts, person: str, now: datetime) -> None:
    """Raise Denied unless ``person`` may work under ``grant`` at ``now`` (an aware datetime).

    The person is asked first: to a stranger the grant's state is not told.
    """
    if not person or person not in grant.analysts:
        raise Denied(
            _("You are not one of the named analysts of this grant."), code="access.analyst"
        )
    if grant.state != "active":
        raise Denied(
            _("This grant is {state}."), code="access.grant-state", state=shown(grant.state)
        )
    if any(moment.tzinfo is None for moment in (now, grant.starts, grant.ends)):
        raise ValueError("grant times must be aware")
    if now < grant.starts:
        raise Denied(_("This grant has not begun yet."), code="access.grant-early")
    if now >= grant.ends:
        raise Denied(_("This grant has ended."), code="access.grant-ended")


def can_use_grant(grant: GrantFacts, person: str, now: datetime) -> bool:
    """Whether :func:`check_grant_usable` holds."""
    try:
        check_grant_usable(grant, person, now)
    except Denied:
        return False
    return True


def check_grant_covers(grant: GrantFacts, datasets: Mapping[str, str]) -> None:
    """Raise Denied naming the first dataset (slug to version) that the grant is not for."""
    for slug, version in datasets.items():
        if (slug, version) != (grant.dataset, grant.version):
            raise Denied(
                _("This grant is for {dataset} version {version} only."),
                field=f"datasets.{shown(slug)}",
                code="access.grant-dataset",
                dataset=grant.dataset,
                version=grant.version,
            )


def check_period(days: object, policy: Policy) -> int:
    """Return the length of a grant in days, or raise Invalid."""
    if isinstance(days, bool) or not isinstance(days, int):
        raise Invalid(_("Write a number of whole days."), field="days", code="access.period")
    if not 1 <= days <= policy.access.maximum_days:
        raise Invalid(
            _("A grant lasts between 1 and {most} days."),
            field="days",
            code="access.period",
            most=policy.access.maximum_days,
        )
    return days


def period_end(starts: datetime, days: int, policy: Policy) -> datetime:
    """Return when a grant of ``days`` that starts then ends."""
    return starts + timedelta(days=check_period(days, policy))


def check_request(
    fields: Mapping[str, Any], policy: Policy, *, complete: bool = True
) -> dict[str, Any]:
    """Return the cleaned fields of a request, or raise the first Invalid.

    ``fields`` has the names of REQUEST_FIELDS; ``analysts`` is a list of addresses,
    ``ethics_document`` a name or true when it was uploaded. With ``complete=False`` (saving a
    draft) what is missing is allowed, what is there must be right.
    """
    cleaned, faults = _read_request(fields, policy, complete)
    if faults:
        raise next(iter(faults.values()))
    return cleaned


def request_faults(
    fields: Mapping[str, Any], policy: Policy, *, complete: bool = True
) -> dict[str, UserError]:
    """Return every fault of a request by field, for a page that shows them all at once."""
    return _read_request(fields, policy, complete)[1]


def _read_request(
    fields: Mapping[str, Any], policy: Policy, complete: bool
) -> tuple[dict[str, Any], dict[str, UserError]]:
    known = {spec.name: spec for spec in REQUEST_FIELDS}
    cleaned: dict[str, Any] = {}
    faults: dict[str, UserError] = {}
    for name in fields:
        if name not in known:
            faults[shown(name)] = unknown(
                _("A request has no field {name}."), name, known, shown(name), "request.unknown"
            )
    for name, spec in known.items():
        value = fields.get(name)
        required = spec.required and (name != "ethics_document" or policy.access.ethics_document)
        if isinstance(value, str):
            value = value.strip()
        if value is None or value is False or value == "" or value == []:
            if required and complete:
                faults[name] = Invalid(
                    _("Please fill this in."), field=name, code="request.missing"
                )
            continue
        try:
            cleaned[name] = _read_field(spec, value, policy, complete)
        except Invalid as fault:
            faults[name] = fault
    return cleaned, faults


def _read_field(spec: RequestField, value: object, policy: Policy, complete: bool) -> Any:
    if spec.kind == "choice":
        return _read_purpose(value, policy)
    if spec.kind == "days":
        return check_period(value, policy)
    if spec.kind == "people":
        return _read_people(value, spec.name, policy)
    if spec.kind == "yes":
        if value is not True:
            raise Invalid(_("Please confirm this."), field=spec.name, code="request.yes")
        return True
    if spec.kind == "document":
        if value is True or (isinstance(value, str) and len(value) <= 200 and is_inert(value)):
            return value
        raise Invalid(_("Upload the document."), field=spec.name, code="request.document")
    return _read_text(spec, value, complete)


def _read_text(spec: RequestField, value: object, complete: bool) -> str:
    if not isinstance(value, str):
        raise Invalid(_("This must be text."), field=spec.name, code="request.type")
    text = value.replace("\r\n", "\n").strip()
    if not is_inert(text, lines=spec.kind == "text"):
        raise Invalid(
            _("Control or invisible characters are not accepted."),
            field=spec.name,
            code="request.characters",
        )
    least = spec.least if complete else 0
    if not least <= len(text) <= spec.most:
        raise Invalid(
            _("Write between {least} and {most} characters."),
            field=spec.name,
            code="request.length",
            least=least,
            most=spec.most,
        )
    return text


def _read_purpose(value: object, policy: Policy) -> str:
    if not isinstance(value, str) or value not in policy.access.purposes:
        raise unknown(
            _("There is no purpose {name}."),
            value,
            policy.access.purposes,
            "purpose",
            "request.purpose",
        )
    given = entitlement(value, policy)
    if not (given.train or given.download_data):
        raise Invalid(
            _("This dataset is not given for this purpose; nobody downloads the data."),
            field="purpose",
            code="request.purpose-denied",
        )
    return value


def _read_people(value: object, name: str, policy: Policy) -> list[str]:
    if not isinstance(value, list | tuple):
        raise Invalid(_("List the analysts' addresses."), field=name, code="request.type")
    if len(value) > policy.access.maximum_analysts:
        raise Invalid(
            _("A grant names at most {most} analysts."),
            field=name,
            code="request.analysts",
            most=policy.access.maximum_analysts,
        )
    people: list[str] = []
    for address in value:
        if (
            not isinstance(address, str)
            or len(address) > 254
            or not _EMAIL.fullmatch(address.strip())
        ):
            raise Invalid(
                _("{address} is not an e-mail address."),
                field=name,
                code="request.address",
                address=shown(address),
            )
        if address.strip().lower() not in people:
            people.append(address.strip().lower())
    return people
