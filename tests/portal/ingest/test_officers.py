"""Officers share a version: who has which file in hand, what they may say, whose name counts."""

from __future__ import annotations

import ast
import importlib
import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import connections
from django.utils import timezone
from django.utils.translation import override

import deid
from policies.errors import Conflict, Denied, Invalid
from portal.accounts.models import Person
from portal.audit.models import Event
from portal.catalog.models import Dataset, DatasetVersion
from portal.ingest import actions, handing_out, mending, queries, sampling, words
from portal.ingest.models import Destruction, Intake, ReportRow, ReviewItem, Signature
from tests.portal.browse import session_of
from tests.portal.ingest.flow import Crew, crew
from tests.portal.ingest.test_rules import in_qa

database = pytest.mark.django_db(transaction=True)
rows = pytest.mark.django_db


@pytest.fixture
def second(make_person: Callable[..., Person], people: Crew) -> Person:
    return make_person("second@hospital.example", "officer")


def policy(people: Crew, **deid: Any) -> None:
    Dataset.objects.filter(pk=people.version.dataset_id).update(policy={"deid": deid})
    people.version.refresh_from_db()
    people.version.dataset.refresh_from_db()


@database
def test_two_officers_at_once_never_get_the_same_file(people: Crew, second: Person) -> None:
    in_qa(people, files=12)
    start = threading.Barrier(4)
    got: list[tuple[int, int]] = []

    def work(officer: Person) -> None:
        try:
            start.wait()
            while (item := handing_out.hand_out(by=officer, version=people.version)) is not None:
                got.append((officer.pk, item.pk))
                actions.record_finding(by=officer, item=item, finding="clean")
        finally:
            connections.close_all()

    # Each officer has two windows open: the same person may get the same file twice.
    crowd = [threading.Thread(target=work, args=(who,)) for who in [people.officer, second] * 2]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    assert len({item for _who, item in got}) == 12
    officers_of: dict[int, set[int]] = {}
    for who, item in got:
        officers_of.setdefault(item, set()).add(who)
    assert all(len(found) == 1 for found in officers_of.values())
    assert not ReviewItem.objects.filter(finding="").exists()


