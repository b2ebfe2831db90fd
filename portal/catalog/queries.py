"""Reads of the catalogue: what anyone may see, and what only those who work on it may."""

from __future__ import annotations

from typing import BinaryIO

from django.db.models import Q, QuerySet

from policies.document import Policy, default_policy, tighten
from policies.errors import Conflict, Invalid, _
from portal import blobs, keys
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.catalog.models import Dataset, DatasetVersion
from portal.plain_input import whole_number


def public_datasets() -> QuerySet[Dataset]:
    """Datasets with a published version: anyone may see their metadata."""
    return (
        Dataset.objects.filter(versions__state="published")
        .select_related("unit__organisation", "sample")
        .distinct()
        .order_by("slug")
    )


def datasets_for(person: Person | None) -> QuerySet[Dataset]:
    """The datasets whose metadata a person sees: published ones, and those they work on."""
    rows = Dataset.objects.select_related("unit__organisation", "sample").order_by("slug")
    seen = Q(versions__state="published")
    if person is not None:
        seen |= Q(steward=person)
        if roles_of(person) & {"officer", "auditor"}:
            seen |= Q(pk__gt=0)
    return rows.filter(seen).distinct()


def versions_for(person: Person | None) -> QuerySet[DatasetVersion]:
    """The versions that a person sees, newest first."""
    seen = Q(state="published")
    if person is not None:
        seen |= Q(dataset__steward=person)
        if roles_of(person) & {"officer", "auditor"}:
            seen |= Q(pk__gt=0)
    return (
        DatasetVersion.objects.filter(seen)
        .select_related("dataset__steward", "dataset__unit__organisation")
        .order_by("dataset__slug", "-number")
    )


def published(slug: str, number: int | str | None = None) -> DatasetVersion:
    """Return a published version by slug and number (None: the newest). Raises Invalid."""
    rows = DatasetVersion.objects.filter(dataset__slug=slug, state="published")
    if number is not None:
        wanted = whole_number(str(number))
        if wanted is None:
            raise Invalid(_("A version is a number."), field="version", code="version.number")
        rows = rows.filter(number=wanted)
    version = rows.select_related("dataset").order_by("-number").first()
    if version is None:
        if number is not None and public_datasets().filter(slug=slug).exists():
            raise Invalid(
                _("This dataset has no published version of this number."),
                field="version",
                code="version.unknown",
            )
        raise Invalid(
            _("There is no published dataset of this name; the catalogue lists them."),
            field="dataset",
            code="dataset.unknown",
        )
    return version


def policy_of(dataset: Dataset) -> Policy:
    """Return the policy in force for a dataset: the portal's, tightened by the dataset."""
    return tighten(default_policy(), dataset.policy)


def open_sample(dataset: Dataset) -> BinaryIO:
    """Return the open sample's zip. Raises Conflict while it is being made."""
    sample = getattr(dataset, "sample", None)
    if sample is None:
        raise Conflict(_("The sample is being made; try again in a minute."), code="sample.absent")
    context = f"sample:{dataset.pk}"
    key = keys.unwrap(sample.wrapped_key, by=keys.master("view"), context=context)
    return blobs.open(sample.object_name, key=key)
