"""The same rule, with the same sentence, through the action, the API and the page."""

from __future__ import annotations

import html
import io

import pytest
from django.urls import reverse

from portal.accounts.models import Person
from portal.audit.models import Event
from portal.jobs import storage
from portal.jobs.models import Artefact, Submission
from portal.releases import actions, queries
from portal.releases.models import Release
from portal.releases.waiting import waiting_for
from tests.portal.cast import Cast
from tests.portal.releases.finished import ALL, WEIGHTS, finished_job

pytestmark = pytest.mark.django_db

SENTENCES = {
    "the applicant": "Applicants and analysts do not vote on their own work.",
    "the applicant as a reviewer": "Applicants and analysts do not vote on their own work.",
    "two of one unit": "Somebody of your unit has voted on this; reviewers must be independent.",
    "of the applicant's unit": "You are of the applicant's unit; somebody independent must vote.",
    "no reviewer": "Only people with the role reviewer vote on this.",
    "an auditor": "Administrators and auditors do not vote.",
    "a second vote": "You have voted on this already.",
    "after withdrawal": "",
    "on what was read before": "What you saw has changed since; please look at it again.",
}


@pytest.fixture
def release(cast: Cast) -> Release:
    return actions.propose(by=cast.applicant, job=finished_job(cast))


def digest(release: Release) -> str:
    return queries.digest_of(Release.objects.get(pk=release.pk))


def arrange(case: str, cast: Cast, release: Release) -> Person:
    """Bring about what the rule is against, and return who now tries to vote."""
    second = cast.reviewers[1]
    if case == "the applicant":
        return cast.applicant
    if case == "the applicant as a reviewer":
        Submission.objects.filter(jobs=release.job).update(submitter=second)
        Release.objects.filter(pk=release.pk).update(proposer=second)
        return second
    if case == "no reviewer":
        return cast.committee[0]
    if case == "an auditor":
        return cast.auditor
    if case == "of the applicant's unit":
        Person.objects.filter(pk=second.pk).update(unit=cast.applicant.unit)
        return Person.objects.get(pk=second.pk)
    approve(cast.reviewers[0], release)
    if case == "two of one unit":
        Person.objects.filter(pk=second.pk).update(unit=cast.reviewers[0].unit)
        return Person.objects.get(pk=second.pk)
    if case == "a second vote":
        return cast.reviewers[0]
    if case == "after withdrawal":
        actions.withdraw(by=cast.applicant, release=release)
    return second


def approve(by: Person, release: Release) -> None:
    row = Release.objects.get(pk=release.pk)
    bound_to = queries.digest_of(row)
    actions.cast_vote(by=by, release=row, choice="approve", bound_to=bound_to, looked_at=ALL)


def one_byte(release: Release) -> None:
    """Change one byte of the stored weights, as whoever can write to the store would."""
    changed = bytes([WEIGHTS[0] ^ 1]) + WEIGHTS[1:]
    kept = storage.keep(io.BytesIO(changed), context=storage.artefact_context(release.job_id))
    Artefact.objects.filter(releases=release, kind="weights").update(
        object_name=kept.object_name, wrapped_key=kept.wrapped_key, sha256=kept.sha256
    )


@pytest.mark.parametrize("way", ["api", "page"])
@pytest.mark.parametrize("case", SENTENCES)
def test_a_vote_against_the_rules_hears_the_rule(
    cast: Cast, release: Release, api, browse, way: str, case: str
) -> None:
    seen = digest(release)
    voter = arrange(case, cast, release)
    if case == "on what was read before":
        one_byte(release)
        assert digest(release) != seen
    else:
        seen = digest(release)
    votes = release.votes.count()
    given = {"choice": "approve", "bound_to": seen, "looked_at": list(ALL)}
    if way == "api":
        answer = api(voter).post(f"/api/v1/releases/{release.pk}/votes", given, format="json")
        text = str(answer.json()["error"]["message"])
        assert answer.status_code in (403, 409)
    else:
        answer = browse(voter).post(reverse("release-vote", args=[release.pk]), given, follow=True)
        text = html.unescape(answer.content.decode())
        assert answer.status_code in (200, 403)
    assert (SENTENCES[case] or "withdrawn") in text
    assert release.votes.count() == votes
    if answer.status_code == 403:
        event = Event.objects.get(action="release.vote.refused")
        assert event.actor == voter.email


@pytest.mark.parametrize("way", ["api", "page"])
def test_one_changed_byte_voids_the_first_vote(
    cast: Cast, release: Release, api, browse, way: str
) -> None:
    first, second = cast.reviewers[:2]
    before = digest(release)

    def vote(voter: Person, bound_to: str) -> None:
        given = {"choice": "approve", "bound_to": bound_to, "looked_at": list(ALL)}
        if way == "api":
            api(voter).post(f"/api/v1/releases/{release.pk}/votes", given, format="json")
        else:
            browse(voter).post(reverse("release-vote", args=[release.pk]), given)

    vote(first, before)
    assert queries.decision_on(release).counted == 1
    one_byte(release)
    release = Release.objects.get(pk=release.pk)
    assert queries.decision_on(release).counted == 0
    # The page of the second says so, and carries another digest.
    page = browse(second).get(reverse("release", args=[release.pk])).content.decode()
    assert "Earlier votes no longer count" in page and before not in page
    vote(second, before)
    assert queries.decision_on(Release.objects.get(pk=release.pk)).counted == 0
    vote(second, digest(release))
    release = Release.objects.get(pk=release.pk)
    assert (release.state, queries.decision_on(release).counted) == ("in_review", 1)
    assert Event.objects.get(action="release.changed").details["votes_fallen"] == 1
    # Who voted on other bytes votes anew, or it does not leave.
    vote(first, digest(release))
    release.refresh_from_db()
    assert release.state == "approved"


