"""The door in: verified, without the sealed split, whole or not at all."""

from __future__ import annotations

import dataclasses
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from policies.errors import Invalid
from sandbox_runner.spec import DatasetManifest, ManifestEntry
from sandbox_runner.stage import (
    DataFault,
    is_sealed,
    manifest_of,
    open_in,
    stage,
    sweep,
    unstage,
)


def staged_files(target: Path) -> set[str]:
    return {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}


def test_nothing_of_the_sealed_split_is_staged(dataset: Path, tmp_path: Path) -> None:
    target = stage(manifest_of(dataset, "mini", "1"), open_in(dataset), tmp_path / "in" / "mini")

    assert staged_files(target) == {
        "dataset.toml",
        "labels.csv",
        "clinical.csv",
        "s1/1.png",
        "s1/1.json",
        # Without a row of its own nobody said whose it is; a published version says it.
        "s2/1.json",
    }
    for table in ("labels.csv", "clinical.csv"):
        text = (target / table).read_text(encoding="utf-8")
        assert "s1" in text
        assert "s2" not in text


def test_a_clinical_table_that_names_its_subject_otherwise_loses_sealed_rows(
    dataset: Path, tmp_path: Path
) -> None:
    (dataset / "clinical.csv").write_text("grp,recvid,left1\n1,s1,2\n2,s2,5\n", encoding="utf-8")

    target = stage(manifest_of(dataset, "mini", "1"), open_in(dataset), tmp_path / "in" / "mini")

    assert (target / "clinical.csv").read_text(encoding="utf-8") == "grp,recvid,left1\n1,s1,2\n"


def test_a_file_without_a_split_goes_with_its_sealed_subject(dataset: Path, tmp_path: Path) -> None:
    manifest = manifest_of(dataset, "mini", "1")
    owned = tuple(
        dataclasses.replace(entry, subject=entry.path.split("/")[0]) if "/" in entry.path else entry
        for entry in manifest.entries
    )

    target = stage(
        dataclasses.replace(manifest, entries=owned), open_in(dataset), tmp_path / "in" / "mini"
    )

    assert not any(path.startswith("s2/") for path in staged_files(target))


def test_with_sealed_everything_is_staged(dataset: Path, tmp_path: Path) -> None:
    target = stage(
        manifest_of(dataset, "mini", "1"), open_in(dataset), tmp_path / "in" / "mini", sealed=True
    )

    assert staged_files(target) == staged_files(dataset)
    assert (target / "labels.csv").read_bytes() == (dataset / "labels.csv").read_bytes()


@pytest.mark.parametrize("word", ["sealed", "Sealed ", "test", "holdout", "SEALED"])
def test_every_split_but_the_open_ones_is_sealed(word: str) -> None:
    assert is_sealed(word)


@pytest.mark.parametrize("word", ["", "train", "validation", " Train"])
def test_open_splits_are_open(word: str) -> None:
    assert not is_sealed(word)


def test_what_is_staged_is_read_only_behind_a_private_directory(
    dataset: Path, tmp_path: Path
) -> None:
    target = stage(manifest_of(dataset, "mini", "1"), open_in(dataset), tmp_path / "in" / "mini")

    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in target.rglob("*")}
    assert modes == {0o444, 0o555}


@pytest.mark.parametrize("change", ["content", "length", "digest"])
def test_a_changed_file_stages_nothing(dataset: Path, tmp_path: Path, change: str) -> None:
    manifest = manifest_of(dataset, "mini", "1")
    if change == "content":
        (dataset / "s1" / "1.png").write_bytes(b"picture of s9")
    else:
        wrong = {"length": {"bytes": 3}, "digest": {"sha256": "0" * 64}}[change]
        entries = tuple(
            dataclasses.replace(each, **wrong) if each.path == "s1/1.png" else each
            for each in manifest.entries
        )
        manifest = dataclasses.replace(manifest, entries=entries)

    with pytest.raises(DataFault) as error:
        stage(manifest, open_in(dataset), tmp_path / "in" / "mini")

    assert "s1" not in str(error.value), "no name of a file in an error"
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.parametrize("path", ["../escape", "/etc/escape", "a/../../escape", "a\0b", ".hidden"])
def test_a_path_that_climbs_out_stages_nothing(tmp_path: Path, path: str) -> None:
    entry = ManifestEntry(path, "0" * 64, 1)

    with pytest.raises(DataFault):
        stage(
            DatasetManifest("mini", "1", (entry,)),
            lambda _: io.BytesIO(b"x"),
            tmp_path / "in" / "mini",
        )

    assert list((tmp_path / "in").iterdir()) == []


def test_staging_twice_reads_once(dataset: Path, tmp_path: Path) -> None:
    manifest = manifest_of(dataset, "mini", "1")
    target = tmp_path / "in" / "mini"
    stage(manifest, open_in(dataset), target)

    def refuse(entry: ManifestEntry) -> BinaryIO:
        raise AssertionError("opened again")

    assert stage(manifest, refuse, target) == target


def test_another_version_replaces_what_stood_there(dataset: Path, tmp_path: Path) -> None:
    target = tmp_path / "in" / "mini"
    stage(manifest_of(dataset, "mini", "1"), open_in(dataset), target)
    (dataset / "s1" / "1.png").write_bytes(b"new")

    stage(manifest_of(dataset, "mini", "2"), open_in(dataset), target)

    assert (target / "s1" / "1.png").read_bytes() == b"new"


def test_a_killed_staging_leaves_nothing_under_its_name_and_is_swept(
    dataset: Path, tmp_path: Path
) -> None:
    manifest = manifest_of(dataset, "mini", "1")
    target = tmp_path / "in" / "mini"
    pid = os.fork()
    if pid == 0:

        def die(entry: ManifestEntry) -> BinaryIO:
            if entry.path == "s1/1.png":
                os._exit(9)
            return (dataset / entry.path).open("rb")

        stage(manifest, die, target)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert not target.exists()

    assert sweep(target.parent) == 1
    assert list(target.parent.iterdir()) == []


def test_unstaging_removes_all_of_it_and_may_be_repeated(dataset: Path, tmp_path: Path) -> None:
    target = stage(manifest_of(dataset, "mini", "1"), open_in(dataset), tmp_path / "in" / "mini")

    unstage(target)
    unstage(target)

    assert list(target.parent.iterdir()) == []


def test_a_directory_with_a_link_is_no_dataset(dataset: Path) -> None:
    (dataset / "s1" / "link.png").symlink_to("/etc/passwd")

    with pytest.raises(Invalid):
        manifest_of(dataset, "mini", "1")


def test_the_digest_of_a_manifest_does_not_depend_on_order(dataset: Path) -> None:
    manifest = manifest_of(dataset, "mini", "1")
    turned = dataclasses.replace(manifest, entries=tuple(reversed(manifest.entries)))

    assert turned.digest() == manifest.digest()
    assert dataclasses.replace(manifest, version="2").digest() != manifest.digest()
