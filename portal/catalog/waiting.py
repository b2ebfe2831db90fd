"""What waits for stewards: versions that need them."""

from __future__ import annotations

from django.urls import reverse
from django.utils.translation import ngettext

from portal.accounts.models import Person, Role
from portal.accounts.queries import holds
from portal.catalog.models import DatasetVersion
from portal.pages.waiting import Waiting


def waiting_for(person: Person) -> list[Waiting]:
    """Versions of one's own datasets that wait for originals or for being started."""
    if not holds(person, Role.STEWARD):
        return []
    drafts = DatasetVersion.objects.filter(dataset__steward=person, state="draft").count()
    label = ngettext("version to fill or start", "versions to fill or start", drafts)
    return [Waiting(label, drafts, reverse("steward-datasets"))]
