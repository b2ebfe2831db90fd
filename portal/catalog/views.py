"""The catalogue for anyone: metadata, the open sample, Croissant."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_safe

from portal.catalog import croissant, policy_words, queries
from portal.catalog.models import Dataset, DatasetVersion
from portal.pages.reader import visitor

SPLITS = ("train", "validation", "sealed", "none")


@require_safe
def catalogue(request: HttpRequest) -> HttpResponse:
    """List the published datasets, narrowed by kind."""
    kind = request.GET.get("kind", "")
    datasets = queries.public_datasets()
    if kind in Dataset.Kind.values:
        datasets = datasets.filter(kind=kind)
    rows = [(dataset, _newest(dataset)) for dataset in datasets]
    context = {"rows": rows, "kinds": Dataset.Kind.choices, "kind": kind}
    return render(request, "catalog/catalogue.html", context)


def _newest(dataset: Dataset) -> DatasetVersion | None:
    return dataset.versions.filter(state="published").order_by("-number").first()


def page_of(dataset: Dataset) -> str:
    """Return the public address of a dataset's page."""
    return f"{settings.BASE_URL}/datasets/{dataset.slug}/"


def _dataset(request: HttpRequest, slug: str) -> Dataset:
    return get_object_or_404(queries.datasets_for(visitor(request)), slug=slug)


def _published(request: HttpRequest, slug: str) -> DatasetVersion:
    newest = _newest(_dataset(request, slug))
    if newest is None:
        raise Http404
    return newest


@require_safe
def dataset(request: HttpRequest, slug: str) -> HttpResponse:
    """Show a dataset: card, counts, what the examination bounds, policy, sample, Croissant."""
    shown = _dataset(request, slug)
    newest = _newest(shown)
    versions = queries.versions_for(None).filter(dataset=shown)
    context: dict[str, Any] = {
        "dataset": shown,
        "newest": newest,
        "versions": versions,
        "splits": _splits(newest) if newest else [],
        "policy": policy_words.in_words(queries.policy_of(shown)),
        "tightened": bool(shown.policy),
        "sample": getattr(shown, "sample", None),
        "json_ld": _script_text(croissant.document(newest, url=page_of(shown))) if newest else "",
    }
    return render(request, "catalog/dataset.html", context)


def _splits(version: DatasetVersion) -> list[tuple[str, int]]:
    counts = version.card.get("files_by_split", {})
    return [(name, counts[name]) for name in SPLITS if counts.get(name)]


def _script_text(document: Any) -> SafeString:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(document, ensure_ascii=False, indent=1)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return mark_safe(text)  # noqa: S308 - every character that markup knows was replaced


@require_safe
def croissant_file(request: HttpRequest, slug: str) -> HttpResponse:
    """Give the newest published version's Croissant document."""
    version = _published(request, slug)
    document = croissant.document(version, url=page_of(version.dataset))
    return HttpResponse(
        json.dumps(document, ensure_ascii=False, indent=1),
        content_type="application/ld+json",
        headers={"Content-Disposition": f'inline; filename="{slug}-croissant.json"'},
    )


@require_safe
def sample(request: HttpRequest, slug: str) -> FileResponse:
    """Give the open synthetic sample as a zip."""
    found = _dataset(request, slug)
    return FileResponse(
        queries.open_sample(found),
        as_attachment=True,
        filename=f"{found.slug}-sample.zip",
        content_type="application/zip",
    )