@pytest.mark.parametrize("way", ["api", "action"])
def test_an_approval_without_the_whole_checklist_is_refused_everywhere(
    cast: Cast, release: Release, api, way: str
) -> None:
    from policies.errors import Invalid

    short, seen = list(ALL[:-1]), digest(release)
    for looked_at in (short, [*ALL, "a line of my own"]):
        if way == "api":
            given = {"choice": "approve", "bound_to": seen, "looked_at": looked_at}
            path = f"/api/v1/releases/{release.pk}/votes"
            answer = api(cast.reviewers[0]).post(path, given, format="json")
            assert (answer.status_code, answer.json()["error"]["field"]) == (400, "looked_at")
        else:
            with pytest.raises(Invalid):
                actions.cast_vote(
                    by=cast.reviewers[0],
                    release=release,
                    choice="approve",
                    bound_to=seen,
                    looked_at=looked_at,
                )
    assert not release.votes.exists()


def test_the_policy_s_checklist_is_asked_and_stored_with_the_vote(
    cast: Cast, release: Release, browse
) -> None:
    dataset = cast.version.dataset
    dataset.policy = {"review": {"checklist": [*ALL, "subgroups"]}}
    dataset.save()
    window = browse(cast.reviewers[0])
    page = window.get(reverse("release", args=[release.pk]))
    assert "No row of a subgroup table tells of a few people." in page.content.decode()
    given = {"choice": "approve", "bound_to": page.context["voting"].bound_to}
    address = reverse("release-vote", args=[release.pk])
    assert window.post(address, {**given, "looked_at": list(ALL)}).status_code == 400
    assert window.post(address, {**given, "looked_at": [*ALL, "subgroups"]}).status_code == 302
    assert release.votes.get().looked_at == [*ALL, "subgroups"]
    assert Event.objects.get(action="release.vote").details["looked_at"] == [*ALL, "subgroups"]


def test_a_policy_that_asks_for_more_than_the_inspection_wants_another_run(
    cast: Cast, release: Release, api, browse
) -> None:
    vote = f"/api/v1/releases/{release.pk}/votes"
    dataset = cast.version.dataset
    # Something that no inspection is held to changes nothing but what the votes are bound to.
    dataset.policy = {"release": {"download_hours": 1}}
    dataset.save()
    given = {"choice": "approve", "bound_to": digest(release), "looked_at": list(ALL)}
    assert api(cast.reviewers[0]).post(vote, given, format="json").status_code == 201
    dataset.policy = {"attacks": {"membership_review_auc": 0.55}}
    dataset.save()
    given["bound_to"] = digest(release)
    answer = api(cast.reviewers[1]).post(vote, given, format="json")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "release.blocked"
    assert "asks for more now than when this job was inspected" in answer.json()["error"]["message"]
    # It may still be turned down, and a new job of the same submission could be released.
    given["choice"], given["comment"] = "reject", "The policy is stricter now."
    assert api(cast.reviewers[1]).post(vote, given, format="json").status_code == 201


def waits_for_names(person: Person) -> int:
    said = "secret networks have no reviewer named"
    return sum(one.count for one in waiting_for(person) if one.label == said)


def test_a_proprietary_network_is_seen_by_named_reviewers_only(cast: Cast, api, browse) -> None:
    job = finished_job(cast)
    release = actions.propose(by=cast.applicant, job=job, proprietary=True)
    named, other = cast.reviewers[:2]
    code = reverse("submission-code", args=[job.submission_id])
    vote = f"/api/v1/releases/{release.pk}/votes"
    names = f"/api/v1/releases/{release.pk}/reviewers"
    given = {"choice": "approve", "bound_to": digest(release), "looked_at": list(ALL)}
    for reviewer in (named, other):
        answer = api(reviewer).post(vote, given, format="json")
        assert answer.json()["error"]["code"] == "review.named"
        assert browse(reviewer).get(code).status_code == 403
    assert waits_for_names(cast.steward) == 1
    assert waits_for_names(cast.reviewers[0]) == 0
    # The steward names them, nobody else, and only who could review it.
    wanted = {"reviewers": [named.email]}
    for person in (cast.applicant, named, cast.administrator):
        assert api(person).post(names, wanted, format="json").status_code == 403
    wrong = {"reviewers": [cast.committee[0].email]}
    assert api(cast.steward).post(names, wrong, format="json").status_code == 400
    page = browse(cast.steward).get(reverse("release", args=[release.pk]))
    assert {p.pk for p in page.context["name_form"].fields["reviewers"].queryset} == {
        person.pk for person in cast.reviewers
    }
    answer = browse(cast.steward).post(
        reverse("release-name", args=[release.pk]), {"reviewers": [named.pk]}
    )
    assert answer.status_code == 302
    assert Event.objects.get(action="release.name").details["reviewer"] == named.pseudonym
    assert waits_for_names(cast.steward) == 0
    # Now that one sees it, each look is recorded, and the others still do not: nor do the steward
    # and the auditor, who read findings and log.
    assert browse(named).get(code).status_code == 200
    for person in (other, cast.steward, cast.auditor):
        assert browse(person).get(code).status_code == 403
    assert browse(cast.auditor).get(reverse("job-log", args=[job.pk])).status_code == 200
    seen = Event.objects.filter(action="release.read", actor=named.email)
    before = seen.count()
    assert browse(named).get(reverse("release", args=[release.pk])).status_code == 200
    assert api(named).get(f"/api/v1/releases/{release.pk}").status_code == 200
    assert seen.count() == before + 2
    assert not Event.objects.filter(action="release.read", actor=other.email).exists()
    assert api(named).post(vote, given, format="json").status_code == 201
