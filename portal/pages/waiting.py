"""What waits for somebody: each app says it in ``portal.<app>.waiting``, the start page shows it.

An app's module has ``waiting_for(person) -> list[Waiting]``; it returns entries with a count above
zero only, in the order in which they matter.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

from django.apps import apps

from portal.accounts.models import Person

# In the order of the main job.
APPS = ("accounts", "catalog", "ingest", "access", "jobs", "releases", "audit")


@dataclass(frozen=True)
class Waiting:
    """One line of the start page: ``label`` (translated) says what, ``url`` leads to it."""

    label: str
    count: int
    url: str


def waiting_for(person: Person) -> list[Waiting]:
    """Return all that waits for a person, from every app that has something to say."""
    found: list[Waiting] = []
    for app in APPS:
        name = f"portal.{app}.waiting"
        if apps.is_installed(f"portal.{app}") and importlib.util.find_spec(name):
            found += importlib.import_module(name).waiting_for(person)
    return [waiting for waiting in found if waiting.count > 0]
