"""What waits for people in releases: votes, answers to a return, bundles not fetched yet."""

from __future__ import annotations

from django.urls import reverse
from django.utils.translation import gettext

from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.pages.waiting import Waiting
from portal.releases import queries
from portal.releases.models import DownloadLink, Release

# Beyond this the start page need not know how many exactly.
MOST = 50


def waiting_for(person: Person) -> list[Waiting]:
    """Return what a person has to do about releases."""
    address = reverse("releases")
    mine = Release.objects.filter(job__grant__analysts=person)
    fetched = DownloadLink.objects.filter(person=person, uses__gt=0)
    found = [
        Waiting(
            gettext("releases were returned to you"),
            mine.filter(state="returned").count(),
            f"{address}?state=returned",
        ),
        Waiting(
            gettext("released bundles you have not downloaded"),
            mine.filter(state="released").exclude(links__in=fetched).count(),
            f"{address}?state=released",
        ),
    ]
    if roles_of(person) & {"reviewer", "steward"}:
        count = len(queries.may_vote_on(person, most=MOST))
        found.insert(
            0, Waiting(gettext("releases wait for your vote"), count, f"{address}?state=in_review")
        )
    if "steward" in roles_of(person):
        secret = Release.objects.filter(
            state="in_review",
            proprietary=True,
            named=None,
            job__version__dataset__steward=person,
        )
        found.append(
            Waiting(gettext("secret networks have no reviewer named"), secret.count(), address)
        )
    return found
