"""Agreements, signatures and grants: how approved access begins, is stopped, and ends."""

from __future__ import annotations

import hashlib

from django.db import transaction
from django.utils import timezone

from policies.access import check_request, period_end
from policies.errors import Conflict, Denied, Invalid, _
from policies.workflow import ADMINISTRATOR, GRANT, STEWARD, SYSTEM
from portal.access import queries
from portal.access.actions import locked
from portal.access.models import AccessRequest, Agreement, Grant, Signature
from portal.access.refusals import refusals_recorded
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.audit.record import record
from portal.plain_input import check_inert
from portal.tasking import hint

__all__ = ["change_grant", "expire", "publish_agreement", "sign_agreement"]


def _digest(text_en: str, text_ko: str) -> str:
    return hashlib.sha256(f"{text_en}\0{text_ko}".encode()).hexdigest()


@transaction.atomic
def publish_agreement(
    *, by: Person, title_en: str, title_ko: str, text_en: str, text_ko: str, name: str = "default"
) -> Agreement:
    """Publish the next version of an agreement; stewards. Signed versions never change."""
    if "steward" not in roles_of(by):
        raise Denied(_("Only a steward may publish an agreement."), code="agreement.steward")
    for field, text in (
        ("title_en", title_en),
        ("title_ko", title_ko),
        ("text_en", text_en),
        ("text_ko", text_ko),
    ):
        longest = 200 if field.startswith("title") else 100_000
        if not text.strip() or len(text) > longest:
            raise Invalid(
                _("Between 1 and {longest} characters are needed."),
                field=field,
                code="text.length",
                longest=longest,
            )
        # Nobody signs what reads in another order than it is written.
        check_inert(text.strip(), field, lines=field.startswith("text"))
    rows = Agreement.objects.select_for_update().filter(name=name).order_by("-number")
    last = rows.first()
    if last is None:
        raise Invalid(_("There is no agreement of this name."), field="name", code="agreement.name")
    agreement = Agreement.objects.create(
        name=name,
        number=last.number + 1,
        title_en=title_en.strip(),
        title_ko=title_ko.strip(),
        text_en=text_en,
        text_ko=text_ko,
        sha256=_digest(text_en, text_ko),
        published_by=by,
    )
    record("agreement.publish", by=by, about=agreement, details={"sha256": agreement.sha256})
    return agreement


@transaction.atomic
def sign_agreement(
    *, by: Person, request: AccessRequest, agreement: Agreement, typed_name: str, language: str
) -> Grant:
    """Sign the current agreement for an approved request; the grant begins with it.

    Raises Denied for anybody but the applicant, Conflict where it is not approved, was signed, or
    a newer text has appeared, Invalid where the typed name is not the account's.
    """
    request = locked(request)
    if request.applicant_id != by.pk:
        raise Denied(_("Only the applicant may do this."), code="request.applicant")
    if request.state != "approved":
        raise Conflict(_("Only an approved request is signed."), code="agreement.state")
    if Signature.objects.filter(request=request).exists():
        raise Conflict(_("This was signed already."), code="agreement.twice")
    current = queries.current_agreement()
    if agreement.pk != current.pk:
        raise Conflict(
            _("There is a newer text of the agreement; please read it."), code="agreement.newer"
        )
    if typed_name.split() != by.name.split():
        raise Invalid(
            _("Type your name as it stands in your account."),
            field="typed_name",
            code="agreement.name",
        )
    if language not in ("en", "ko"):
        raise Invalid(_("The language is en or ko."), field="language", code="agreement.language")
    signature = Signature.objects.create(
        request=request,
        agreement=agreement,
        agreement_sha256=agreement.sha256,
        person=by,
        typed_name=typed_name.strip(),
        language=language,
    )
    details = {"agreement": str(agreement), "sha256": agreement.sha256, "language": language}
    record("agreement.sign", by=by, about=signature, details=details)
    return _begin(request, by)


def _begin(request: AccessRequest, by: Person) -> Grant:
    policy = queries.policy_for(request)
    # The policy may have been tightened while the committee deliberated.
    check_request({"days": request.answers["days"]}, policy, complete=False)
    starts = timezone.now()
    if by.unit is None:
        raise Denied(
            _("Your account belongs to no unit yet; an administrator places it."),
            code="request.unit",
        )
    grant = Grant.objects.create(
        request=request,
        version=request.version,
        holder=by,
        unit=by.unit,
        purpose=request.purpose,
        state=GRANT.initial,
        starts_at=starts,
        ends_at=period_end(starts, request.answers["days"], policy),
    )
    grant.analysts.set(request.analysts.all())
    details = {
        "request": request.pk,
        "version": str(request.version),
        "analysts": sorted(grant.analysts.values_list("pk", flat=True)),
        "ends": grant.ends_at.isoformat(),
    }
    record("grant.begin", by=None, about=grant, details=details)
    return grant


def change_grant(*, by: Person, grant: Grant, action: str, reason: str) -> Grant:
    """Suspend, resume or revoke a grant: the dataset's steward; an administrator may suspend.

    Running jobs of a grant that is no longer active are stopped. Raises Denied (recorded),
    Conflict, Invalid without a reason.
    """
    if action not in ("suspend", "resume", "revoke"):
        raise Invalid(
            _("A grant is suspended, resumed or revoked."), field="action", code="grant.action"
        )
    if not reason.strip():
        raise Invalid(_("Say why."), field="reason", code="grant.reason")
    with refusals_recorded(f"grant.{action}", by=by, about=grant), transaction.atomic():
        row = Grant.objects.select_for_update().get(pk=grant.pk)
        _move(row, action, _actor(row, by), by=by, reason=reason.strip()[:2000])
    return row


def _actor(grant: Grant, by: Person) -> str:
    roles = roles_of(by)
    if "steward" in roles and grant.version.dataset.steward_id == by.pk:
        return STEWARD
    if "administrator" in roles:
        return ADMINISTRATOR
    raise Denied(
        _("Only the dataset's steward, or an administrator in an emergency, may do this."),
        code="grant.actor",
    )


def _move(grant: Grant, action: str, actor: str, *, by: Person | None, reason: str) -> None:
    before = grant.state
    grant.state = GRANT.next_state(before, action, actor)
    grant.reason = reason
    grant.changed_at = timezone.now()
    grant.save(update_fields=["state", "reason", "changed_at"])
    record(f"grant.{action}", by=by, about=grant, details={"from": before, "to": grant.state})
    if grant.state != "active":
        hint("jobs.stop_lapsed")


@transaction.atomic
def expire(*, grant: Grant) -> bool:
    """Mark a grant whose end has come; False where somebody was faster or it was prolonged."""
    row = queries.over(timezone.now()).select_for_update().filter(pk=grant.pk).first()
    if row is None:
        return False
    _move(row, "expire", SYSTEM, by=None, reason="")
    return True
