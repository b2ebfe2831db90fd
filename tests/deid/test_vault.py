"""Pseudonyms: the same under one key, another under another, and never guessable without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deid import vault
from deid.vault import Pseudonyms
from policies.errors import Conflict, Invalid

KEY, OTHER = bytes(32), bytes([1]) * 32


@given(st.text(min_size=1, max_size=64))
def test_pseudonyms_have_their_form_and_follow_the_key(identifier: str) -> None:
    names, again, other = Pseudonyms(KEY), Pseudonyms(KEY), Pseudonyms(OTHER)
    assert names.patient(identifier) == again.patient(identifier) != other.patient(identifier)
    assert re.fullmatch(r"P[A-Z2-9]{15}", names.patient(identifier))
    assert len(names.accession(identifier)) <= 16
    assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", names.uid(identifier))
    assert len(names.uid(identifier)) <= 64
    assert -vault.SHIFT_DAYS <= names.date_shift(identifier) <= -1


def test_one_value_has_another_pseudonym_in_each_role() -> None:
    names = Pseudonyms(KEY)
    assert len({names.digest(domain, "7712345") for domain in ("patient", "uid", "accession")}) == 3


def test_ten_thousand_patients_do_not_collide() -> None:
    names = Pseudonyms(KEY)
    assert len({names.patient(str(number)) for number in range(10_000)}) == 10_000


def test_padding_does_not_make_another_patient() -> None:
    assert Pseudonyms(KEY).patient("123 ") == Pseudonyms(KEY).patient("123")


def test_a_key_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    vault.write_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", path.read_text())
    assert len(vault.read_key(path)) == 32
    before = path.read_text()
    with pytest.raises(Conflict):
        vault.write_key(path)
    assert path.read_text() == before


@pytest.mark.parametrize("text", ["", "00", "zz" * 32, "00" * 31, "00" * 33])
def test_a_wrong_key_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(Invalid):
        vault.read_key(tmp_path / "key")
