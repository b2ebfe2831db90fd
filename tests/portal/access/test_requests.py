"""From draft to submission: what is asked, what is refused, who sees it."""

from __future__ import annotations

import io

import pytest

from policies.errors import Conflict, Denied, Invalid
from portal.access import actions, queries
from portal.access.models import AccessRequest, RequestDocument
from portal.audit.models import Event
from portal.voting import casting
from tests.portal.cast import PDF, Cast

pytestmark = pytest.mark.django_db


def test_a_complete_request_goes_to_the_committee(cast: Cast) -> None:
    request = cast.submitted()
    assert request.state == "in_review"
    assert set(request.analysts.all()) == {cast.applicant, cast.analyst}
    assert len(request.bound_to) == 64
    actions_seen = list(Event.objects.values_list("action", flat=True))
    assert actions_seen[-2:] == ["request.submit", "request.open"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"aim": ""}, "aim"),
        ({"days": 100_000}, "days"),
        ({"purpose": "download"}, "purpose"),
        ({"analysts": ["nobody@company.example"]}, "analysts"),
        ({"pledge": False}, "pledge"),
    ],
)
def test_what_is_missing_or_wrong_is_named(cast: Cast, changes: dict, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        cast.submitted(**changes)
    assert refused.value.field == field


def test_an_analyst_whom_nobody_placed_in_a_unit_proves_nothing(cast: Cast) -> None:
    cast.analyst.unit = None
    cast.analyst.save()
    with pytest.raises(Invalid) as refused:
        cast.submitted()
    assert refused.value.field == "analysts"


def test_the_ethics_document_is_needed(cast: Cast) -> None:
    request = actions.create_request(by=cast.applicant, version=cast.version, fields=cast.answers)
    with pytest.raises(Invalid) as refused:
        actions.submit_request(by=cast.applicant, request=request)
    assert refused.value.field == "ethics_document"


def test_a_shared_organisation_must_be_declared(cast: Cast) -> None:
    cast.applicant.unit = cast.officer.unit
    cast.applicant.save()
    request = cast.draft()
    with pytest.raises(Invalid) as refused:
        actions.submit_request(by=cast.applicant, request=request)
    assert refused.value.field == "conflict_declared"
    actions.edit_request(by=cast.applicant, request=request, fields={}, conflict=True)
    assert actions.submit_request(by=cast.applicant, request=request).state == "in_review"


def test_what_is_no_document_is_refused_by_its_bytes(cast: Cast) -> None:
    request = cast.draft()
    with pytest.raises(Invalid) as refused:
        actions.add_document(
            by=cast.applicant,
            request=request,
            stream=io.BytesIO(b"<html><script>alert(1)</script>"),
            filename="approval.pdf",
        )
    assert refused.value.field == "file"


def test_a_document_is_encrypted_bounded_and_its_name_inert(cast: Cast, monkeypatch) -> None:
    request = cast.draft()
    document = actions.add_document(
        by=cast.applicant,
        request=request,
        stream=io.BytesIO(PDF),
        filename='..\\..\\<b>"x\x1b[31m.pdf',
    )
    assert not set(document.filename) & set('<>"\x1b\\/')
    with actions.open_document(by=cast.applicant, document=document) as stream:
        assert stream.read() == PDF
    monkeypatch.setattr(actions, "MOST_DOCUMENT_BYTES", 10)
    with pytest.raises(Invalid) as refused:
        actions.add_document(
            by=cast.applicant, request=request, stream=io.BytesIO(PDF), filename="b.pdf"
        )
    assert refused.value.field == "file"


def test_nobody_else_reads_a_draft_or_its_document(cast: Cast) -> None:
    request = cast.draft()
    document = request.documents.get()
    for person in [*cast.committee, cast.steward, cast.stranger, cast.administrator, cast.auditor]:
        assert not queries.requests_visible_to(person).exists()
        with pytest.raises(Denied):
            actions.open_document(by=person, document=document)


def test_who_reads_a_submitted_request(cast: Cast) -> None:
    request = cast.submitted()
    readers = {
        person.email
        for person in [
            cast.applicant,
            cast.analyst,
            cast.steward,
            *cast.committee,
            *cast.reviewers,
            cast.auditor,
            cast.administrator,
            cast.officer,
            cast.stranger,
        ]
        if queries.requests_visible_to(person).filter(pk=request.pk).exists()
    }
    expected = [cast.applicant, cast.analyst, cast.steward, cast.auditor, *cast.committee]
    assert readers == {person.email for person in expected}


def test_reading_a_document_is_recorded(cast: Cast) -> None:
    request = cast.submitted()
    actions.open_document(by=cast.committee[0], document=request.documents.get()).close()
    event = Event.objects.get(action="request.document.read")
    assert event.actor == cast.committee[0].email


def test_a_submitted_request_does_not_change(cast: Cast) -> None:
    request = cast.submitted()
    with pytest.raises(Conflict):
        actions.edit_request(by=cast.applicant, request=request, fields={"days": 5})
    with pytest.raises(Conflict):
        actions.remove_document(by=cast.applicant, document=request.documents.get())
    with pytest.raises(Denied):
        actions.withdraw_request(by=cast.analyst, request=request)


def test_returned_changed_and_handed_in_again(cast: Cast) -> None:
    request = cast.submitted()
    first = request.bound_to
    for member in cast.committee:
        cast.vote(request, member, "return")
    request.refresh_from_db()
    assert (request.state, "Because." in request.reason) == ("returned", True)
    again = actions.submit_request(by=cast.applicant, request=request)
    # Even unchanged it is a new submission: votes on the first do not count for the second.
    assert (again.state, again.round) == ("in_review", 2)
    assert again.bound_to != first
    assert queries.decision_on(again).counted == 0
    cast.vote(again, cast.committee[0])
    assert queries.decision_on(again).counted == 1


def test_withdrawn_is_for_good(cast: Cast) -> None:
    request = actions.withdraw_request(by=cast.applicant, request=cast.submitted())
    assert request.state == "withdrawn"
    with pytest.raises(Conflict):
        cast.vote(request, cast.committee[0])


ACTIONS = {
    "create": lambda cast: actions.create_request(
        by=cast.applicant, version=cast.version, fields=cast.answers
    ),
    "edit": lambda cast: actions.edit_request(
        by=cast.applicant, request=AccessRequest.objects.get(), fields={"days": 9}
    ),
    "document": lambda cast: actions.add_document(
        by=cast.applicant,
        request=AccessRequest.objects.get(),
        stream=io.BytesIO(PDF),
        filename="c.pdf",
    ),
    "remove": lambda cast: actions.remove_document(
        by=cast.applicant, document=RequestDocument.objects.get()
    ),
    "submit": lambda cast: actions.submit_request(
        by=cast.applicant, request=AccessRequest.objects.get()
    ),
    "withdraw": lambda cast: actions.withdraw_request(
        by=cast.applicant, request=AccessRequest.objects.get()
    ),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_without_its_audit_event_nothing_is_written(cast: Cast, monkeypatch, name: str) -> None:
    cast.draft()

    def rows() -> list:
        return [
            list(AccessRequest.objects.values_list("pk", "state", "answers", "round")),
            list(RequestDocument.objects.values_list("pk", "removed_at")),
        ]

    before = rows()

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the audit trail is full")

    for module in (actions, casting):
        monkeypatch.setattr(module, "record", broken)
    with pytest.raises(RuntimeError):
        ACTIONS[name](cast)
    assert rows() == before
