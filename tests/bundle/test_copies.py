"""A copy for another recipient: the same bytes but two members, and it verifies by itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import bundle
from bundle.copies import open_copy, personal
from bundle.faults import Fault
from tests.bundle.test_bundle import KEY, OTHER, PUBLIC, make, members_of


def test_each_copy_verifies_and_differs_in_its_mark_alone(tmp_path: Path) -> None:
    good = make(tmp_path)
    names = ["someone-1", "someone with a much longer name than before"]
    with good.open("rb") as stream:
        copies = personal(stream, recipients=names, signing_key=KEY)
    held = members_of(good)
    for name, own in zip(names, copies, strict=True):
        path = tmp_path / "copy.zip"
        with open_copy(good.open("rb"), own.changed()) as stream:
            # In pieces of any size it is the same.
            path.write_bytes(stream.read(7) + stream.read(100_000) + stream.read())
        answer = bundle.verify(path, PUBLIC)
        assert answer.held, answer.lines
        assert (answer.recipient, answer.bundle) == (name, own.statement_sha256)
        assert answer.released == bundle.verify(good, PUBLIC).released
        other = members_of(path)
        assert {n for n in held if held[n] != other[n]} == {
            "evidence.dsse.json",
            "ro-crate-metadata.json",
        }


def test_the_same_recipient_s_copy_is_the_bundle_itself(tmp_path: Path) -> None:
    good = make(tmp_path)
    with good.open("rb") as stream:
        [own] = personal(stream, recipients=["org-7"], signing_key=KEY)
        data = open_copy(stream, own.changed()).read()
    assert hashlib.sha256(data).digest() == hashlib.sha256(good.read_bytes()).digest()


def test_no_copy_is_made_of_what_does_not_hold(tmp_path: Path) -> None:
    good = make(tmp_path)
    with good.open("rb") as stream, pytest.raises(Fault):
        personal(stream, recipients=["x"], signing_key=OTHER)
    with good.open("rb") as stream, pytest.raises(Fault):
        open_copy(stream, {"absent.json": b""}).read()
    good.write_bytes(good.read_bytes()[:-1])
    with good.open("rb") as stream, pytest.raises(Fault):
        personal(stream, recipients=["x"], signing_key=KEY)
