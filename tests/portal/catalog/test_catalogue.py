"""The catalogue: what anyone sees, what a sample is, and the Croissant document."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from policies.document import default_policy
from policies.errors import Conflict, Denied, Invalid
from portal.accounts.models import Person
from portal.audit.models import Event
from portal.catalog import actions, croissant, queries, tasks
from portal.catalog.models import Dataset, DatasetVersion, Sample
from portal.catalog.policy_words import in_words

pytestmark = pytest.mark.django_db


@pytest.fixture
def steward(make_person: Callable[..., Person]) -> Person:
    return make_person("steward@hospital.example", "steward")


def create(by: Person, **changes: Any) -> Dataset:
    words = {
        "slug": "photos",
        "kind": "photos",
        "title": "Photographs",
        "description": "Some with a face.",
    }
    return actions.create_dataset(by=by, **{**words, **changes})


def publish(dataset: Dataset, number: int = 1) -> DatasetVersion:
    return DatasetVersion.objects.create(
        dataset=dataset,
        number=number,
        state="published",
        published_at=timezone.now(),
        files=12,
        subjects=3,
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"slug": ""}, "slug"),
        ({"slug": "Photos"}, "slug"),
        ({"slug": "../photos"}, "slug"),
        ({"slug": "x" * 61}, "slug"),
        ({"kind": "video"}, "kind"),
        ({"profile": "none"}, "profile"),
        ({"title": "  "}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"description": ""}, "description"),
        ({"policy": {"release": {"digits": 9}}}, "release.digits"),
        ({"policy": {"release": {"digit": 2}}}, "release.digit"),
        ({"policy": {"deployment": {}}}, "deployment"),
    ],
)
def test_a_wrong_dataset_is_refused_with_the_field(
    steward: Person, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        create(steward, **changes)
    assert refused.value.field == field
    assert not Dataset.objects.exists()


def test_a_slug_is_given_once_and_versions_count_up(steward: Person) -> None:
    dataset = create(steward)
    with pytest.raises(Conflict):
        create(steward)
    numbers = [actions.create_version(by=steward, dataset=dataset).number for _time in range(3)]
    assert numbers == [1, 2, 3]
    made = Event.objects.filter(action__in=("dataset.create", "version.create"))
    assert list(made.order_by("id").values_list("actor", flat=True)) == [steward.email] * 4


def test_what_is_not_published_is_seen_by_those_who_work_on_it_only(
    steward: Person, make_person: Callable[..., Person], api: Callable[..., Any]
) -> None:
    draft, public = create(steward), create(steward, slug="public")
    actions.create_version(by=steward, dataset=draft)
    publish(public)
    actions.create_version(by=steward, dataset=public)
    people = {
        None: {"public"},
        make_person("stranger@company.example"): {"public"},
        make_person("other@hospital.example", "steward"): {"public"},
        make_person("admin@hospital.example", "administrator"): {"public"},
        steward: {"photos", "public"},
        make_person("officer@hospital.example", "officer"): {"photos", "public"},
        make_person("auditor@ministry.example", "auditor"): {"photos", "public"},
    }
    for person, slugs in people.items():
        client = api(person)
        answer = client.get("/api/v1/datasets").json()
        assert {each["slug"] for each in answer["results"]} == slugs, person
        states = {version["state"] for each in answer["results"] for version in each["versions"]}
        assert states == ({"published"} if slugs == {"public"} else {"published", "draft"})
        hidden = 200 if "photos" in slugs else 404
        assert client.get("/api/v1/datasets/photos").status_code == hidden
        assert client.get("/api/v1/datasets/photos/versions/1").status_code == hidden
        answer = client.get("/api/v1/datasets/photos/sample")
        assert answer.status_code == (404 if hidden == 404 else 409), answer.content
        assert client.get("/api/v1/datasets/photos/croissant").status_code == 404
        number = "/api/v1/datasets/public/versions/2"
        assert client.get(number).status_code == hidden


@pytest.mark.parametrize("field", ["title", "title_ko", "description", "description_ko"])
def test_a_dataset_s_words_are_what_they_look_like(field: str, steward: Person) -> None:
    for text in ("a\x1b[31mb", "a\u202eb", "a\u200bb"):
        with pytest.raises(Invalid) as refused:
            create(steward, **{field: text})
        assert refused.value.field == field
    assert create(steward, description="two\r\nlines").description == "two\r\nlines"


def test_a_retired_version_leaves_the_catalogue(
    steward: Person, make_person: Callable[..., Person]
) -> None:
    version = publish(create(steward))
    assert queries.published("photos").pk == version.pk
    with pytest.raises(Denied):
        actions.retire(by=make_person("other@hospital.example", "steward"), version=version)
    stale = DatasetVersion.objects.get(pk=version.pk)
    actions.retire(by=steward, version=version)
    with pytest.raises(Conflict):
        actions.retire(by=steward, version=stale)
    assert Event.objects.filter(action="version.retire").count() == 1
    with pytest.raises(Invalid) as unknown:
        queries.published("photos")
    assert unknown.value.field == "dataset"
    for number in ("1; drop", "-1", "x", "²"):
        with pytest.raises(Invalid) as unknown:
            queries.published("photos", number)
        assert unknown.value.field == "version"


@pytest.mark.parametrize("kind", ["dicom", "mammography", "photos"])
def test_the_sample_is_made_of_the_kind_alone_and_has_the_layout(
    steward: Person, kind: str, api: Callable[..., Any]
) -> None:
    """Two datasets of a kind have the same sample, whatever they hold: nothing was fitted."""
    one, two = create(steward, kind=kind), create(steward, slug="other", kind=kind)
    for dataset in (one, two):
        tasks.make_sample(dataset.pk)
        tasks.make_sample(dataset.pk)
        publish(dataset)
    assert Sample.objects.count() == 2
    assert Event.objects.filter(action="sample.make").count() == 2
    packed = [api(None).get(f"/api/v1/datasets/{each.slug}/sample") for each in (one, two)]
    inside = []
    for dataset, answer in zip((one, two), packed, strict=True):
        assert answer["Content-Type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(answer.getvalue())) as archive:
            assert {name.split("/")[0] for name in archive.namelist()} == {dataset.slug}
            inside.append(
                {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
            )
    assert inside[0] == inside[1]
    labels = list(csv.DictReader(io.StringIO(inside[0]["labels.csv"].decode())))
    assert {row["file"] for row in labels} <= set(inside[0])
    assert {row["split"] for row in labels} == {"train", "validation", "sealed"}
    assert b"sample = true" in inside[0]["dataset.toml"]


def test_no_sample_is_made_twice_and_a_lost_hint_is_found_again(
    steward: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = create(steward)
    hints: list[tuple[object, ...]] = []
    monkeypatch.setattr(tasks, "hint", lambda *words: hints.append(words))
    tasks.due()
    assert hints == [("catalog.make_sample", dataset.pk)]
    tasks.make_sample(dataset.pk)
    hints.clear()
    tasks.due()
    assert hints == []


@pytest.mark.parametrize("kind", ["dicom", "mammography", "photos"])
def test_croissant_is_sound_and_says_only_what_is_true(
    steward: Person, kind: str, api: Callable[..., Any]
) -> None:
    dataset = create(steward, kind=kind, title_ko="사진")
    publish(dataset)
    actions.make_sample(dataset)
    answer = api(None).get("/api/v1/datasets/photos/croissant")
    assert answer["Content-Type"].startswith("application/ld+json")
    document = json.loads(answer.content)
    check_croissant(document)
    assert document["name"] == "photos"
    sample = Sample.objects.get(dataset=dataset)
    [archive] = [each for each in document["distribution"] if "sha256" in each]
    assert archive["sha256"] == sample.sha256
    # What it says is in the sample is in the sample, and the address gives the sample.
    place = re.sub(r"^https?://[^/]+", "", archive["contentUrl"])
    sent = api(None).get(place)
    assert sent.status_code == 200
    with zipfile.ZipFile(io.BytesIO(sent.getvalue())) as packed:
        names = packed.namelist()
        for each in document["distribution"]:
            if each["@type"] == "cr:FileObject" and "containedIn" in each:
                assert each["contentUrl"] in names
                header = packed.read(each["contentUrl"]).decode().splitlines()[0].split(",")
            if each["@type"] == "cr:FileSet":
                end = each["includes"].removeprefix("**/*")
                assert sum(name.endswith(end) for name in names) > 5
    fields = document["recordSet"][0]["field"]
    assert {each["name"] for each in fields} <= set(header)


def test_croissant_without_a_sample_and_with_hostile_words_is_sound(steward: Person) -> None:
    dataset = create(steward, title='<script>"\\', description="</script>")
    # As rows written before such characters were refused.
    Dataset.objects.update(description="\x1b[31m</script>")
    dataset.refresh_from_db()
    document = croissant.document(publish(dataset), url="http://127.0.0.1:8000/datasets/photos/")
    check_croissant(json.loads(json.dumps(document)))
    assert document["distribution"] == []


def check_croissant(document: dict[str, Any]) -> None:
    """Hold a document against Croissant 1.0: required properties, unique ids, live references."""
    assert document["@type"] == "sc:Dataset"
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    for name in ("name", "description", "license", "url", "creator", "datePublished", "version"):
        assert document[name], name
    assert re.fullmatch(r"\d+\.\d+\.\d+", document["version"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", document["datePublished"])
    required = {"cr", "sc", "dct", "recordSet", "field", "fileObject", "fileSet", "extract"}
    assert required <= set(document["@context"])
    parts = [
        *document["distribution"],
        *document["recordSet"],
        *(field for records in document["recordSet"] for field in records["field"]),
    ]
    identifiers = [part["@id"] for part in parts]
    assert len(set(identifiers)) == len(identifiers)
    for part in document["distribution"]:
        assert part["@type"] in ("cr:FileObject", "cr:FileSet")
        assert part["name"]
        assert part["encodingFormat"]
        if part["@type"] == "cr:FileObject":
            assert part["contentUrl"]
            assert "containedIn" in part or re.fullmatch(r"[0-9a-f]{64}", part["sha256"])
        if "containedIn" in part:
            assert part["containedIn"]["@id"] in identifiers
    for records in document["recordSet"]:
        for field in records["field"]:
            assert field["@type"] == "cr:Field"
            assert field["dataType"].startswith("sc:")
            assert field["source"]["fileObject"]["@id"] in identifiers
            assert field["source"]["extract"]["column"] == field["name"]


def test_the_policy_s_words_claim_no_detector_of_number_plates() -> None:
    policy = default_policy()
    assert policy.deid.redact_plates
    lines = [line for section in in_words(policy) for line in section.sentences]
    assert "In the pixels these are found and masked: text, faces." in lines
    assert "A security officer looks for number plates in each photograph and video." in lines
