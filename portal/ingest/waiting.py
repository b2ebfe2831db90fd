"""What waits for security officers: versions to examine."""

from __future__ import annotations

from django.urls import reverse
from django.utils.translation import ngettext

from portal.accounts.models import Person, Role
from portal.accounts.queries import holds
from portal.catalog.models import DatasetVersion
from portal.pages.waiting import Waiting


def waiting_for(person: Person) -> list[Waiting]:
    """Versions that were de-identified, or whose sample is open, by others than this officer."""
    if not holds(person, Role.OFFICER):
        return []
    rows = DatasetVersion.objects.filter(state__in=("de_identified", "in_qa"))
    rows = rows.exclude(dataset__steward=person).exclude(intake__uploaded_by=person)
    count = rows.count()
    label = ngettext("version to examine", "versions to examine", count)
    return [Waiting(label, count, reverse("examinations"))]
