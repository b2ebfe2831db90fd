"""The portal's addresses: each app brings ``api_urls`` (under /api/v1/) and ``urls`` (pages)."""

from __future__ import annotations

import importlib.util

from django.apps import apps
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView

from portal import api_docs

APPS = ("pages", "accounts", "catalog", "ingest", "access", "jobs", "releases", "audit")


def _of_apps(module: str) -> list[URLPattern | URLResolver]:
    """Return includes for the apps that have this module; an app may have pages only."""
    names = [f"portal.{app}.{module}" for app in APPS if apps.is_installed(f"portal.{app}")]
    return [path("", include(name)) for name in names if importlib.util.find_spec(name)]


handler500 = "portal.errors.failed"
urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", include(_of_apps("api_urls"))),
    path(
        "api/schema/",
        SpectacularAPIView.as_view(authentication_classes=(), permission_classes=()),
        name="api-schema",
    ),
    path("api/docs/", api_docs.page, name="api-docs"),
    *_of_apps("urls"),
    path("accounts/", include("allauth.urls")),
]
