"""Pages of requests and grants: who sees them, what they say, that strangers' words are inert."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from portal.access import actions
from portal.access.agreement_text import as_html
from portal.access.models import AccessRequest, Grant
from portal.accounts.models import Person
from portal.audit.models import Event
from tests.portal.cast import PDF, Cast

pytestmark = pytest.mark.django_db
SignIn = Callable[[Person], Client]


def words(response: object) -> str:
    return response.content.decode()  # type: ignore[attr-defined]


def test_pages_need_a_sign_in(client: Client, cast: Cast) -> None:
    row = cast.submitted()
    for name, args in (("requests", []), ("request", [row.pk]), ("grants", [])):
        assert client.get(reverse(name, args=args)).status_code == 302


def test_strangers_find_no_request_and_no_grant(browse: SignIn, cast: Cast) -> None:
    grant = cast.granted()
    stranger = browse(cast.stranger)
    assert stranger.get(reverse("request", args=[grant.request_id])).status_code == 404
    assert stranger.get(reverse("request-edit", args=[grant.request_id])).status_code == 404
    assert stranger.get(reverse("grant", args=[grant.pk])).status_code == 404
    assert "Lesion detection" not in words(stranger.get(reverse("requests")))


def test_a_draft_is_begun_saved_and_handed_in(browse: SignIn, cast: Cast) -> None:
    mine = browse(cast.applicant)
    assert mine.get(reverse("request-new", args=["mammography"])).status_code == 200
    begun = mine.post(reverse("request-new", args=["mammography"]))
    row = AccessRequest.objects.get()
    assert begun.url == reverse("request-edit", args=[row.pk])
    form = {**cast.answers, "analysts": "\n".join(cast.answers["analysts"])}
    form["pledge"] = "on"
    document = SimpleUploadedFile("approval.pdf", PDF, "application/pdf")
    answer = mine.post(begun.url, {**form, "ethics_document": document, "submit": ""})
    assert answer.status_code == 302, words(answer)
    row.refresh_from_db()
    assert row.state == "in_review"
    assert row.documents.count() == 1
    assert row.analysts.count() == 2


def test_everything_that_is_missing_is_said_at_once_beside_its_field(
    browse: SignIn, cast: Cast
) -> None:
    row = actions.create_request(by=cast.applicant, version=cast.version, fields={})
    answer = browse(cast.applicant).post(
        reverse("request-edit", args=[row.pk]), {"title": "Kept title", "submit": ""}
    )
    assert answer.status_code == 400
    page = words(answer)
    assert page.count("Please fill this in.") >= 20  # in the summary and beside each field
    assert 'href="#id_aim"' in page and 'id="id_aim_error"' in page
    row.refresh_from_db()
    assert row.answers["title"] == "Kept title"


def test_a_wrong_answer_is_refused_and_nothing_is_saved(browse: SignIn, cast: Cast) -> None:
    row = actions.create_request(by=cast.applicant, version=cast.version, fields={})
    answer = browse(cast.applicant).post(
        reverse("request-edit", args=[row.pk]), {"title": "New", "analysts": "no address"}
    )
    assert answer.status_code == 400
    assert "is not an e-mail address" in words(answer)
    row.refresh_from_db()
    assert row.answers == {}


def test_an_upload_that_is_no_document_is_said_beside_the_field(browse: SignIn, cast: Cast) -> None:
    row = actions.create_request(by=cast.applicant, version=cast.version, fields={})
    script = SimpleUploadedFile("x.pdf", b"<script>alert(1)</script>......", "application/pdf")
    answer = browse(cast.applicant).post(
        reverse("request-edit", args=[row.pk]), {"ethics_document": script}
    )
    assert answer.status_code == 400
    assert 'id="id_ethics_document_error"' in words(answer)


def test_only_the_applicant_edits(browse: SignIn, cast: Cast) -> None:
    row = cast.submitted()
    address = reverse("request-edit", args=[row.pk])
    assert browse(cast.applicant).get(address).status_code == 409
    assert browse(cast.committee[0]).get(address).status_code == 409


def test_the_committee_votes_blind_and_the_page_says_how_far_it_is(
    browse: SignIn, cast: Cast
) -> None:
    row = cast.submitted()
    address = reverse("request", args=[row.pk])
    first, second = browse(cast.committee[0]), browse(cast.committee[1])
    vote = {"choice": "approve", "bound_to": row.bound_to, "comment": "A hidden thought."}
    assert first.post(reverse("request-vote", args=[row.pk]), vote).status_code == 302
    assert "A hidden thought." in words(first.get(address))
    seen = words(second.get(address))
    assert "1 of 3 votes" in seen
    assert "A hidden thought." not in seen
    assert "A hidden thought." not in words(browse(cast.applicant).get(address))


def test_a_rejection_needs_a_comment(browse: SignIn, cast: Cast) -> None:
    row = cast.submitted()
    answer = browse(cast.committee[0]).post(
        reverse("request-vote", args=[row.pk]), {"choice": "reject", "bound_to": row.bound_to}
    )
    assert answer.status_code == 400
    assert 'id="id_comment_error"' in words(answer)
    assert not row.votes.exists()


def test_a_vote_on_something_older_is_not_counted(browse: SignIn, cast: Cast) -> None:
    row = cast.submitted()
    answer = browse(cast.committee[0]).post(
        reverse("request-vote", args=[row.pk]),
        {"choice": "approve", "bound_to": "0" * 64},
        follow=True,
    )
    assert "has changed since" in words(answer)
    assert not row.votes.exists()


@pytest.mark.parametrize("who", ["stranger", "applicant", "steward", "administrator"])
def test_who_may_not_vote_gets_the_rule_and_is_recorded(
    browse: SignIn, cast: Cast, who: str
) -> None:
    row = cast.submitted()
    person = getattr(cast, who)
    answer = browse(person).post(
        reverse("request-vote", args=[row.pk]), {"choice": "approve", "bound_to": row.bound_to}
    )
    assert answer.status_code == 403
    assert Event.objects.filter(action="request.vote.refused").exists()


def test_recusing_takes_the_vote_away(browse: SignIn, cast: Cast) -> None:
    row = cast.submitted()
    member = browse(cast.committee[0])
    page = member.post(reverse("request-recuse", args=[row.pk]), {"reason": "Kin."}, follow=True)
    assert "You have recused yourself from this." in words(page)
    assert "Cast the vote" not in words(page)


def test_signing_shows_the_text_and_needs_the_name(browse: SignIn, cast: Cast) -> None:
    row = cast.approved()
    address = reverse("request-sign", args=[row.pk])
    mine = browse(cast.applicant)
    page = mine.get(address)
    number = page.context["agreement"].pk
    wrong = mine.post(address, {"agreement": number, "typed_name": "Somebody Else"})
    assert wrong.status_code == 400
    assert "Type your name as it stands in your account." in words(wrong)
    right = mine.post(address, {"agreement": number, "typed_name": cast.applicant.name})
    grant = Grant.objects.get(request=row)
    assert right.url == reverse("grant", args=[grant.pk])
    assert "29 days left" in words(mine.get(right.url))


def test_the_agreement_s_markup_is_cleaned() -> None:
    text = as_html(
        "# Terms\n\n<script>alert(1)</script><img src=x onerror=alert(1)> "
        "[a](javascript:alert(1)) [b](https://example.org)\n\n<p style='color:red'>p</p>"
    )
    for bad in ("<script", "onerror", "javascript:", "style=", "<img", "<h1"):
        assert bad not in text
    assert '<a href="https://example.org"' in text
    assert "<h2>Terms</h2>" in text


def test_the_agreement_is_open_to_anyone(client: Client, cast: Cast) -> None:
    assert client.get(reverse("agreement")).status_code == 200


def test_a_steward_suspends_resumes_and_revokes_with_a_reason(browse: SignIn, cast: Cast) -> None:
    grant = cast.granted()
    steward = browse(cast.steward)
    for action, state in (("suspend", "suspended"), ("resume", "active"), ("revoke", "revoked")):
        address = reverse("grant-change", args=[grant.pk, action])
        assert steward.post(address, {"reason": ""}).status_code == 400
        steward.post(address, {"reason": f"A reason to {action}."})
        grant.refresh_from_db()
        assert grant.state == state
    assert "A reason to revoke." in words(
        browse(cast.applicant).get(reverse("grant", args=[grant.pk]))
    )


def test_others_may_not_change_a_grant(browse: SignIn, cast: Cast) -> None:
    grant = cast.granted()
    address = reverse("grant-change", args=[grant.pk, "revoke"])
    assert browse(cast.stranger).post(address, {"reason": "Why not."}).status_code == 403
    assert Event.objects.filter(action="grant.revoke.refused").exists()


def test_a_document_is_an_attachment_and_its_reading_recorded(browse: SignIn, cast: Cast) -> None:
    row = cast.submitted()
    document = row.documents.get()
    address = reverse("request-document", args=[row.pk, document.pk])
    assert browse(cast.stranger).get(address).status_code == 404
    answer = browse(cast.committee[0]).get(address)
    assert answer["Content-Disposition"].startswith("attachment")
    assert answer["Cache-Control"] == "no-store"
    assert b"".join(answer.streaming_content) == PDF
    assert Event.objects.filter(action="request.document.read").exists()


def test_markup_and_controls_in_strangers_words_are_inert(browse: SignIn, cast: Cast) -> None:
    row = cast.submitted(title="<b onclick=x>Bold</b>", aim="<script>alert(1)</script> " * 3)
    Person.objects.filter(pk=cast.applicant.pk).update(name="<i>\x1b[31mred\u202e</i>")
    document = row.documents.get()
    document.filename = "<img src=x>\x1b]0;t\x07.pdf"
    document.save()
    for address in (reverse("requests"), reverse("request", args=[row.pk])):
        page = words(browse(cast.committee[0]).get(address))
        for bad in ("<b onclick", "<script>alert", "<i>", "<img src=x", "\x1b", "\x07", "\u202e"):
            assert bad not in page
        assert "&lt;b onclick=x&gt;Bold" in page


def test_the_list_says_it_in_korean(browse: SignIn, cast: Cast) -> None:
    cast.submitted()
    mine = browse(cast.applicant)
    mine.cookies["django_language"] = "ko"
    page = words(mine.get(reverse("requests")))
    assert 'lang="ko"' in page
    assert "검토 중" in page or "심의 중" in page


def test_what_waits_is_counted_for_each(cast: Cast) -> None:
    from portal.access.waiting import waiting_for

    row = cast.submitted()

    def count(person: Person) -> int:
        return sum(one.count for one in waiting_for(person))

    assert [count(member) for member in cast.committee] == [1, 1, 1]
    assert count(cast.stranger) == 0
    cast.vote(row, cast.committee[0])
    assert count(cast.committee[0]) == 0
    for member in cast.committee[1:]:
        cast.vote(row, member)
    assert count(cast.applicant) == 1  # to sign
