"""Packs: what was written is read, and nothing that was changed, moved or swapped."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal import blobs, keys, packs
from portal.blobs import Damaged, DiskFull
from portal.object_store import path_of

pytestmark = pytest.mark.usefixtures("portal_home")

CONTENTS = [b"one of A", b"", b"two of A" * 900, b"of B", os.urandom(70_000), b"last of B"]


def packed(
    contents: list[bytes], owners: list[bytes]
) -> tuple[str, list[packs.Member], packs.Written]:
    name = packs.new_name(bytes(32))
    written = packs.write(zip(owners, contents, strict=True), name=name)
    members = [
        packs.Member(owner, offset, len(content))
        for owner, offset, content in zip(owners, written.offsets, contents, strict=True)
    ]
    return name, members, written


@pytest.fixture
def owners() -> list[bytes]:
    one, other = keys.new_key(), keys.new_key()
    return [one, one, one, other, other, other]


@given(
    contents=st.lists(st.binary(max_size=300), min_size=1, max_size=20),
    people=st.lists(st.integers(0, 3), min_size=20, max_size=20),
    data=st.data(),
)
@settings(max_examples=40)
def test_any_members_are_read_in_any_order(
    contents: list[bytes], people: list[int], data: st.DataObject
) -> None:
    them = [bytes([number]) * 32 for number in people[: len(contents)]]
    name, members, written = packed(contents, them)
    asked = data.draw(st.lists(st.sampled_from(range(len(contents))), max_size=30))

    read = list(packs.read(name, [members[number] for number in asked], size=written.bytes))

    assert read == [contents[number] for number in asked]
    assert path_of(name).stat().st_size == written.bytes


def test_far_members_are_read_apart_and_near_ones_together(
    owners: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, members, written = packed(CONTENTS, owners)
    reads = []
    pread = os.pread

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        reads.append((offset, length))
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", counted)
    monkeypatch.setattr(packs, "GAP", 1_000)
    assert list(packs.read(name, members, size=written.bytes)) == CONTENTS
    assert len(reads) == 1
    list(packs.read(name, [members[0], members[5]], size=written.bytes))

    assert [length for _offset, length in reads[1:]] == [len(CONTENTS[n]) + 16 for n in (0, 5)]


def test_every_flipped_byte_is_found(owners: list[bytes]) -> None:
    name, members, written = packed(CONTENTS[:4], owners[:4])
    whole = path_of(name).read_bytes()
    for at in range(members[0].offset, len(whole), 97):
        changed = bytearray(whole)
        changed[at] ^= 1
        path_of(name).write_bytes(changed)
        with pytest.raises(Damaged):
            list(packs.read(name, members, size=written.bytes))
    path_of(name).write_bytes(whole)
    assert list(packs.read(name, members, size=written.bytes)) == CONTENTS[:4]


@pytest.mark.parametrize("size", [0, 3, 40, -1, -16, +1, +16])
def test_no_pack_of_another_length_is_read(owners: list[bytes], size: int) -> None:
    name, members, written = packed(CONTENTS, owners)
    whole = path_of(name).read_bytes()
    path_of(name).write_bytes(whole[:size] if size <= 0 or size in (3, 40) else whole + bytes(size))

    with pytest.raises(Damaged):
        list(packs.read(name, members[:1], size=written.bytes))


def test_a_swapped_pack_is_not_read(owners: list[bytes]) -> None:
    """Even one of the same people, with members of the same lengths at the same places."""
    name, members, written = packed(CONTENTS, owners)
    other, _members, _written = packed([content[::-1] for content in CONTENTS], owners)
    path_of(other).rename(path_of(name))

    for member in members:
        with pytest.raises(Damaged):
            list(packs.read(name, [member], size=written.bytes))


def test_members_cannot_change_places(owners: list[bytes]) -> None:
    name, members, written = packed([b"first", b"other"], owners[:2])
    whole = path_of(name).read_bytes()
    first, other = (whole[m.offset : m.offset + m.length + packs.TAG] for m in members)
    path_of(name).write_bytes(whole[: members[0].offset] + other + first)

    with pytest.raises(Damaged):
        list(packs.read(name, members[:1], size=written.bytes))


def test_a_missing_pack_is_said_to_be_missing(owners: list[bytes]) -> None:
    name, members, written = packed(CONTENTS, owners)
    path_of(name).unlink()

    with pytest.raises(FileNotFoundError):
        packs.read(name, members, size=written.bytes)


def test_another_owners_key_opens_nothing(owners: list[bytes]) -> None:
    name, members, written = packed(CONTENTS, owners)

    for key in (owners[3], bytes(32), keys.new_key()):
        with pytest.raises(Damaged):
            list(packs.read(name, [members[0]._replace(key=key)], size=written.bytes))


def test_a_name_is_never_written_twice(owners: list[bytes]) -> None:
    """Its nonces are places, so that another content under it would use them again."""
    name, members, written = packed(CONTENTS, owners)

    with pytest.raises(ValueError, match="once"):
        packs.write([(owners[0], b"other")], name=name)

    assert list(packs.read(name, members, size=written.bytes)) == CONTENTS


def test_the_same_file_looks_different_in_each_pack(owners: list[bytes]) -> None:
    looks = set()
    for _time in range(3):
        name, members, _written = packed([b"the same"], owners[:1])
        looks.add(path_of(name).read_bytes()[members[0].offset :])

    assert len(looks) == 3
    assert not any(b"the same" in each for each in looks)


def test_a_full_disk_is_named_and_leaves_nothing(
    owners: list[bytes], portal_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    name = packs.new_name(bytes(32))

    with pytest.raises(DiskFull):
        packs.write([(owners[0], b"content")], name=name)

    assert not blobs.exists(name)
    assert list((portal_home / "objects" / "drafts").iterdir()) == []
