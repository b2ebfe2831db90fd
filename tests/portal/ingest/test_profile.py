"""A dataset's policy reaches the program that de-identifies."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest

from deid import profile as profiles
from policies.document import PROFILE_ORDER, default_policy
from policies.errors import Invalid
from portal.catalog import actions as catalog
from portal.ingest import profile
from tests.portal.ingest.flow import Crew

pytestmark = pytest.mark.django_db


def test_the_policy_knows_exactly_the_profiles_that_ship() -> None:
    assert set(PROFILE_ORDER) == set(profiles.shipped())


@pytest.mark.parametrize("name", PROFILE_ORDER)
def test_every_profile_cleans_pixels_and_faces(name: str) -> None:
    options = profiles.load(name).options
    assert {"clean_pixel_data", "clean_recognizable_visual_features"} <= options


@pytest.mark.parametrize("what", ["text", "faces", "plates"])
def test_the_policy_says_what_is_masked_in_photographs(people: Crew, what: str) -> None:
    text = profile.document(people.version.dataset)
    assert profiles.from_document(tomllib.loads(text)).photos == {
        "text": True,
        "faces": True,
        "plates": True,
    }
    loose = dataclasses.replace(default_policy().deid, **{f"redact_{what}": False})
    shipped = "name = 'x'\noptions = []\n"
    photos = profiles.from_document(tomllib.loads(profile.with_photos(shipped, loose))).photos
    assert [name for name, masked in photos.items() if not masked] == [what]


@pytest.mark.parametrize(
    ("asked", "policy", "taken"),
    [
        ("research", {}, "research"),
        ("basic", {}, "basic"),
        ("research", {"deid": {"profile": "basic"}}, "basic"),
        ("mammography", {"deid": {"profile": "basic"}}, "mammography"),
    ],
)
def test_the_stricter_profile_is_taken(
    people: Crew, asked: str, policy: dict[str, object], taken: str
) -> None:
    dataset = catalog.create_dataset(
        by=people.steward, slug="new", kind="mammography", title="New", description="New.",
        profile=asked, policy=policy,
    )  # fmt: skip
    assert dataset.deid_profile == taken
    assert profile.name_of(dataset) == taken
    assert tomllib.loads(profile.document(dataset))["name"] == taken


def test_a_dataset_cannot_loosen_what_is_masked(people: Crew) -> None:
    for policy in ({"deid": {"redact_faces": False}}, {"deid": {"profile": "strict"}}):
        with pytest.raises(Invalid):
            catalog.create_dataset(
                by=people.steward, slug="new", kind="photos", title="N", description="N.",
                policy=policy,
            )  # fmt: skip
