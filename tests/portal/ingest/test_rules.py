"""Who may do what to originals and samples, and that no write is without its audit event."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from policies.errors import Conflict, Denied, Invalid
from portal.accounts.models import Person
from portal.audit.models import Event
from portal.catalog import actions as catalog
from portal.catalog.models import DatasetVersion
from portal.ingest import actions, queries, retention
from portal.ingest.models import Destruction, Intake, ReportRow, ReviewItem, Signature
from tests.portal.ingest.flow import Crew, album, object_bytes, zipped

pytestmark = pytest.mark.django_db


def upload(people: Crew) -> Intake:
    return actions.take_in(
        by=people.steward, version=people.version, stream=zipped(album(subjects=1, each=1))
    )


def in_qa(people: Crew, files: int = 2, *, ready: bool = True) -> list[ReviewItem]:
    """Put a version under examination, as the workers leave it."""
    intake = upload(people)
    ReportRow.objects.bulk_create(
        ReportRow(
            intake=intake,
            position=number,
            source=f"{number:064x}",
            status="written",
            target=f"s/{number}.png",
            facts={"kind": "photo", "stratum": {}, "review": ""},
        )
        for number in range(1, files + 1)
    )
    people.version.state, people.version.manifest_sha256 = "de_identified", "m" * 64
    people.version.save()
    actions.start_examination(by=people.officer, version=people.version, seed=1)
    items = ReviewItem.objects.filter(version=people.version)
    if ready:
        items.update(after_object="a" * 64, before_object="b" * 64, width=60, height=40)
    return list(items.order_by("position"))


@pytest.fixture
def others(make_person: Callable[..., Person], people: Crew) -> dict[str, Person]:
    """Everybody who might try."""
    return {
        "steward": people.steward,
        "officer": people.officer,
        "another steward": make_person("other@hospital.example", "steward"),
        "auditor": make_person("auditor@hospital.example", "auditor"),
        "administrator": make_person("admin@hospital.example", "administrator"),
        "reviewer": make_person("reviewer@hospital.example", "reviewer"),
        "stranger": make_person("stranger@company.example"),
    }


def attempts(people: Crew) -> dict[str, Callable[[Person], Any]]:
    """Return each write, and each read with a rule, as a function of who tries."""
    version = people.version
    item = ReviewItem(version=version)
    return {
        "version": lambda by: catalog.create_version(by=by, dataset=version.dataset),
        "upload": lambda by: actions.take_in(by=by, version=version, stream=zipped({"a": b"a"})),
        "start": lambda by: actions.start(by=by, version=version),
        "retire": lambda by: catalog.retire(by=by, version=version),
        "examine": lambda by: actions.start_examination(by=by, version=version, seed=1),
        "find": lambda by: actions.record_finding(by=by, item=item, finding="clean"),
        "sign": lambda by: actions.sign(by=by, version=version),
        "sample": lambda by: queries.sample_for(by, version),
        "picture": lambda by: queries.open_picture(by=by, item=item, side="before"),
        "report": lambda by: queries.report_for(by, version),
    }


ALLOWED = {
    "version": {"steward"},
    "upload": {"steward"},
    "start": {"steward"},
    "retire": {"steward"},
    "examine": {"officer"},
    "find": {"officer"},
    "sign": {"officer"},
    "sample": {"officer"},
    "picture": {"officer"},
    "report": {"steward", "officer", "auditor"},
}


@pytest.mark.parametrize("what", ALLOWED)
def test_who_may(people: Crew, others: dict[str, Person], what: str) -> None:
    for who, person in others.items():
        if who in ALLOWED[what]:
            continue
        with pytest.raises(Denied) as refused:
            attempts(people)[what](person)
        assert str(refused.value).endswith(".")
    assert people.version.state == "draft"
    for who in ALLOWED[what]:
        try:
            attempts(people)[what](others[who])
        except Denied as error:
            pytest.fail(f"{who} may {what}: {error}")
        except Exception as error:
            # The draft has nothing to start or examine yet; only who asks was in question.
            assert type(error).__name__ in ("Conflict", "Invalid", "DoesNotExist"), error


def test_an_officer_who_owns_the_dataset_or_uploaded_its_originals_may_not_judge_them(
    people: Crew, make_person: Callable[..., Person]
) -> None:
    both = make_person("both@hospital.example", "steward", "officer")
    own = catalog.create_dataset(
        by=both, slug="own", kind="photos", title="Own", description="Own."
    )
    version = catalog.create_version(by=both, dataset=own)
    with pytest.raises(Denied, match="another officer"):
        actions.start_examination(by=both, version=version, seed=1)
    in_qa(people)
    Intake.objects.update(uploaded_by=both)
    with pytest.raises(Denied, match="another officer"):
        actions.sign(by=both, version=people.version)


def test_over_http_a_refusal_is_403_with_the_sentence_and_an_audit_event(
    people: Crew, others: dict[str, Person], api: Callable[..., Any]
) -> None:
    DatasetVersion.objects.update(state="published")
    base = "/api/v1/datasets/photos/versions"
    tries = [
        ("another steward", "put", f"{base}/1/originals", "Only this dataset's own steward"),
        ("stranger", "put", f"{base}/1/originals", "Only a steward"),
        ("another steward", "post", base, "Only this dataset's own steward"),
        ("stranger", "post", f"{base}/1/ingest", "Only a steward"),
        ("stranger", "get", f"{base}/1/report", "for the steward"),
        ("steward", "post", f"{base}/1/examination", "Only a security officer"),
        ("reviewer", "get", f"{base}/1/examination", "Only a security officer"),
        ("administrator", "post", f"{base}/1/sign", "Only a security officer"),
        ("stranger", "post", f"{base}/1/retire", "Only a steward"),
        ("officer", "post", f"{base}/1/retire", "Only a steward"),
    ]
    for number, (who, method, path, sentence) in enumerate(tries, start=1):
        client = api(others[who])
        kind = {"content_type": "application/zip"} if method == "put" else {}
        answer = getattr(client, method)(path, b"PK\x03\x04" if kind else None, **kind)
        assert answer.status_code == 403, (who, path, answer.content)
        assert sentence in answer.json()["error"]["message"], (who, path)
        denied = Event.objects.filter(action="denied")
        assert denied.count() == number
        assert denied.latest("id").actor == others[who].email
    assert api(None).post(f"{base}/1/ingest").status_code == 401
    # What is no catalogue entry yet does not exist for those who do not work on it.
    DatasetVersion.objects.update(state="draft")
    assert api(others["stranger"]).get(f"{base}/1/report").status_code == 404


def test_a_write_whose_audit_event_fails_is_not_done(
    people: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = in_qa(people)

    class Broken(Exception):
        pass

    def broken(*_args: object, **_more: object) -> None:
        raise Broken

    def state() -> list[Any]:
        return [
            list(model.objects.order_by("pk").values())
            for model in (DatasetVersion, Intake, ReviewItem, ReportRow, Signature, Destruction)
        ]

    for item in items[:-1]:
        actions.record_finding(by=people.officer, item=item, finding="clean")
    for module in (catalog, actions, queries, retention):
        monkeypatch.setattr(module, "record", broken)
    second = DatasetVersion.objects.create(dataset=people.version.dataset, number=2)
    ready = DatasetVersion.objects.create(dataset=people.version.dataset, number=3)
    Intake.objects.create(
        version=ready, object_name="c" * 64, sha256="", bytes=1, uploaded_by=people.steward,
        destroy_after=people.version.created_at,
    )  # fmt: skip
    before, objects = state(), set(object_bytes())
    tries: list[Callable[[], object]] = [
        lambda: catalog.create_version(by=people.steward, dataset=people.version.dataset),
        lambda: catalog.create_dataset(
            by=people.steward, slug="new", kind="photos", title="New", description="New."
        ),
        lambda: actions.take_in(by=people.steward, version=second, stream=zipped({"a": b"a"})),
        lambda: actions.start(by=people.steward, version=ready),
        lambda: catalog.retire(by=people.steward, version=second),
        lambda: actions.record_finding(by=people.officer, item=items[-1], finding="clean"),
        lambda: queries.open_picture(by=people.officer, item=pictured(items[0]), side="after"),
        lambda: retention.destroy_originals(ready.intake),
        lambda: retention.destroy_pictures(people.version),
    ]
    for attempt in tries:
        with pytest.raises(Broken):
            attempt()
        assert state() == before
        assert set(object_bytes()) == objects
    ReviewItem.objects.update(finding="clean")
    before = state()
    with pytest.raises(Broken):
        actions.sign(by=people.officer, version=people.version)
    assert state() == before


def pictured(item: ReviewItem) -> ReviewItem:
    """Return the item with a key in memory, as if its picture were there."""
    from portal import keys

    item.wrapped_key = keys.wrap(
        keys.new_key(), by=keys.master("view"), context=f"review-item:{item.pk}"
    )
    return item


def test_originals_are_taken_while_the_version_is_a_draft_only(people: Crew) -> None:
    upload(people)
    first = set(object_bytes())
    again = upload(people)
    assert len(set(object_bytes())) == len(first)
    assert again.object_name not in first
    DatasetVersion.objects.update(state="ingesting")
    before = set(object_bytes())
    with pytest.raises(Conflict, match="originals already"):
        upload(people)
    people.version.refresh_from_db()
    with pytest.raises(Conflict, match="originals already"):
        upload(people)
    assert set(object_bytes()) == before


def test_what_is_no_zip_or_was_cut_off_on_its_way_is_refused_and_not_kept(
    people: Crew, api: Callable[..., Any]
) -> None:
    client = api(people.steward)
    path = "/api/v1/datasets/photos/versions/1/originals"
    before = set(object_bytes())
    answer = client.put(path, b"\x1f\x8b not a zip", content_type="application/zip")
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == "file"
    body = zipped(album(subjects=1, each=1)).getvalue()
    with pytest.raises(Invalid, match="cut off"):
        actions.take_in(
            by=people.steward,
            version=people.version,
            stream=io.BytesIO(body[:-10]),
            announced=len(body),
        )
    assert set(object_bytes()) == before
    assert not Intake.objects.exists()
    answer = client.put(path, body, content_type="application/zip")
    assert (answer.status_code, answer.json()["bytes"]) == (201, len(body))


def test_a_double_click_on_start_and_on_sign_does_it_once(people: Crew) -> None:
    items = in_qa(people)
    with pytest.raises(Conflict):
        actions.start_examination(by=people.officer, version=people.version, seed=2)
    with pytest.raises(Conflict, match="2 files"):
        actions.sign(by=people.officer, version=people.version)
    for item in items:
        actions.record_finding(by=people.officer, item=item, finding="clean")
    one, two = (DatasetVersion.objects.get(pk=people.version.pk) for _click in range(2))
    actions.sign(by=people.officer, version=one)
    with pytest.raises(Conflict):
        actions.sign(by=people.officer, version=two)
    assert Signature.objects.count() == 1
    assert Event.objects.filter(action="qa.sign").count() == 1
    with pytest.raises(Conflict, match="closed"):
        actions.record_finding(by=people.officer, item=items[0], finding="clean")


def test_a_double_click_on_starting_the_cleaning_does_it_once(people: Crew) -> None:
    upload(people)
    one, two = (DatasetVersion.objects.get(pk=people.version.pk) for _click in range(2))
    actions.start(by=people.steward, version=one)
    with pytest.raises(Conflict):
        actions.start(by=people.steward, version=two)
    assert Event.objects.filter(action="version.ingest").count() == 1


def test_nobody_judges_a_file_whose_pictures_are_not_there_yet(people: Crew) -> None:
    [item] = in_qa(people, files=1, ready=False)
    with pytest.raises(Conflict, match="not ready"):
        actions.record_finding(by=people.officer, item=item, finding="clean")
    ReviewItem.objects.update(unseen="cannot-decode")
    assert actions.record_finding(by=people.officer, item=item, finding="clean").finding == "clean"


def test_a_finding_belongs_to_the_open_round(people: Crew) -> None:
    [item] = in_qa(people, files=1)
    actions.record_finding(by=people.officer, item=item, finding="missed", note="the corner")
    actions.sign(by=people.officer, version=people.version)
    assert people.version.state == "de_identified"
    with pytest.raises(Conflict, match="still being applied"):
        actions.start_examination(by=people.officer, version=people.version, seed=3)
    Intake.objects.update(pending_boxes=False)
    actions.start_examination(by=people.officer, version=people.version, seed=3)
    with pytest.raises(Conflict, match="closed"):
        actions.record_finding(by=people.officer, item=item, finding="clean")


BOX = {"x": 1, "y": 2, "width": 3, "height": 4}


@pytest.mark.parametrize(
    ("finding", "boxes", "note", "field"),
    [
        ("nothing", [], "", "finding"),
        ("wrong", [], "", "wrong"),
        ("wrong", [BOX], "", "finding"),
        ("range", [], "", "boxes"),
        ("missed", [BOX | {"y": 1e9}], "", "boxes.0"),
        ("missed", [BOX] * 10_000, "", "boxes"),
        ("missed", [], "  ", "boxes"),
        ("clean", [BOX], "", "finding"),
        ("missed", [BOX] * 201, "", "boxes"),
        ("missed", [{"x": 1}], "", "boxes.0"),
        ("missed", [BOX, BOX | {"x": "1"}], "", "boxes.1.x"),
        ("missed", [BOX | {"width": float("nan")}], "", "boxes.0.width"),
        ("missed", [BOX | {"x": True}], "", "boxes.0.x"),
        ("missed", [BOX | {"x": 60}], "", "boxes.0"),
        ("missed", [BOX | {"width": -9}], "", "boxes.0"),
    ],
)
def test_a_finding_is_refused_with_the_field(
    people: Crew, finding: str, boxes: list[Any], note: str, field: str
) -> None:
    item = in_qa(people)[0]
    with pytest.raises(Invalid) as refused:
        actions.record_finding(
            by=people.officer, item=item, finding=finding, boxes=boxes, note=note
        )
    assert refused.value.field == field
    item.refresh_from_db()
    assert item.finding == ""


def test_boxes_are_cut_to_the_image(people: Crew) -> None:
    item = in_qa(people)[0]
    box = {"x": -5.5, "y": 30.2, "width": 10, "height": 1e9}
    actions.record_finding(by=people.officer, item=item, finding="missed", boxes=[box])
    item.refresh_from_db()
    assert item.boxes == [{"x": 0, "y": 30, "width": 5, "height": 10}]


def test_a_version_without_originals_or_pictures_cannot_be_examined(people: Crew) -> None:
    with pytest.raises(Conflict):
        actions.start_examination(by=people.officer, version=people.version, seed=1)
    with pytest.raises(Conflict):
        actions.sign(by=people.officer, version=people.version)
    with pytest.raises(Conflict, match="Upload the originals"):
        actions.start(by=people.steward, version=people.version)
    upload(people)
    DatasetVersion.objects.update(state="de_identified")
    people.version.refresh_from_db()
    with pytest.raises(Conflict, match="no picture left"):
        actions.start_examination(by=people.officer, version=people.version, seed=1)