@rows
def test_a_file_in_hand_is_nobody_elses_until_its_time_is_over(
    people: Crew, second: Person
) -> None:
    one, other = in_qa(people)
    mine = handing_out.hand_out(by=people.officer, version=people.version)
    assert mine == one
    assert handing_out.hand_out(by=second, version=people.version) == other
    for attempt in (
        lambda: handing_out.take(by=second, item=one),
        lambda: actions.record_finding(by=second, item=one, finding="clean"),
    ):
        with pytest.raises(Conflict, match="Another officer is looking"):
            attempt()
    ReviewItem.objects.filter(pk=one.pk).update(wrapped_key=b"x")
    one.refresh_from_db()
    for look in (
        lambda: queries.open_picture(by=second, item=one, side="before"),
        lambda: queries._key_of(second, one),
    ):
        with pytest.raises(Conflict, match="Another officer is looking"):
            look()
    # The first officer goes home; the second gets the file, and judges it.
    ReviewItem.objects.filter(pk=one.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert handing_out.take(by=second, item=one)
    actions.record_finding(by=second, item=one, finding="missed", note="a name")
    with pytest.raises(Conflict, match="judged this file meanwhile"):
        actions.record_finding(by=people.officer, item=one, finding="clean")
    one.refresh_from_db()
    assert (one.finding, one.found_by) == ("missed", second)
    # Whoever opens it again may say otherwise.
    handing_out.take(by=people.officer, item=one)
    actions.record_finding(by=people.officer, item=one, finding="clean")
    handed = Event.objects.filter(action="qa.hand_out").values_list("actor", flat=True)
    assert sorted(handed) == sorted([people.officer.email, second.email] * 2)


@rows
def test_a_file_that_was_given_back_goes_to_the_next(people: Crew, second: Person) -> None:
    [only] = in_qa(people, files=1)
    assert handing_out.hand_out(by=people.officer, version=people.version) == only
    assert handing_out.hand_out(by=second, version=people.version) is None
    handing_out.give_back(by=second, item=only)  # not theirs: nothing happens
    assert handing_out.hand_out(by=second, version=people.version) is None
    handing_out.give_back(by=people.officer, item=only)
    assert handing_out.hand_out(by=second, version=people.version) == only


@rows
def test_two_officers_must_sign_where_the_policy_says_so(people: Crew, second: Person) -> None:
    policy(people, officers=2)
    items = in_qa(people)
    for item in items:
        actions.record_finding(by=people.officer, item=item, finding="clean")
    actions.sign(by=people.officer, version=people.version)
    assert people.version.state == "in_qa"
    assert "another security officer" in people.version.reason
    with pytest.raises(Conflict, match="another officer must sign"):
        actions.sign(by=people.officer, version=people.version)
    # A finding that changes takes the first signature with it.
    handing_out.take(by=second, item=items[0])
    actions.record_finding(by=second, item=items[0], finding="extra")
    actions.sign(by=second, version=people.version)
    assert people.version.state == "in_qa"
    actions.sign(by=people.officer, version=people.version)
    assert people.version.state == "published"
    standing = Signature.objects.filter(standing=True).values_list("officer", flat=True)
    assert sorted(standing) == sorted([people.officer.pk, second.pk])
    assert Signature.objects.count() == 3
    card = people.version.card
    assert (card["officers"], card["missed"], card["examination"]) == (2, 0, "sample")
    assert card["examined_on"] == timezone.now().date().isoformat()


@rows
def test_one_officer_is_enough_to_send_a_version_back(people: Crew, second: Person) -> None:
    policy(people, officers=2)
    items = in_qa(people)
    for item in items:
        actions.record_finding(by=people.officer, item=item, finding="clean")
    actions.sign(by=people.officer, version=people.version)
    handing_out.take(by=second, item=items[1])
    box = {"x": 1, "y": 1, "width": 2, "height": 2}
    actions.record_finding(by=second, item=items[1], finding="range", boxes=[box])
    assert not actions.sign(by=second, version=people.version).passed
    assert people.version.state == "de_identified"


@rows
def test_every_image_is_drawn_where_the_policy_says_so_and_a_late_policy_counts(
    people: Crew,
) -> None:
    policy(people, examination="every")
    items = in_qa(people, files=700)
    assert len(items) == 700
    assert {item.why for item in items} == {"every image"}
    assert sampling.bound(items, 700) == (0.0, 0)
    DatasetVersion.objects.update(state="de_identified")
    policy(people)
    actions.start_examination(by=people.officer, version=people.version, seed=2)
    drawn = ReviewItem.objects.filter(round=2)
    assert drawn.count() == 299
    drawn.update(finding="clean", after_object="a" * 64)
    policy(people, examination="every")
    assert not actions.sign(by=people.officer, version=people.version).passed
    assert people.version.state == "de_identified"


@rows
def test_the_bound_rests_on_what_was_drawn_at_random(people: Crew) -> None:
    always = [ReviewItem(why="ultrasound", finding="clean") for _each in range(500)]
    random = [ReviewItem(finding="clean") for _each in range(300)]
    rate, count = sampling.bound([*always, *random], 5000)
    assert (count, 0.0099 < rate < 0.01) == (300, True)


@rows
def test_only_a_box_that_was_masked_can_be_called_wrong(people: Crew) -> None:
    [item] = in_qa(people, files=1)
    box = {"x": 3, "y": 4, "width": 9, "height": 8}
    ReportRow.objects.update(boxes={"face": [{**box, "score": 0.9}]})
    item.refresh_from_db()
    for forged in (
        {**box, "kind": "text"},
        {**box, "kind": "face", "width": 2000},
        {"kind": "face"},
        {**box, "kind": "face", "x": float("inf")},
        "face",
    ):
        with pytest.raises(Invalid) as refused:
            actions.record_finding(by=people.officer, item=item, finding="wrong", wrong=[forged])
        assert refused.value.field == "wrong.0"
    mine = {**box, "kind": "face"}
    with pytest.raises(Invalid, match="not clean"):
        actions.record_finding(by=people.officer, item=item, finding="clean", wrong=[mine])
    actions.record_finding(by=people.officer, item=item, finding="wrong", wrong=[mine, mine])
    assert item.wrong_boxes == [mine]
    # It hides too much, which the officer may accept or have taken away.
    assert not actions.sign(by=people.officer, version=people.version, correct=True).passed
    assert Intake.objects.get().pending_boxes


@rows
def test_a_missed_box_goes_to_every_image_of_that_device_and_layout(people: Crew) -> None:
    items = in_qa(people, files=6)
    for row in ReportRow.objects.all():
        name = "" if row.position > 4 else "A" if row.position < 4 else "B"
        row.facts["stratum"] = {"layout": name}
        row.save()
    box = {"x": 1, "y": 2, "width": 3, "height": 4}
    found = {1: ("missed", [box]), 6: ("missed", [box])}
    for item in items:
        finding, boxes = found.get(item.row.position, ("clean", []))
        actions.record_finding(by=people.officer, item=item, finding=finding, boxes=boxes)
    mends = mending.plan(Intake.objects.get(), sampling.current_round(people.version))
    # Two files without a layout have nothing in common.
    assert {(m.row.position, len(m.added)) for m in mends} == {(1, 1), (2, 1), (3, 1), (6, 1)}
    assert not any(m.withdraw or m.wrong for m in mends)


@rows
def test_every_role_and_what_is_new(
    people: Crew, second: Person, make_person: Callable[..., Person], api: Callable[..., Any]
) -> None:
    [item] = in_qa(people, files=1)
    key_less = Destruction.objects.create(version=people.version, what="pictures", count=1, bytes=0)
    version, base = people.version, "/api/v1/datasets/photos/versions/1"
    writes: dict[str, Callable[[Person], Any]] = {
        "hand out": lambda by: handing_out.hand_out(by=by, version=version),
        "take": lambda by: handing_out.take(by=by, item=item),
        "header": lambda by: queries.open_header(by=by, item=item),
        "correct": lambda by: actions.sign(by=by, version=version, correct=True),
    }
    officer_and_steward = make_person("own@hospital.example", "officer", "steward")
    Intake.objects.update(uploaded_by=officer_and_steward)
    nobody = [
        people.steward,
        officer_and_steward,  # an officer who uploaded: not their own work
        *(
            make_person(f"{role}@hospital.example", role)
            for role in ("auditor", "administrator", "reviewer", "committee", "steward")
        ),
        make_person("stranger@company.example"),
    ]
    for person in nobody:
        for what, attempt in writes.items():
            with pytest.raises(Denied):
                attempt(person)
                pytest.fail(f"{person} may {what}")
        client = api(person)
        for method, path in (
            ("post", "examination/next"),
            ("post", f"examination/{item.pk}/turn"),
            ("get", f"examination/{item.pk}/header"),
        ):
            assert getattr(client, method)(f"{base}/{path}").status_code in (403, 404), path
        readers = {people.steward.pk} | {p.pk for p in nobody if "auditor" in p.email}
        allowed = person.pk in readers or person == officer_and_steward
        answer = client.get(f"{base}/destructions/{key_less.pk}/certificate")
        assert answer.status_code == (409 if allowed else answer.status_code)
        assert allowed or answer.status_code in (403, 404)
    client = api(second)
    assert client.post(f"{base}/examination/next").json()["id"] == item.pk
    assert client.post(f"{base}/examination/{item.pk}/turn").status_code == 204
    assert client.delete(f"{base}/examination/{item.pk}/turn").status_code == 204
    assert client.get(f"{base}/examination/{item.pk}/header").json() == []
    answer = client.post(
        f"{base}/examination/{item.pk}/finding", {"finding": "clean"}, format="json"
    )
    assert answer.status_code == 200, answer.content
    assert client.post(f"{base}/examination/next").status_code == 204


@rows
def test_another_versions_certificate_is_not_found(
    people: Crew, make_person: Callable[..., Person], api: Callable[..., Any]
) -> None:
    in_qa(people, files=1)
    elsewhere = crew(make_person, slug="elsewhere")
    made = Destruction.objects.create(
        version=elsewhere.version, what="pictures", count=1, bytes=0, certificate="{}"
    )
    base = "/api/v1/datasets/photos/versions/1"
    answer = api(people.steward).get(f"{base}/destructions/{made.pk}/certificate")
    assert answer.status_code == 404


@rows
def test_the_pages_take_hand_on_and_keep(people: Crew, second: Person) -> None:
    items = in_qa(people, files=150)
    base = "/examinations/photos/1"
    client = session_of(people.officer)
    whole = client.get(f"{base}/")
    assert whole.status_code == 200
    assert "Page 1 of 2" in whole.content.decode()
    assert client.get(f"{base}/next/")["Location"] == f"{base}/1/"
    assert client.get(f"{base}/1/").status_code == 200
    items[0].refresh_from_db()
    until = items[0].lease_until
    assert client.post(f"{base}/1/keep/").status_code == 204
    items[0].refresh_from_db()
    assert items[0].lease_until > until
    client = session_of(second)
    taken = client.get(f"{base}/1/").content.decode()
    assert "Another officer is looking at this file now" in taken
    assert 'name="finding"' not in taken
    assert "<img" not in taken
    assert client.post(f"{base}/1/keep/").status_code == 409
    assert client.post(f"{base}/1/", {"finding": "clean"}).status_code == 400
    assert client.get(f"{base}/next/")["Location"] == f"{base}/2/"
    client.get(f"{base}/2/")
    assert client.post(f"{base}/2/", {"finding": "clean"})["Location"] == f"{base}/3/"


@rows
def test_boxes_of_earlier_rounds_are_carried_over_once_they_were_applied(people: Crew) -> None:
    carry_over = importlib.import_module("portal.ingest.migrations.0002_officers_review").carry_over
    first, second = in_qa(people)
    box = {"x": 1, "y": 1, "width": 2, "height": 2}
    actions.record_finding(by=people.officer, item=first, finding="missed", boxes=[box])
    actions.record_finding(by=people.officer, item=second, finding="clean")
    actions.sign(by=people.officer, version=people.version)
    Signature.objects.update(at_random=0)
    carry_over(apps, None)  # the boxes wait still, and are applied as new ones
    assert not any(row.boxes for row in ReportRow.objects.all())
    assert Signature.objects.get().at_random == 2
    Intake.objects.update(pending_boxes=False)
    carry_over(apps, None)
    assert [row.boxes for row in ReportRow.objects.all()] == [{"officer": [box]}, {}]


@rows
def test_what_a_film_hides_is_not_offered_to_be_taken_away(people: Crew) -> None:
    [item] = in_qa(people, files=1)
    box = {"x": 3, "y": 4, "width": 9, "height": 8}
    facts = {"kind": "video", "stratum": {}, "review": ""}
    ReportRow.objects.update(boxes={"face": [{**box, "score": 0.9}]}, facts=facts)
    item.refresh_from_db()
    with pytest.raises(Invalid, match="moves with what it hides"):
        actions.record_finding(
            by=people.officer, item=item, finding="wrong", wrong=[{**box, "kind": "face"}]
        )
    ReviewItem.objects.update(wrapped_key=b"k")  # as if it could be shown
    page = session_of(people.officer).get("/examinations/photos/1/1/").content.decode()
    assert "masked in every frame" in page
    assert 'name="wrong"' not in page
    # A photograph's boxes are.
    ReportRow.objects.update(facts={**facts, "kind": "photo"})
    page = session_of(people.officer).get("/examinations/photos/1/1/").content.decode()
    assert 'name="wrong"' in page


@rows
def test_people_read_what_an_earlier_part_of_the_run_made_as_written(people: Crew) -> None:
    in_qa(people, files=3)
    ReportRow.objects.filter(position__lte=2).update(status="unchanged")
    Intake.objects.update(counts={"unchanged": 2, "written": 1})
    client = session_of(people.steward)
    page = client.get("/steward/photos/1/").content.decode()
    assert '<span class="figure">3</span>' in page
    report = client.get("/steward/photos/1/report/?status=written").content.decode()
    assert "3 files" in report
    assert "unchanged" not in page + report


def test_what_a_file_stands_for_ends_without_a_separator() -> None:
    assert words.stratum("photo / - / -") == "photo"
    assert words.stratum("MG / HOLOGIC / 1.2.840.10008.5.1.4.1.1.1.2").startswith(
        "MG · HOLOGIC · Digital Mammography"
    )


def photo_actions() -> Iterator[tuple[str, str]]:
    """Each part and action that cleaning a photograph or a video may report, in the sources."""

    def said(node: ast.expr) -> str:
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        return "".join(part.value if isinstance(part, ast.Constant) else "12" for part in parts)

    for name in ("photos", "photo_reading", "video"):
        tree = ast.parse(Path(deid.__file__).with_name(f"{name}.py").read_text("utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Assign):
                continue
            (target,) = node.targets
            if isinstance(target, ast.Subscript) and getattr(target.value, "id", "") == "actions":
                # Where the part is a variable, it is a kind of box.
                keys = [target.slice.value] if isinstance(target.slice, ast.Constant) else BOXES
                yield from ((key, said(node.value)) for key in keys)
            if getattr(target, "id", "") == "actions" and isinstance(node.value, ast.Dict):
                for key, value in zip(node.value.keys, node.value.values, strict=True):
                    yield key.value, said(value)


BOXES = ("text", "face", "plate")


def test_what_was_done_to_a_photograph_is_said_in_the_readers_language() -> None:
    found = dict.fromkeys(photo_actions())
    assert len(found) > 18 and ("orientation", "applied") in found
    for part, action in found:
        with override("ko"):
            (change,) = words.changes({part: action})
        assert change.tag == "" and not re.search("[a-z]{2}", change.name), part
        assert not re.search("[a-z]{2}", change.words.replace("sRGB", "")), action
        assert ("12" in action) == ("12" in change.words), action
        (change,) = words.changes({part: action})
        assert change.words == action
    (unknown,) = words.changes({"": ""})
    assert unknown.words == ""
    # A template's own form is no action that a report holds.
    assert words.changes({"text": "masked {count}"})[0].words == "masked {count}"
