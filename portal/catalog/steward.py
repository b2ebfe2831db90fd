"""A steward's own datasets: offering one, opening its versions, retiring them."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from policies.errors import Denied, UserError
from portal.accounts.models import Person, Role
from portal.accounts.permissions import check_role
from portal.catalog import actions, policy_words, queries
from portal.catalog.forms import DatasetForm
from portal.catalog.models import Dataset
from portal.errors import sentence
from portal.pages.reader import reader


def _steward(request: HttpRequest) -> Person:
    person = reader(request)
    check_role(person, Role.STEWARD)
    return person


def _own(person: Person, slug: str) -> Dataset:
    rows = queries.datasets_for(person).filter(steward=person)
    return get_object_or_404(rows, slug=slug)


@login_required
@require_safe
def datasets(request: HttpRequest) -> HttpResponse:
    """List one's datasets with their newest version."""
    person = _steward(request)
    rows = [
        (dataset, dataset.versions.order_by("-number").first())
        for dataset in queries.datasets_for(person).filter(steward=person)
    ]
    return render(request, "catalog/steward.html", {"rows": rows})


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """Offer a dataset."""
    person = _steward(request)
    form = DatasetForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            dataset = actions.create_dataset(by=person, **form.cleaned_data)
        except Denied:
            raise
        except UserError as error:
            if error.field in form.fields:
                form.add_error(error.field, sentence(error))
            else:
                # A setting of the policy that is unknown or looser than the portal's.
                form.add_error("policy", f"{error.field}: {sentence(error)}")
        else:
            messages.success(request, gettext("The dataset was created. Open its first version."))
            return redirect("steward-dataset", slug=dataset.slug)
    return render(request, "catalog/new.html", {"form": form}, status=400 if form.errors else 200)


@login_required
@require_safe
def dataset(request: HttpRequest, slug: str) -> HttpResponse:
    """Show one's dataset and its versions."""
    person = _steward(request)
    shown = _own(person, slug)
    context = {
        "dataset": shown,
        "versions": queries.versions_for(person).filter(dataset=shown),
        "policy": policy_words.in_words(queries.policy_of(shown)),
        "sample": getattr(shown, "sample", None),
    }
    return render(request, "catalog/steward_dataset.html", context)


@login_required
@require_POST
def new_version(request: HttpRequest, slug: str) -> HttpResponse:
    """Open the next version."""
    person = _steward(request)
    version = actions.create_version(by=person, dataset=_own(person, slug))
    return redirect("version", slug=slug, number=version.number)


@login_required
@require_POST
def retire(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Take a version out of the catalogue."""
    person = _steward(request)
    rows = queries.versions_for(person).filter(dataset=_own(person, slug))
    actions.retire(by=person, version=get_object_or_404(rows, number=number))
    messages.success(request, gettext("The version is retired."))
    return redirect("steward-dataset", slug=slug)
