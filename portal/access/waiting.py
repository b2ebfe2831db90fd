"""What waits for people in requests: votes, answers to a return, signatures."""

from __future__ import annotations

from django.urls import reverse
from django.utils.translation import gettext

from portal.access import queries
from portal.access.models import AccessRequest
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.pages.waiting import Waiting

# Beyond this the start page need not know how many exactly.
MOST = 50


def waiting_for(person: Person) -> list[Waiting]:
    """Return what a person has to do about requests."""
    own = AccessRequest.objects.filter(applicant=person)
    address = reverse("requests")
    found = [
        Waiting(
            gettext("requests were returned to you"),
            own.filter(state="returned").count(),
            f"{address}?state=returned",
        ),
        Waiting(
            gettext("approved requests wait for your signature"),
            own.filter(state="approved", signature=None).count(),
            f"{address}?state=approved",
        ),
    ]
    if "committee" in roles_of(person):
        count = len(queries.may_vote_on(person, most=MOST))
        found.insert(
            0, Waiting(gettext("requests wait for your vote"), count, f"{address}?state=in_review")
        )
    return found
