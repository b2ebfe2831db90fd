"""Writes of access requests by their applicants: filling in, documents, submitting, withdrawing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, BinaryIO

from django.db import transaction
from django.utils import timezone

from policies.access import check_request
from policies.document import Policy
from policies.errors import Conflict, Denied, Invalid, _
from policies.review import has_conflict
from policies.workflow import ACCESS_REQUEST, APPLICANT, SYSTEM
from portal import blobs, keys
from portal.access import queries
from portal.access.models import AccessRequest, RequestDocument, RequestStep
from portal.accounts.models import Person
from portal.audit.record import record
from portal.catalog.models import DatasetVersion
from portal.catalog.queries import policy_of
from portal.voting import casting

MOST_DOCUMENT_BYTES = 20 * 1024 * 1024
MOST_DOCUMENTS = 10
# What may be uploaded, by the bytes it begins with: the name and the sender's type are not asked.
DOCUMENT_TYPES = (
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
)
DOCUMENT_KINDS = ("ethics", "pledge", "material", "reference")


def locked(request: AccessRequest) -> AccessRequest:
    """Return the row as it is now, locked until the transaction ends."""
    return (
        AccessRequest.objects.select_for_update(of=("self",))
        .select_related(
            "applicant__unit__organisation", "version__dataset__steward__unit__organisation"
        )
        .get(pk=request.pk)
    )


def move(
    request: AccessRequest, action: str, actor: str, *, by: Person | None, **changes: Any
) -> None:
    """Move a locked request by the state machine, note when, and record it."""
    casting.move(request, ACCESS_REQUEST, "request", action, actor, by=by, **changes)


def _check_own(request: AccessRequest, by: Person) -> None:
    if request.applicant_id != by.pk:
        raise Denied(_("Only the applicant may do this."), code="request.applicant")


def _check_editable(request: AccessRequest) -> None:
    if request.state not in ("draft", "returned"):
        raise Conflict(
            _("A request is changed only as a draft or after it was returned."),
            code="request.closed",
        )


def _cleaned(fields: Mapping[str, Any], policy: Policy, *, complete: bool) -> dict[str, Any]:
    """Return the checked fields; the document is a file and has rows of its own."""
    cleaned = check_request(fields, policy, complete=complete)
    return {name: value for name, value in cleaned.items() if name != "ethics_document"}


@transaction.atomic
def create_request(
    *, by: Person, version: DatasetVersion, fields: Mapping[str, Any], conflict: bool = False
) -> AccessRequest:
    """Begin a request for a published version, as a draft that only its author sees.

    ``fields`` are those of policies.access.REQUEST_FIELDS (missing ones may follow), ``conflict``
    whether a conflict of interest is declared. Raises Denied without a unit, Invalid by field.
    """
    if by.unit_id is None:
        raise Denied(
            _("Your account belongs to no unit yet; an administrator places it."),
            code="request.unit",
        )
    if version.state != "published":
        raise Conflict(_("This version is not published."), field="version", code="request.version")
    policy = policy_of(version.dataset)
    request = AccessRequest.objects.create(
        applicant=by,
        version=version,
        state=ACCESS_REQUEST.initial,
        answers=_cleaned(fields, policy, complete=False),
        conflict_declared=conflict,
    )
    RequestStep.objects.create(request=request, state=request.state)
    record("request.create", by=by, about=request, details={"version": str(version)})
    return request


@transaction.atomic
def edit_request(
    *,
    by: Person,
    request: AccessRequest,
    fields: Mapping[str, Any],
    conflict: bool | None = None,
) -> AccessRequest:
    """Replace given fields of a draft or of a returned request; None or "" empties one."""
    request = locked(request)
    _check_own(request, by)
    _check_editable(request)
    merged = {**request.answers, **fields}
    request.answers = _cleaned(merged, queries.policy_for(request), complete=False)
    if conflict is not None:
        request.conflict_declared = conflict
    request.save(update_fields=["answers", "conflict_declared"])
    record("request.edit", by=by, about=request, details={"fields": sorted(fields)})
    return request


def document_type(head: bytes) -> str:
    """Return the media type of a document by its first bytes. Raises Invalid."""
    for magic, media_type in DOCUMENT_TYPES:
        if head.startswith(magic):
            return media_type
    raise Invalid(_("Upload a PDF, PNG or JPEG file."), field="file", code="request.document-type")


def document_context(request_id: int) -> str:
    """The context of the keys of a request's documents."""
    return f"document:request:{request_id}"


def _inert_name(filename: str) -> str:
    name = filename.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c if c.isprintable() and c not in '"<>' else "_" for c in name)[-150:].strip()


