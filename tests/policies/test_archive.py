"""An archive is refused from its list of members, before a byte of it is unpacked."""

from __future__ import annotations

import pytest

from policies.document import Policy, default_policy
from policies.errors import Invalid
from policies.submission import ArchiveMember, check_archive


def file(name: str, size: int = 100, packed: int = 50) -> ArchiveMember:
    return ArchiveMember(name, size, packed, "file")


def folder(name: str) -> ArchiveMember:
    return ArchiveMember(name, 0, 0, "directory")


GOOD = [file("glovebox.toml"), folder("nets/"), file("nets/unet.py"), file("train.py")]


def test_an_ordinary_submission_passes(policy: Policy) -> None:
    assert check_archive(GOOD, policy) == ("glovebox.toml", "nets/unet.py", "train.py")


def test_korean_names_and_one_folder_listed_twice(policy: Policy) -> None:
    members = [folder("데이터/"), folder("데이터/"), file("데이터/목록.json")]
    assert check_archive(members, policy) == ("데이터/목록.json",)


@pytest.mark.parametrize(
    "name",
    [
        "../up.py",
        "a/../../up.py",
        "a/..",
        "/etc/passwd",
        "//host/share",
        "C:\\windows\\x",
        "C:x",
        "a\\b.py",
        "..\\up.py",
        "./a.py",
        "a//b.py",
        "",
        ".",
        "..",
        ".git/config",
        "a/.env",
        "__pycache__/../x",
        "-rf",
        "a/-o.py",
        "a\x00b.py",
        "a\nb.py",
        "a\x1b[31m.py",
        "a\u202egpj.py",
        "a\u200bb.py",
        "<script>.py",
        "a`id`.py",
        "a b .py/",
        "trailing.",
        "space /x.py",
        "e\u0301.py",  # decomposed
        "\ud800.py",
        "x" * 201,
        "유" * 100,
        "/".join("abcdefghijklm"),
    ],
)
def test_a_bad_name_is_refused(name: str, policy: Policy) -> None:
    with pytest.raises(Invalid) as caught:
        check_archive([*GOOD, file(name)], policy)
    assert caught.value.field == "archive"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["link", "other", "", "symlink", "FILE"])
def test_links_devices_and_unknown_kinds_are_refused(kind: str, policy: Policy) -> None:
    with pytest.raises(Invalid) as caught:
        check_archive([*GOOD, ArchiveMember("data.bin", 1, 1, kind)], policy)
    assert caught.value.code == "archive.kind"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model.py", "model.py"),
        ("model.py", "Model.py"),
        ("straße.py", "STRASSE.py"),
        ("ﬁle.py", "file.py"),
        ("Ａ.py", "a.py"),
        ("K.py", "k.py"),  # the Kelvin sign
    ],
)
def test_two_names_that_a_file_system_may_confuse(one: str, other: str, policy: Policy) -> None:
    with pytest.raises(Invalid):
        check_archive([file(one), file(other)], policy)


@pytest.mark.parametrize(
    "members",
    [
        [file("a"), file("a/b.py")],
        [file("a/b.py"), file("a")],
        [file("A"), file("a/b.py")],
        [folder("a/"), file("a")],
        [file("a"), folder("a/")],
    ],
)
def test_a_name_is_a_file_or_a_folder(members: list[ArchiveMember], policy: Policy) -> None:
    with pytest.raises(Invalid) as caught:
        check_archive(members, policy)
    assert caught.value.code == "archive.twice"


LIMITS = default_policy().submission.archive


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([file("a.bin", LIMITS.member_bytes + 1, 10**7)], "archive.size"),
        ([file("a.bin", -1, 10)], "archive.size"),
        ([file("a.bin", 10, -1)], "archive.size"),
        ([file(f"{n}.bin", 200 * 2**20, 2 * 2**20) for n in range(3)], "archive.total"),
        ([file(f"{n}.bin", 90 * 2**20, 90 * 2**20) for n in range(3)], "archive.total"),
        ([file("bomb.bin", 250 * 2**20, 1000)], "archive.ratio"),
        ([file("bomb.bin", 250 * 2**20, 0)], "archive.ratio"),
        ([file(f"{n}.py", 1, 1) for n in range(LIMITS.members + 1)], "archive.members"),
    ],
)
def test_limits_on_one_and_on_all(members: list[ArchiveMember], code: str, policy: Policy) -> None:
    with pytest.raises(Invalid) as caught:
        check_archive(members, policy)
    assert caught.value.code == code


def test_the_limits_themselves_are_allowed(policy: Policy) -> None:
    assert check_archive([file("a.bin", LIMITS.member_bytes, LIMITS.member_bytes)], policy)
    assert len(check_archive([file(f"{n}.py") for n in range(LIMITS.members)], policy)) == 2000
    # Many zeros in a small file say nothing.
    assert check_archive([file("zeros.bin", 2**20, 1100)], policy)


def test_exactly_the_total_and_exactly_the_ratio_are_allowed(policy: Policy) -> None:
    half = LIMITS.unpacked_bytes // 2
    assert check_archive([file("a.bin", half, half // 4), file("b.bin", half, half // 4)], policy)
    packed = 2**20
    assert check_archive([file("a.bin", packed * LIMITS.ratio, packed)], policy)
    with pytest.raises(Invalid):
        check_archive([file("a.bin", packed * LIMITS.ratio + 1, packed)], policy)


def test_the_longest_and_the_deepest_name_are_allowed(policy: Policy) -> None:
    names = ["x" * LIMITS.name_length, "/".join("abcdefghijkl"), "유" * 85]
    assert check_archive([file(name) for name in names], policy) == tuple(names)
    with pytest.raises(Invalid):
        check_archive([file("유" * 86)], policy)
