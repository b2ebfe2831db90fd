"""The profile is checked, and every row of PS3.15 table E.1-1 does what the table says."""

from __future__ import annotations

from typing import Any

import pytest

from deid import profile
from deid.dicom import plan
from deid.profile import OPTION_CODES, Profile, from_document
from policies.errors import Invalid


def test_the_shipped_profiles_load() -> None:
    assert profile.shipped() == ("basic", "mammography", "research")
    for name in profile.shipped():
        assert profile.load(name).name == name


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"colour": 1}, "colour"),
        ({"options": ["retain_everything"]}, "options"),
        ({"options": ["retain_full_dates", "retain_modified_dates"]}, "options"),
        ({"options": ["retain_safe_private"]}, "safe_private"),
        ({"safe_private": {"GEMS": ["0019xx02"]}}, "safe_private"),
        ({"options": ["retain_safe_private"], "safe_private": {"G": ["00190002"]}}, "safe_private"),
        ({"options": ["retain_safe_private"], "safe_private": {"G": ["0018xx02"]}}, "safe_private"),
        ({"overrides": {"PatientName": "Q"}}, "overrides.PatientName"),
        ({"overrides": {"PatientNam": "X"}}, "overrides.PatientNam"),
        ({"keep_only": ["Rowz"]}, "keep_only.Rowz"),
        ({"head_volumes": "maybe"}, "head_volumes"),
        ({"tables": {"labels.csv": {"file": "everything"}}}, "tables.labels.csv.file"),
        ({"photos": {"faces": "yes"}}, "photos"),
    ],
)
def test_a_wrong_profile_is_refused_by_the_fields_name(
    document: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as error:
        from_document(document)
    assert error.value.field == field


def test_there_is_no_such_profile() -> None:
    with pytest.raises(Invalid, match="basic, mammography, research"):
        profile.load("resaerch")


def _only(*options: str) -> Profile:
    return from_document({"options": list(options)})


ROWS = {
    int(tag, 16): row
    for tag, row in plan.table().items()
    if tag.isalnum() and "X" not in tag and tag != "PRIVATE"
}
KINDS = ("1", "2", "3")
ALLOWED_BY_LETTER = {
    "X": {"remove"},
    "Z": {"empty"},
    "D": {"dummy", "empty"},
    "U": {"uid", "items", "empty"},
}
# Where this project goes further than the table: gone in every case, or a pseudonym.
STRICTER = plan.ALWAYS_GONE | frozenset(plan.PSEUDONYMS)


def test_the_table_has_all_rows() -> None:
    assert len(plan.table()) == 656


@pytest.mark.parametrize("kind", KINDS)
def test_the_basic_profile_follows_each_row(kind: str) -> None:
    basic = _only()
    for tag, row in ROWS.items():
        action = plan.rule_for(tag, kind, basic).action
        possible = set()
        for letter in row.basic.replace("*", "").split("/"):
            possible |= ALLOWED_BY_LETTER[letter]
        if tag in STRICTER or tag >> 16 < 8:
            assert action in {"remove", "pseudonym"}, hex(tag)
        else:
            assert action in possible, (hex(tag), row.keyword, row.basic, action)


@pytest.mark.parametrize("option", sorted(set(plan.OPTION_COLUMNS)))
def test_each_option_changes_its_rows_and_no_other(option: str) -> None:
    basic, chosen = _only(), _only(option)
    for tag, row in ROWS.items():
        before = plan.rule_for(tag, "3", basic).action
        after = plan.rule_for(tag, "3", chosen).action
        if option not in row.options or tag in STRICTER or tag >> 16 < 8:
            assert after == before, hex(tag)
        elif row.options[option] == "K":
            assert after in {"keep", "items", "age", "remove"}, (hex(tag), row.keyword, after)
        else:
            assert after in {"text", "date", "items", "content", "remove"}, (
                hex(tag),
                row.keyword,
                after,
            )


def test_dates_that_are_modified_are_never_kept_as_they_are() -> None:
    both = _only("retain_modified_dates", "retain_device")
    for tag, row in ROWS.items():
        if "retain_modified_dates" in row.options:
            assert plan.rule_for(tag, "3", both).action != "keep", hex(tag)


def test_every_option_has_its_code() -> None:
    assert {code for code, _meaning in OPTION_CODES.values()} == {
        "113101", "113102", "113103", "113104", "113105", "113106", "113107", "113108", "113109",
        "113110", "113111", "113112",
    }  # fmt: skip


def test_what_no_table_names_is_still_cleaned_by_its_vr() -> None:
    profile_ = _only()
    assert plan.by_vr(0x00185012, "LO", profile_) == "text"
    assert plan.by_vr(0x00081052, "PN", profile_) == "empty"
    assert plan.by_vr(0x0008113A, "UI", profile_) == "uid"
    for vr in ("OB", "OW", "UN", "UR", "AE"):
        assert plan.by_vr(0x00420013, vr, profile_) == "remove"


def test_the_iod_decides_what_may_stand_at_all() -> None:
    rules = plan.Plan(profile.load("research")).top("1.2.840.10008.5.1.4.1.1.2")
    assert 0x00180060 in rules  # KVP belongs to CT
    assert 0x00180081 not in rules  # echo time does not
    assert 0x00185101 not in rules  # nor a projection's view
    assert not any(tag >> 16 & 1 for tag in rules)
