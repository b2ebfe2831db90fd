"""One's own page: details, language, second factor, tokens, roles."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext, override
from django.views.decorators.http import require_http_methods, require_POST

from portal.accounts import actions, queries, roles
from portal.accounts.forms import DetailsForm, TokenForm
from portal.accounts.middleware import proved_second_factor
from portal.accounts.models import Person
from portal.pages.forms import tried
from portal.pages.reader import reader

# Both forms of the page have a name.
SECOND_IDS = "new-%s"


def _page(
    request: HttpRequest,
    person: Person,
    *,
    details: DetailsForm | None = None,
    tokens: TokenForm | None = None,
    secret: str = "",
    status: int = 200,
) -> HttpResponse:
    context = {
        "person": person,
        "details": details
        or DetailsForm(initial={"name": person.name, "language": person.language}),
        "token_form": tokens or TokenForm(auto_id=SECOND_IDS),
        "tokens": queries.tokens_of(person),
        "secret": secret,
        "assignments": queries.assignments_visible_to(person).filter(person=person, ended_at=None),
        "second_factor": queries.has_second_factor(person),
        "mail_works": settings.ACCOUNT_EMAIL_VERIFICATION != "none",
    }
    response = render(request, "accounts/me.html", context, status=status)
    response["Cache-Control"] = "no-store"
    return response


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def me(request: HttpRequest) -> HttpResponse:
    """Show oneself, or change name and language."""
    person = reader(request)
    if request.method != "POST":
        return _page(request, person)
    form = DetailsForm(request.POST)
    if form.is_valid():
        tried(form, lambda: actions.change_own_details(**form.cleaned_data, by=person))
    if form.errors:
        return _page(request, person, details=form, status=400)
    with override(form.cleaned_data["language"]):
        messages.success(request, gettext("Your details were saved."))
    response = redirect("me")
    # A language chosen for this browser would hide the one just chosen for the person.
    response.delete_cookie(settings.LANGUAGE_COOKIE_NAME)
    return response


@login_required
@require_POST
def make_token(request: HttpRequest) -> HttpResponse:
    """Make a token and show its secret, this once."""
    person = reader(request)
    form = TokenForm(request.POST, auto_id=SECOND_IDS)
    secret = ""
    if form.is_valid():
        made = tried(
            form,
            lambda: actions.create_token(
                **form.cleaned_data, second_factor=proved_second_factor(request), by=person
            ),
        )
        if made is not None:
            secret = made[1]
    if form.errors:
        return _page(request, person, tokens=form, status=400)
    return _page(request, person, secret=secret)


@login_required
@require_POST
def revoke_token(request: HttpRequest, pk: int) -> HttpResponse:
    """End one of one's own tokens."""
    person = reader(request)
    actions.revoke_token(token=get_object_or_404(queries.tokens_of(person), pk=pk), by=person)
    messages.success(request, gettext("The token was revoked."))
    return redirect("me")


@login_required
@require_POST
def give_role_up(request: HttpRequest, pk: int) -> HttpResponse:
    """End a role that one holds oneself."""
    person = reader(request)
    held = queries.assignments_visible_to(person).filter(person=person)
    roles.end_role(assignment=get_object_or_404(held, pk=pk), by=person)
    messages.success(request, gettext("The role has ended."))
    return redirect("me")
