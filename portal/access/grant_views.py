"""Pages of what follows an approval: the agreement, its signature, and grants."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import get_language, gettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from policies.errors import Conflict, Invalid
from policies.workflow import ADMINISTRATOR, GRANT, STEWARD
from portal.access import grants as writes
from portal.access import queries
from portal.access.agreement_text import as_html
from portal.access.forms import PURPOSES, ReasonForm, SignatureForm
from portal.access.models import Agreement, Grant
from portal.access.views import request_for
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.errors import sentence
from portal.pages.buttons import done, pressed, refused
from portal.pages.reader import reader
from portal.pages.steps import drawn

A_PAGE = 25
LANGUAGES = ("en", "ko")


def _language() -> str:
    """Return in which of the agreement's languages the reader reads it."""
    return "ko" if get_language() == "ko" else "en"


def _texts(agreement: Agreement) -> dict[str, object]:
    language = _language()
    return {
        "agreement": agreement,
        "title": getattr(agreement, f"title_{language}"),
        "text": as_html(getattr(agreement, f"text_{language}")),
    }


@require_safe
def agreement(request: HttpRequest) -> HttpResponse:
    """Show the agreement as it stands, to anyone."""
    return render(request, "access/agreement.html", _texts(queries.current_agreement()))


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def sign(request: HttpRequest, pk: int) -> HttpResponse:
    """Read the agreement and sign it for one's approved request; the grant begins."""
    person = reader(request)
    row = request_for(person, pk)
    current = queries.current_agreement()
    form = SignatureForm(initial={"agreement": current.pk})
    status = 200
    if request.method == "POST":
        form = SignatureForm(request.POST)
        if form.is_valid():
            shown = get_object_or_404(Agreement, pk=form.cleaned_data["agreement"])
            try:
                grant = writes.sign_agreement(
                    by=person,
                    request=row,
                    agreement=shown,
                    typed_name=form.cleaned_data["typed_name"],
                    language=_language(),
                )
            except Invalid as error:
                form.add_error(error.field if error.field in form.fields else None, sentence(error))
            except Conflict as error:
                refused(request, error)
                return redirect("request", pk)
            else:
                done(request, gettext("Signed. Your grant has begun."))
                return redirect("grant", grant.pk)
        status = 400
    elif "sign_agreement" not in queries.actions_for(row, person):
        return redirect("request", pk)
    context = {"row": row, "form": form, **_texts(current)}
    return render(request, "access/sign.html", context, status=status)


@require_safe
@login_required
def grants(request: HttpRequest) -> HttpResponse:
    """List the grants that the reader may read."""
    rows = queries.grants_visible_to(reader(request))
    page = Paginator(rows, A_PAGE).get_page(request.GET.get("page"))
    return render(request, "access/grants.html", {"page": page})


@require_safe
@login_required
def grant(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one grant."""
    person = reader(request)
    row = get_object_or_404(queries.grants_visible_to(person), pk=pk)
    return _page(request, person, row, ReasonForm())


def _page(
    request: HttpRequest, person: Person, row: Grant, form: ReasonForm, status: int = 200
) -> HttpResponse:
    now = timezone.now()
    length = (row.ends_at - row.starts_at).total_seconds()
    passed = min(length, max(0.0, (now - row.starts_at).total_seconds()))
    context = {
        "row": row,
        "purpose": gettext(PURPOSES.get(row.purpose, row.purpose)),
        "analysts": row.analysts.select_related("unit__organisation"),
        "days_left": max(0, (row.ends_at - now).days),
        "passed_percent": round(100 * passed / length),
        "usable": queries.grants_usable_by(person).filter(pk=row.pk).exists(),
        "signature": getattr(row.request, "signature", None),
        "jobs": row.jobs.select_related("submission").order_by("-pk")[:10],
        "may": changes_open_to(person, row),
        "form": form,
        "steps": drawn(("active", "expired"), row.state, reached="active"),
    }
    return render(request, "access/grant.html", context, status=status)


def changes_open_to(person: Person, row: Grant) -> tuple[str, ...]:
    """Return what a person may do with a grant now, for buttons."""
    roles = roles_of(person)
    if "steward" in roles and row.version.dataset.steward_id == person.pk:
        return GRANT.actions(row.state, STEWARD)
    return GRANT.actions(row.state, ADMINISTRATOR) if "administrator" in roles else ()


@require_POST
@login_required
def change(request: HttpRequest, pk: str, action: str) -> HttpResponse:
    """Suspend, resume or revoke a grant. Who may not is refused by rule, and it is recorded."""
    person = reader(request)
    row = get_object_or_404(Grant.objects.select_related("version__dataset"), pk=int(pk))
    form = ReasonForm(request.POST)
    if not form.is_valid():
        visible = get_object_or_404(queries.grants_visible_to(person), pk=row.pk)
        return _page(request, person, visible, form, status=400)
    reason = form.cleaned_data["reason"]
    said = {
        "suspend": gettext("The grant is suspended; its running jobs are being stopped."),
        "resume": gettext("The grant is active again."),
        "revoke": gettext("The grant is revoked; its running jobs are being stopped."),
    }[action]
    pressed(
        request,
        lambda: writes.change_grant(by=person, grant=row, action=action, reason=reason),
        said=said,
    )
    return redirect("grant", row.pk)
