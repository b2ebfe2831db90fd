"""A grant begins with a signature, ends by itself, and is stopped by who may."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from policies.access import can_use_grant
from policies.errors import Conflict, Denied, Invalid
from portal.access import grants, queries, tasks
from portal.access.models import Agreement, Grant, RequestStep, Signature
from portal.audit.models import Event
from tests.portal.cast import Cast

pytestmark = pytest.mark.django_db


def test_the_grant_begins_with_the_signature(cast: Cast) -> None:
    request = cast.approved()
    grant = cast.sign(request)
    assert grant.state == "active"
    assert grant.ends_at - grant.starts_at == timedelta(days=30)
    assert set(grant.analysts.all()) == {cast.applicant, cast.analyst}
    signature = Signature.objects.get()
    assert signature.agreement_sha256 == queries.current_agreement().sha256
    queries.check_usable(grant, cast.analyst)


def test_the_shipped_agreement_has_both_languages(cast: Cast) -> None:
    agreement = queries.current_agreement()
    assert agreement.number == 1
    assert "No data leave" in agreement.text_en
    assert "반출 금지" in agreement.text_ko


def test_only_the_applicant_signs_once_and_only_when_approved(cast: Cast) -> None:
    request = cast.submitted()
    with pytest.raises(Conflict):
        cast.sign(request)
    for member in cast.committee:
        cast.vote(request, member)
    with pytest.raises(Denied):
        grants.sign_agreement(
            by=cast.analyst,
            request=request,
            agreement=queries.current_agreement(),
            typed_name=cast.analyst.name,
            language="en",
        )
    with pytest.raises(Invalid) as refused:
        grants.sign_agreement(
            by=cast.applicant,
            request=request,
            agreement=queries.current_agreement(),
            typed_name="Somebody Else",
            language="en",
        )
    assert refused.value.field == "typed_name"
    cast.sign(request)
    with pytest.raises(Conflict):
        cast.sign(request)
    assert Grant.objects.count() == 1


def test_a_newer_text_must_be_read_first(cast: Cast) -> None:
    request = cast.approved()
    old = queries.current_agreement()
    words = {"title_en": "A", "title_ko": "가", "text_en": "B", "text_ko": "나"}
    with pytest.raises(Denied):
        grants.publish_agreement(by=cast.applicant, **words)
    new = grants.publish_agreement(by=cast.steward, **words)
    assert (new.number, Agreement.objects.get(pk=old.pk).sha256) == (2, old.sha256)
    with pytest.raises(Conflict):
        cast.sign(request, old)
    cast.sign(request, new)
    assert Signature.objects.get().agreement == new


@pytest.mark.parametrize("field", ["title_en", "title_ko", "text_en", "text_ko"])
def test_an_agreement_reads_as_it_is_written(field: str, cast: Cast) -> None:
    words = {"title_en": "T", "title_ko": "제목", "text_en": "a\r\n\n- b\t", "text_ko": "가"}
    with pytest.raises(Invalid) as refused:
        grants.publish_agreement(by=cast.steward, **words | {field: "pay \u202e001$"})
    assert (refused.value.field, refused.value.code) == (field, "text.inert")
    assert grants.publish_agreement(by=cast.steward, **words).number == 2


def test_the_list_and_the_check_are_one_rule(cast: Cast) -> None:
    """Where a list asks the database and a check asks the policy, they must never disagree."""
    grant = cast.granted()
    now = timezone.now()
    day = timedelta(days=1)
    for state in ("active", "suspended", "expired", "revoked"):
        for starts, ends in (
            (now - day, now + day),
            (now - 2 * day, now),
            (now, now + day),
            (now + day, now + 2 * day),
        ):
            Grant.objects.filter(pk=grant.pk).update(state=state, starts_at=starts, ends_at=ends)
            grant.refresh_from_db()
            for person in (cast.analyst, cast.stranger, cast.steward):
                listed = queries.grants_usable_by(person, now=now).filter(pk=grant.pk).exists()
                facts = queries.facts_of(grant)
                assert listed == can_use_grant(facts, str(person.pk), now)


def test_a_grant_ends_by_itself(cast: Cast) -> None:
    grant = cast.granted()
    tasks.expire(grant.pk)
    grant.refresh_from_db()
    assert grant.state == "active"
    past = timezone.now() - timedelta(seconds=1)
    Grant.objects.filter(pk=grant.pk).update(starts_at=past - timedelta(days=1), ends_at=past)
    # Over means over, whether or not the beat has come by.
    with pytest.raises(Denied):
        queries.check_usable(Grant.objects.get(), cast.analyst)
    tasks.expire(grant.pk)
    tasks.expire(grant.pk)
    grant.refresh_from_db()
    assert grant.state == "expired"
    assert Event.objects.filter(action="grant.expire").count() == 1


def test_who_stops_a_grant(cast: Cast) -> None:
    grant = cast.granted()
    for person in (cast.applicant, cast.auditor, cast.committee[0], cast.stranger):
        with pytest.raises(Denied):
            grants.change_grant(by=person, grant=grant, action="revoke", reason="x")
    assert Event.objects.filter(action="grant.revoke.refused").count() == 4
    grants.change_grant(by=cast.administrator, grant=grant, action="suspend", reason="incident")
    with pytest.raises(Denied):
        queries.check_usable(Grant.objects.get(), cast.analyst)
    # Who stops in an emergency does not give back.
    with pytest.raises(Denied):
        grants.change_grant(by=cast.administrator, grant=grant, action="resume", reason="x")
    grants.change_grant(by=cast.steward, grant=grant, action="resume", reason="checked")
    queries.check_usable(Grant.objects.get(), cast.analyst)
    with pytest.raises(Invalid):
        grants.change_grant(by=cast.steward, grant=grant, action="revoke", reason=" ")
    grants.change_grant(by=cast.steward, grant=grant, action="revoke", reason="breach")
    with pytest.raises(Conflict):
        grants.change_grant(by=cast.steward, grant=grant, action="resume", reason="x")


@pytest.mark.parametrize("what", ["sign", "suspend", "expire"])
def test_without_its_audit_event_no_grant_changes(cast: Cast, monkeypatch, what: str) -> None:
    request = cast.approved()
    grant = cast.sign(request) if what != "sign" else None
    if what == "expire":
        past = timezone.now() - timedelta(seconds=1)
        Grant.objects.update(starts_at=past - timedelta(days=1), ends_at=past)
    before = list(Grant.objects.values_list("pk", "state"))

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(grants, "record", broken)
    with pytest.raises(RuntimeError):
        if what == "sign":
            cast.sign(request)
        elif what == "suspend":
            grants.change_grant(by=cast.steward, grant=grant, action="suspend", reason="x")
        else:
            grants.expire(grant=grant)
    assert list(Grant.objects.values_list("pk", "state")) == before
    assert Signature.objects.count() == len(before)


def test_how_long_it_takes_is_measured(cast: Cast) -> None:
    request = cast.approved()
    step = RequestStep.objects.get(request=request, state="in_review")
    RequestStep.objects.filter(pk=step.pk).update(entered_at=step.left_at - timedelta(days=3))
    levels = {level.state: level for level in queries.service_levels()}
    assert levels["in_review"].median_days == 3.0
    assert "returned" not in levels
