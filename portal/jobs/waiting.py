"""What waits for analysts: finished jobs whose release they may propose."""

from __future__ import annotations

from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext

from portal.access.models import Grant
from portal.access.queries import usable
from portal.accounts.models import Person
from portal.jobs.models import Job
from portal.pages.waiting import Waiting


def waiting_for(person: Person) -> list[Waiting]:
    """Return how many finished jobs of a person's grants have no release yet."""
    mine = Grant.objects.filter(usable(timezone.now()), analysts=person)
    rows = (
        Job.objects.filter(grant__in=mine, state="finished", releases=None)
        .exclude(inspection=None)
        .exclude(inspection__verdict="block")
    )
    address = f"{reverse('jobs')}?state=finished"
    return [Waiting(gettext("finished jobs may be proposed for release"), rows.count(), address)]