def add_document(
    *, by: Person, request: AccessRequest, stream: BinaryIO, filename: str, kind: str = "ethics"
) -> RequestDocument:
    """Attach a document; encrypted under the view key. Raises Denied, Conflict, Invalid."""
    _check_own(request, by)
    _check_editable(request)
    if kind not in DOCUMENT_KINDS:
        raise Invalid(
            _("A document is one of {kinds}."),
            field="kind",
            code="request.document-kind",
            kinds=", ".join(DOCUMENT_KINDS),
        )
    head = stream.read(16)
    media_type = document_type(head)
    stream.seek(0)
    key = keys.new_key()
    context = document_context(request.pk)
    name = blobs.object_name(key, context)
    try:
        stored = blobs.put(stream, key=key, name=name, limit=MOST_DOCUMENT_BYTES)
    except Invalid:
        raise Invalid(
            _("A document may have at most {most} MiB."),
            field="file",
            code="request.document-size",
            most=MOST_DOCUMENT_BYTES >> 20,
        ) from None
    try:
        with transaction.atomic():
            request = locked(request)
            _check_editable(request)
            if queries.documents_of(request).count() >= MOST_DOCUMENTS:
                raise Conflict(_("This request has enough documents."), code="request.documents")
            document = RequestDocument.objects.create(
                request=request,
                kind=kind,
                filename=_inert_name(filename) or f"{kind}.{media_type.rsplit('/', 1)[-1]}",
                media_type=media_type,
                bytes=stored.bytes,
                sha256=stored.sha256,
                object_name=stored.name,
                wrapped_key=keys.wrap(key, by=keys.master("view"), context=context),
                uploaded_by=by,
            )
            details = {"document": document.pk, "kind": kind, "sha256": stored.sha256}
            record("request.document.add", by=by, about=request, details=details)
    except BaseException:
        blobs.delete(stored.name)
        raise
    return document


@transaction.atomic
def remove_document(*, by: Person, document: RequestDocument) -> None:
    """Take a document back from a draft or a returned request; what was submitted once stays."""
    request = locked(document.request)
    _check_own(request, by)
    _check_editable(request)
    rows = RequestDocument.objects.filter(pk=document.pk, removed_at=None)
    if rows.update(removed_at=timezone.now()) != 1:
        raise Conflict(_("This document was removed already."), code="request.document-gone")
    record("request.document.remove", by=by, about=request, details={"document": document.pk})


def open_document(*, by: Person, document: RequestDocument) -> BinaryIO:
    """Open a document for someone who may read its request; each reading is recorded."""
    if not queries.requests_visible_to(by).filter(pk=document.request_id).exists():
        raise Denied(_("You may not read this request."), code="request.read")
    context = document_context(document.request_id)
    key = keys.unwrap(document.wrapped_key, by=keys.master("view"), context=context)
    stream = blobs.open(document.object_name, key=key)
    with transaction.atomic():
        details = {"document": document.pk, "sha256": document.sha256}
        record("request.document.read", by=by, about=document.request, details=details)
    return stream


def _resolve_analysts(request: AccessRequest) -> list[Person]:
    """Return the accounts behind the named addresses.

    Only accounts that an administrator has placed in a unit count: an address that somebody typed
    at sign-up proves nothing. Raises Invalid naming the first address without one.
    """
    people = []
    for address in request.answers.get("analysts", []):
        person = Person.objects.filter(email=address, is_active=True).exclude(unit=None).first()
        if person is None:
            raise Invalid(
                _("{address} has no account with a unit here; ask them to sign up first."),
                field="analysts",
                code="request.analyst-unknown",
                address=address,
            )
        people.append(person)
    return people


def _digest(request: AccessRequest, analysts: list[Person]) -> str:
    """Return the SHA-256 of what the committee will read; the round makes each submission new."""
    documents = queries.documents_of(request).values_list("kind", "sha256")
    value = {
        "request": request.pk,
        "round": request.round,
        "applicant": request.applicant_id,
        "version": request.version_id,
        "answers": request.answers,
        "analysts": sorted(person.pk for person in analysts),
        "conflict": request.conflict_declared,
        "documents": sorted([kind, sha256] for kind, sha256 in documents),
    }
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@transaction.atomic
def submit_request(*, by: Person, request: AccessRequest) -> AccessRequest:
    """Hand a request in, for the first time or again after it was returned.

    Everything is checked, the analysts' accounts are found, and what is now there is what the
    committee's votes are bound to. Raises Denied, Conflict, and Invalid naming the field.
    """
    request = locked(request)
    _check_own(request, by)
    ACCESS_REQUEST.next_state(request.state, "submit", APPLICANT)
    if request.version.state != "published":
        raise Conflict(_("This version is not published."), field="version", code="request.version")
    has_ethics = queries.documents_of(request).filter(kind="ethics").exists()
    fields = {**request.answers, "ethics_document": has_ethics}
    request.answers = _cleaned(fields, queries.policy_for(request), complete=True)
    analysts = _resolve_analysts(request)
    if has_conflict(queries.case_of(request)) and not request.conflict_declared:
        raise Invalid(
            _("You and the owner share an organisation: declare the conflict of interest."),
            field="conflict_declared",
            code="request.conflict",
        )
    request.analysts.set(analysts)
    request.round += 1
    request.bound_to = _digest(request, analysts)
    request.submitted_at = timezone.now()
    request.reason = ""
    request.save()
    move(request, "submit", APPLICANT, by=by)
    # Nothing stands between handing in and the committee; the step is kept so that a later
    # pre-check has its place.
    move(request, "open", SYSTEM, by=None)
    return request


@transaction.atomic
def withdraw_request(*, by: Person, request: AccessRequest) -> AccessRequest:
    """Take a request back for good."""
    request = locked(request)
    _check_own(request, by)
    move(request, "withdraw", APPLICANT, by=by, decided_at=timezone.now())
    return request
