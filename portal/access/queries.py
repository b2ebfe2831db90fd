"""Reads of requests and grants with a rule in them: one place a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from django.db.models import Exists, OuterRef, Q, QuerySet, prefetch_related_objects
from django.utils import timezone

from policies.access import GrantFacts, check_grant_usable
from policies.document import Policy
from policies.review import Case, Decision
from policies.workflow import ACCESS_REQUEST, APPLICANT
from portal.access.models import (
    AccessRequest,
    Agreement,
    Grant,
    RequestDocument,
    RequestStep,
    RequestVote,
)
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.catalog.queries import policy_of
from portal.voting.ballots import Ballot, VotingView, ballot_of, seen_by
from portal.voting.parties import party

# What the committee and the steward see: a draft, and what was withdrawn as one, is its author's.
SUBMITTED = ("submitted", "in_review", "returned", "approved", "rejected")


def requests_visible_to(person: Person) -> QuerySet[AccessRequest]:
    """Return whose requests a person may read.

    Applicants and named analysts their own; committee members, auditors and the dataset's steward
    all that were submitted.
    """
    rows = AccessRequest.objects.select_related(
        "applicant__unit__organisation", "version__dataset__steward__unit__organisation"
    ).order_by("-pk")
    roles = roles_of(person)
    seen = Q(applicant=person) | Q(analysts=person)
    submitted = Q(state__in=SUBMITTED) | Q(round__gt=0)
    if roles & {"committee", "auditor"}:
        seen |= submitted
    else:
        seen |= submitted & Q(version__dataset__steward=person)
    return rows.filter(seen).distinct()


# What the voting on a request asks for.
VOTING = ("analysts__unit__organisation", "recusals", "votes")


def surround(request: AccessRequest) -> AccessRequest:
    """Fetch at once what a request's page asks for again and again.

    For showing only: what an action decides by is read in its own transaction.
    """
    prefetch_related_objects([request], *VOTING)
    return request


def may_vote_on(person: Person, *, most: int) -> list[AccessRequest]:
    """Return requests that wait for a person's vote; looks at ``most`` in review."""
    own = RequestVote.objects.filter(
        request=OuterRef("pk"), voter=person, bound_to=OuterRef("bound_to")
    )
    rows = requests_visible_to(person).filter(state="in_review").exclude(recusals__person=person)
    rows = rows.exclude(Exists(own)).prefetch_related(*VOTING)
    return [row for row in rows[:most] if voting_for(row, person).may_vote]


def policy_for(request: AccessRequest) -> Policy:
    """Return the policy under which a request is judged."""
    return policy_of(request.version.dataset)


def documents_of(request: AccessRequest) -> QuerySet[RequestDocument]:
    """Return the documents that belong to a request now."""
    return request.documents.filter(removed_at=None).order_by("pk")


def case_of(request: AccessRequest) -> Case:
    """Return what is voted on, with everybody who is barred from voting on it."""
    return Case(
        applicant=party(request.applicant),
        owner=party(request.version.dataset.steward),
        analysts=frozenset(str(person.pk) for person in request.analysts.all()),
        conflict_declared=request.conflict_declared,
        bound_to=request.bound_to,
        recused=frozenset(str(row.person_id) for row in request.recusals.all()),
    )


def ballot_on(request: AccessRequest) -> Ballot[RequestVote]:
    """Return the voting on a request as it stands."""
    return ballot_of("access", case_of(request), policy_for(request), request.votes.all())


def decision_on(request: AccessRequest) -> Decision:
    """Return what the votes say now."""
    return ballot_on(request).decision


def voting_for(request: AccessRequest, viewer: Person) -> VotingView[RequestVote]:
    """Return the voting as ``viewer`` may see it."""
    return seen_by(ballot_on(request), viewer, is_open=request.state == "in_review")


def actions_for(request: AccessRequest, viewer: Person) -> tuple[str, ...]:
    """Return what ``viewer`` may do with a request now, for buttons."""
    found: list[str] = []
    if viewer.pk == request.applicant_id:
        found += ACCESS_REQUEST.actions(request.state, APPLICANT)
        if request.state in ("draft", "returned"):
            found.append("edit")
        if request.state == "approved" and not hasattr(request, "signature"):
            found.append("sign_agreement")
    voting = voting_for(request, viewer)
    if voting.may_vote:
        found += ["vote", "recuse"]
    return tuple(found)


def current_agreement(name: str = "default") -> Agreement:
    """Return the newest version of an agreement."""
    return Agreement.objects.filter(name=name).order_by("-number")[0]


# --- grants ---------------------------------------------------------------------------------


def facts_of(grant: Grant) -> GrantFacts:
    """Return a grant as policies.access sees it."""
    return GrantFacts(
        state=grant.state,
        starts=grant.starts_at,
        ends=grant.ends_at,
        analysts=frozenset(str(pk) for pk in grant.analysts.values_list("pk", flat=True)),
        dataset=grant.version.dataset.slug,
        version=str(grant.version.number),
    )


def check_usable(grant: Grant, person: Person, *, now: datetime | None = None) -> None:
    """Raise Denied unless ``person`` may work under ``grant`` now."""
    check_grant_usable(facts_of(grant), str(person.pk), now or timezone.now())


def usable(now: datetime) -> Q:
    """Return the condition of grants that let somebody work now.

    The same rule as policies.access.check_grant_usable, for lists; a test holds the two together.
    """
    return Q(state="active", starts_at__lte=now, ends_at__gt=now)


def grants_usable_by(person: Person, *, now: datetime | None = None) -> QuerySet[Grant]:
    """Return the grants under which a person may work now."""
    moment = now or timezone.now()
    rows = Grant.objects.filter(usable(moment), analysts=person)
    return rows.select_related(
        "version__dataset", "holder__unit__organisation", "unit__organisation"
    ).prefetch_related("analysts__unit__organisation")


def grants_visible_to(person: Person) -> QuerySet[Grant]:
    """Return the grants a person may read: analysts, holder, the dataset's steward, auditors."""
    rows = Grant.objects.select_related(
        "version__dataset", "holder__unit__organisation", "unit__organisation"
    ).prefetch_related("analysts__unit__organisation")
    if "auditor" in roles_of(person):
        return rows.order_by("-pk")
    seen = Q(analysts=person) | Q(holder=person) | Q(version__dataset__steward=person)
    return rows.filter(seen).distinct().order_by("-pk")


def over(now: datetime) -> QuerySet[Grant]:
    """Return the grants whose end has come and which do not say so yet."""
    return Grant.objects.filter(state__in=("active", "suspended"), ends_at__lte=now)


# --- service levels -------------------------------------------------------------------------


@dataclass(frozen=True)
class ServiceLevel:
    """How long requests stayed in a state: the median, in days, over ``count`` that left it."""

    state: str
    median_days: float
    count: int


def service_levels(
    states: Sequence[str] = ("submitted", "in_review", "returned"),
) -> list[ServiceLevel]:
    """Return the honest answer to "how long does it take", a state a row, without guesses."""
    levels = []
    for state in states:
        pairs = RequestStep.objects.filter(state=state).exclude(left_at=None)
        days = [
            (left - entered).total_seconds() / 86400
            for entered, left in pairs.values_list("entered_at", "left_at")
            if left is not None
        ]
        if days:
            levels.append(ServiceLevel(state, round(median(days), 2), len(days)))
    return levels
