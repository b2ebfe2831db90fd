"""Pages of releases: one screen for reviewers, votes bound to it, links, revocations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from portal.accounts.models import Person
from portal.audit.models import Event
from portal.jobs.models import Artefact
from portal.releases import actions, tasks
from portal.releases.models import DownloadLink, Release
from portal.releases.review import looked_for
from tests.portal.cast import Cast
from tests.portal.releases.finished import ALL, blocked, finished_job

pytestmark = pytest.mark.django_db
SignIn = Callable[[Person], Client]
LOOKED_AT = list(ALL)
REVIEW: dict[str, Any] = {
    "rule": "tensors.few-samples",
    "severity": "review",
    "artefact": "model.safetensors",
    "message": "Few samples stand behind many bits.",
    "evidence": {"bits": 1200},
}


def words(response: Any) -> str:
    return str(response.content.decode())


@pytest.fixture
def release(cast: Cast) -> Release:
    """A release in review, with one finding."""
    job = finished_job(cast, REVIEW)
    return actions.propose(by=cast.applicant, job=job, note="See the <b>card</b>.\x1b[1m")


def ballot(browse: SignIn, person: Person, release: Release, **changes: Any) -> Any:
    """Vote through the page, with the digest that the page carries."""
    window = browse(person)
    page = window.get(reverse("release", args=[release.pk]))
    given = {
        "bound_to": page.context["voting"].bound_to,
        "choice": "approve",
        "looked_at": LOOKED_AT,
        "comment": "",
        **changes,
    }
    return window.post(reverse("release-vote", args=[release.pk]), given)


def let_out(browse: SignIn, cast: Cast, release: Release) -> Release:
    """Approve a release by two reviewers and build its bundle."""
    for reviewer in cast.reviewers[:2]:
        if not release.votes.filter(voter=reviewer).exists():
            ballot(browse, reviewer, release)
    tasks.build(release.pk)
    release.refresh_from_db()
    assert release.state == "released"
    return release


def test_an_analyst_proposes_from_a_finished_job(browse: SignIn, cast: Cast) -> None:
    job = finished_job(cast)
    address = reverse("release-new", args=[job.pk])
    mine = browse(cast.applicant)
    assert "model.safetensors" in words(mine.get(address))
    answer = mine.post(address, {"note": "Please."})
    release = Release.objects.get()
    assert answer.url == reverse("release", args=[release.pk])
    assert mine.get(address).url == answer.url  # a second visit leads to what is there


def test_a_blocked_job_cannot_be_proposed(browse: SignIn, cast: Cast) -> None:
    job = finished_job(cast, blocked())
    answer = browse(cast.applicant).post(reverse("release-new", args=[job.pk]), {"note": ""})
    assert answer.status_code == 400
    assert "The inspection blocks this" in words(answer)
    assert not Release.objects.exists()


def test_strangers_find_no_release(browse: SignIn, cast: Cast, release: Release) -> None:
    stranger = browse(cast.stranger)
    assert stranger.get(reverse("release", args=[release.pk])).status_code == 404
    assert stranger.get(reverse("release-live", args=[release.pk])).status_code == 404
    assert "mammography" not in words(stranger.get(reverse("releases"))).lower()


def test_one_screen_says_what_leaves_what_was_looked_for_and_found(
    browse: SignIn, cast: Cast, release: Release
) -> None:
    answer = browse(cast.reviewers[0]).get(reverse("release", args=[release.pk]))
    page = words(answer)
    weights = release.artefacts.get(kind="weights")
    for text in (
        weights.sha256,
        "What was looked for",
        "Training samples",
        "Few samples stand behind many bits.",
        "Official metrics",
        "Live numbers of this grant, in bits",
        "The first of this organisation on this dataset.",
        "Checklist",
        reverse("submission-code", args=[release.job.submission_id]),
        reverse("job-log", args=[release.job_id]),
    ):
        assert text in page
    assert f'value="{release.bound_to}"' in page
    assert answer["Cache-Control"] == "no-store"


def test_the_applicant_sees_neither_votes_nor_what_examiners_see(
    browse: SignIn, cast: Cast, release: Release
) -> None:
    ballot(browse, cast.reviewers[0], release, comment="Between us.")
    page_address = reverse("release", args=[release.pk])
    page = words(browse(cast.applicant).get(page_address))
    weights = release.artefacts.get(kind="weights")
    hidden = ("Between us.", "For who examines", "Checklist", "1 of 2 votes", weights.sha256)
    for text in (*hidden, release.bound_to, "Ledger"):
        assert text not in page
    let_out(browse, cast, release)
    assert weights.sha256 in words(browse(cast.applicant).get(page_address))


def test_reviewers_are_blind_until_the_quorum(browse: SignIn, cast: Cast, release: Release) -> None:
    ballot(browse, cast.reviewers[0], release, comment="First thought.")
    second = browse(cast.reviewers[1])
    address = reverse("release", args=[release.pk])
    assert "First thought." not in words(second.get(address))
    assert "1 of 2 votes" in words(second.get(address))
    ballot(browse, cast.reviewers[1], release, comment="Second thought.")
    assert "First thought." in words(second.get(address))


def test_an_approval_needs_the_whole_checklist(
    browse: SignIn, cast: Cast, release: Release
) -> None:
    answer = ballot(browse, cast.reviewers[0], release, looked_at=LOOKED_AT[:-1])
    assert answer.status_code == 400
    assert "an approval needs all of it" in words(answer)
    assert not release.votes.exists()
    back = ballot(browse, cast.reviewers[0], release, looked_at=[], choice="return", comment="Why?")
    assert back.status_code == 302


def test_a_changed_artefact_voids_what_was_read(
    browse: SignIn, cast: Cast, release: Release
) -> None:
    seen = release.bound_to
    Artefact.objects.filter(releases=release, kind="weights").update(sha256="f" * 64)
    window = browse(cast.reviewers[0])
    answer = window.post(
        reverse("release-vote", args=[release.pk]),
        {"bound_to": seen, "choice": "approve", "looked_at": LOOKED_AT},
        follow=True,
    )
    assert "has changed since" in words(answer)
    assert "Earlier votes no longer count" in words(answer)
    assert not release.votes.exists()


@pytest.mark.parametrize("who", ["applicant", "stranger", "administrator", "auditor"])
def test_who_may_not_vote_gets_the_rule_and_is_recorded(
    browse: SignIn, cast: Cast, release: Release, who: str
) -> None:
    answer = browse(getattr(cast, who)).post(
        reverse("release-vote", args=[release.pk]),
        {"bound_to": release.bound_to, "choice": "approve", "looked_at": LOOKED_AT},
    )
    assert answer.status_code == 403
    assert Event.objects.filter(action="release.vote.refused").exists()


def test_returned_answered_and_withdrawn(browse: SignIn, cast: Cast, release: Release) -> None:
    for reviewer in cast.reviewers[:2]:
        ballot(browse, reviewer, release, choice="return", comment="Say more.", looked_at=[])
    mine, address = browse(cast.applicant), reverse("release", args=[release.pk])
    page = words(mine.get(address))
    assert "Say more." in page and "Propose again" in page
    mine.post(reverse("release-propose", args=[release.pk]), {"note": "More."})
    release.refresh_from_db()
    assert (release.state, release.round) == ("in_review", 2)
    mine.post(reverse("release-withdraw", args=[release.pk]))
    release.refresh_from_db()
    assert release.state == "withdrawn"


def test_an_approved_page_waits_for_its_bundle(
    browse: SignIn, cast: Cast, release: Release
) -> None:
    for reviewer in cast.reviewers[:2]:
        ballot(browse, reviewer, release)
    mine, live = browse(cast.applicant), reverse("release-live", args=[release.pk])
    assert live in words(mine.get(reverse("release", args=[release.pk])))
    assert mine.get(live).status_code == 204
    tasks.build(release.pk)
    assert mine.get(live)["HX-Refresh"] == "true"


def test_a_personal_link_is_shown_once_and_works_once(
    browse: SignIn, cast: Cast, release: Release
) -> None:
    let_out(browse, cast, release)
    mine = browse(cast.applicant)
    made = mine.post(reverse("release-link", args=[release.pk]))
    url = made.context["link"]["url"]
    assert made["Cache-Control"] == "no-store"
    assert url not in words(mine.get(reverse("release", args=[release.pk])))
    path = url[url.index("/downloads/") :]
    assert browse(cast.analyst).get(path).status_code == 403
    answer = mine.get(path)
    assert answer["Content-Disposition"].startswith("attachment")
    assert b"".join(answer.streaming_content).startswith(b"PK")
    again = mine.get(path)
    assert again.status_code == 403
    assert "This link was used already" in words(again)
    assert Event.objects.filter(action="download").count() == 1
    assert Event.objects.filter(action="download.refused").count() == 2
    assert mine.get(reverse("download", args=["nonsense"])).status_code == 404


def test_only_the_grant_s_analysts_get_links(browse: SignIn, cast: Cast, release: Release) -> None:
    let_out(browse, cast, release)
    for person in (cast.reviewers[0], cast.steward, cast.stranger):
        assert browse(person).post(reverse("release-link", args=[release.pk])).status_code == 403
    assert not DownloadLink.objects.exists()


def test_the_steward_revokes_and_anybody_reads_it(
    browse: SignIn, cast: Cast, release: Release, client: Client
) -> None:
    let_out(browse, cast, release)
    assert client.get(reverse("revocation-list")).status_code == 204
    assert "Nothing was ever revoked." in words(client.get(reverse("revocations")))
    address = reverse("release-revoke", args=[release.pk])
    assert browse(cast.applicant).post(address, {"reason": "No."}).status_code == 403
    steward = browse(cast.steward)
    assert steward.post(address, {"reason": " "}).status_code == 400
    steward.post(address, {"reason": "A <b>subject</b> withdrew."})
    tasks.sign_revocations()
    page = words(client.get(reverse("revocations")))
    assert release.statement_sha256 in page
    assert "A &lt;b&gt;subject&lt;/b&gt; withdrew." in page
    assert client.get(reverse("revocation-list"))["Content-Type"] == "application/json"
    assert (
        browse(cast.applicant).post(reverse("release-link", args=[release.pk])).status_code == 302
    )


def test_the_applicant_s_note_is_inert(browse: SignIn, cast: Cast, release: Release) -> None:
    page = words(browse(cast.reviewers[0]).get(reverse("release", args=[release.pk])))
    assert "See the &lt;b&gt;card&lt;/b&gt;.␛[1m" in page
    assert "<b>card" not in page and "\x1b" not in page


def test_the_worst_of_a_group_is_said_and_no_rule_is_lost() -> None:
    rows = looked_for(
        [
            {"rule": "samples.search", "severity": "info"},
            {"rule": "samples.rows", "severity": "block"},
            {"rule": "new.rule", "severity": "review"},
        ]
    )
    found = {row.title: (row.severity, row.count) for row in rows}
    assert found["Training samples"] == ("block", 2)
    assert found["Files"] == ("", 0)
    assert found["Other"] == ("review", 1)


def test_what_waits_for_reviewers_and_analysts(
    browse: SignIn, cast: Cast, release: Release
) -> None:
    from portal.releases.waiting import waiting_for

    def count(person: Person) -> int:
        return sum(one.count for one in waiting_for(person))

    assert count(cast.reviewers[0]) == 1
    assert count(cast.administrator) == count(cast.stranger) == 0
    let_out(browse, cast, release)
    assert count(cast.reviewers[0]) == 0
    assert count(cast.applicant) == 1  # a bundle to fetch
