"""Many small files in shards: the same bytes by the same names, and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import multiprocessing
import os
import pickle
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.document import Policy, StagingPolicy, default_policy, tighten
from policies.errors import Invalid
from sandbox_runner import filling, packing, stage
from sandbox_runner.backends.choice import missing
from sandbox_runner.lifecycle import run_job
from sandbox_runner.packing import ShardWriter, write_run
from sandbox_runner.spec import DatasetManifest, JobSpec, ManifestEntry

sys.path.insert(0, str(Path(__file__).parents[2] / "sandbox_runner" / "sdk"))

from glovebox.datasets import Dataset, open_dataset
from glovebox.shards import DamagedShards, Shards

PACKED = StagingPolicy(warm=0, paths=True, pack_files=1, pack_file_bytes=1 << 17)
ALONE = dataclasses.replace(PACKED, paths=False)


def content_of(number: int) -> bytes:
    return f"<{number}>".encode() * (10 + number)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A dataset of 300 small files, 30 of them sealed, and one that is not small."""
    home = tmp_path / "many"
    lines = ["file,subject,label,split"]
    for number in range(300):
        name, split = f"s{number // 10:02d}/{number}.bin", "sealed" if number < 30 else "train"
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content_of(number))
        lines.append(f"{name},s{number // 10:02d},a,{split}")
    (home / "large.bin").write_bytes(b"x" * (PACKED.pack_file_bytes + 1))
    (home / "empty.bin").write_bytes(b"")
    (home / "dataset.toml").write_text('kind = "photos"\n', encoding="utf-8")
    (home / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return home


def staged(home: Path, parent: Path, policy: StagingPolicy | None) -> Dataset:
    manifest = stage.manifest_of(home, "many", "1")
    target = stage.stage(manifest, stage.open_in(home), parent / "many", policy=policy)
    return open_dataset(target, "many", stage.shards_of(target))


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("policy", [None, PACKED, ALONE], ids=["paths", "both", "shards"])
def test_user_code_reads_the_same_whatever_the_form(
    many: Path, tmp_path: Path, policy: StagingPolicy | None
) -> None:
    data = staged(many, tmp_path / "in", policy)

    assert (data.shards is None) == (policy is None)
    assert len(data) == 270
    for number, row in enumerate(data.rows, start=30):
        wanted = content_of(number)
        assert data.read(row) == wanted
        assert data.size(row) == len(wanted)
        with data.open(row) as file:
            assert file.seek(10) == 10
            assert file.read() == wanted[10:]
        assert data.file(row).read_bytes() == wanted
    backwards = data.rows[::-1]
    assert [content for _row, content in data.stream(backwards)] == [
        content_of(number) for number in range(299, 29, -1)
    ]
    assert [row for row, _content in data.stream("train")] == list(data.rows)
    for _epoch in range(3):
        views = list(data.views("train"))
        assert [row for row, _view in views] == list(data.rows)
        assert [bytes(view) for _row, view in views] == [content_of(n) for n in range(30, 300)]
        assert all(view.readonly for _row, view in views)
    for name in ("large.bin", "empty.bin"):
        assert data.read({"file": name}) == (many / name).read_bytes()


def test_a_second_pass_reads_mapped_memory_and_the_same_bytes(many: Path, tmp_path: Path) -> None:
    data = staged(many, tmp_path / "in", ALONE)
    assert data.shards is not None
    wanted = [content_of(number) for number in range(30, 300)]

    for _epoch in range(3):
        assert [content for _row, content in data.stream("train")] == wanted
        assert [data.read(row) for row in data.rows] == wanted

    assert str(data.shards.folder / "shard-00000") in Path("/proc/self/maps").read_text()
    assert pickle.loads(pickle.dumps(data)).read(data.rows[0]) == wanted[0]


def test_rows_that_are_packed_and_rows_that_are_not_come_in_their_order(
    many: Path, tmp_path: Path
) -> None:
    data = staged(many, tmp_path / "in", ALONE)
    names = ["s10/100.bin", "large.bin", "./s11/110.bin", "s12/120.bin", "empty.bin"]

    read = [content for _row, content in data.stream([{"file": name} for name in names])]

    assert read == [(many / name).read_bytes() for name in names]


def test_a_file_that_is_not_there_is_named(many: Path, tmp_path: Path) -> None:
    for policy in (None, PACKED):
        data = staged(many, tmp_path / f"in-{policy is None}", policy)
        for read in (data.read, data.open, data.size, data.load):
            with pytest.raises(FileNotFoundError, match=r"s99/1\.png"):
                read({"file": "s99/1.png"})
        with pytest.raises(ValueError, match="column called file"):
            data.read({"name": "s10/100.bin"})
        with pytest.raises(ValueError, match=r"s10/100\.bin of many"):
            data.load({"file": "s10/100.bin"})


@pytest.mark.parametrize("seed", range(40))
def test_a_staging_killed_at_any_moment_is_whole_or_nothing(
    seed: int, many: Path, tmp_path: Path
) -> None:
    manifest = stage.manifest_of(many, "many", "1")
    target = tmp_path / "in" / "many"
    (ready, told) = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(told, b"!")
        with contextlib.suppress(BaseException):
            while True:
                stage.stage(manifest, stage.open_in(many), target, policy=PACKED)
                stage.unstage(target)
        os._exit(1)
    os.read(ready, 1)
    time.sleep(seed * 0.004)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for end in (ready, told):
        os.close(end)

    whole = stage.staged(target) is not None
    if whole:
        data = open_dataset(target, "many", stage.shards_of(target))
        assert {row["file"]: data.read(row) for row in data.rows} == {
            f"s{number // 10:02d}/{number}.bin": content_of(number) for number in range(30, 300)
        }
    if target.parent.is_dir():
        assert stat.S_IMODE(target.parent.stat().st_mode) == 0o700
        stage.sweep(target.parent)
        assert target.exists() == whole, "what stands under the name is the whole version"
        stage.unstage(target)
        assert list(target.parent.iterdir()) == []


def test_small_files_stand_under_their_paths_unless_the_policy_says_no(
    many: Path, tmp_path: Path
) -> None:
    both = staged(many, tmp_path / "both", PACKED)
    alone = staged(many, tmp_path / "alone", ALONE)

    assert files_below(both.path) == {
        name for name in files_below(many) if name[:3] not in ("s00", "s01", "s02")
    }
    assert files_below(alone.path) == {"labels.csv", "dataset.toml", "large.bin"}
    assert {name for name in files_below(both.path.parent) if not name.startswith(".many.")} == {
        f"many/{name}" for name in files_below(both.path)
    }, "shards lie beside the dataset, not in it"


def test_nothing_sealed_is_in_the_shards(many: Path, tmp_path: Path) -> None:
    data = staged(many, tmp_path / "in", PACKED)
    assert data.shards is not None

    assert not any(name[:3] in ("s00", "s01", "s02") for name in data.shards.numbers)
    packed = b"".join(shard.read_bytes() for shard in data.shards.folder.glob("shard-*"))
    assert content_of(30) in packed
    assert not any(f"<{number}>".encode() in packed for number in range(30))


def test_few_small_files_are_not_packed(many: Path, tmp_path: Path) -> None:
    data = staged(many, tmp_path / "in", dataclasses.replace(PACKED, pack_files=273))

    assert data.shards is None
    assert staged(many, tmp_path / "in2", dataclasses.replace(PACKED, pack_files=271)).shards


def test_what_is_in_shards_is_read_only_and_verifies(many: Path, tmp_path: Path) -> None:
    data = staged(many, tmp_path / "in", PACKED)
    assert data.shards is not None
    folder = data.shards.folder

    data.shards.verify()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o555
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_unstaging_removes_the_shards_too(many: Path, tmp_path: Path) -> None:
    data = staged(many, tmp_path / "in", PACKED)

    stage.unstage(data.path)

    assert list((tmp_path / "in").iterdir()) == []


def test_another_version_without_shards_leaves_no_old_ones(many: Path, tmp_path: Path) -> None:
    staged(many, tmp_path / "in", PACKED)
    (many / "large.bin").write_bytes(b"new")

    assert staged(many, tmp_path / "in", None).shards is None


@pytest.mark.parametrize("change", ["shard", "short", "names", "index", "about", "format"])
def test_changed_shards_are_found(
    many: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "SHARD_BYTES", 4096)
    folder = staged(many, tmp_path / "in", PACKED).shards.folder  # type: ignore[union-attr]
    name = {"short": "shard-00000", "shard": "shard-00000", "about": "shards.json"}.get(change)
    place = folder / ("shards.json" if change == "format" else name or change)
    place.chmod(0o600)
    content = bytearray(place.read_bytes())
    if change == "format":
        content = bytearray(content.replace(b"glovebox-shards-1", b"glovebox-shards-9"))
    elif change in ("short", "about"):
        del content[-5:]
    else:
        content[7] ^= 1
    place.write_bytes(content)

    with pytest.raises(DamagedShards):
        Shards(folder).verify()


def test_a_shard_that_becomes_shorter_is_an_error_and_not_fewer_bytes(
    many: Path, tmp_path: Path
) -> None:
    data = staged(many, tmp_path / "in", PACKED)
    shard = next(data.shards.folder.glob("shard-*"))  # type: ignore[union-attr]
    shard.chmod(0o600)
    os.truncate(shard, 100)

    for read in (lambda: data.read(data.rows[-1]), lambda: list(data.stream("train"))):
        with pytest.raises(DamagedShards):
            read()


def _sum_of(data: Dataset, start: int) -> int:
    return sum(sum(data.read(row)) for row in data.rows[start::2])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_share_a_dataset(many: Path, tmp_path: Path, method: str) -> None:
    data = staged(many, tmp_path / "in", ALONE)
    wanted = [_sum_of(data, start) for start in (0, 1)]

    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap(_sum_of, [(data, 0), (data, 1)]) == wanted


def test_a_dataset_may_be_pickled(many: Path, tmp_path: Path) -> None:
    data = staged(many, tmp_path / "in", ALONE)

    again = pickle.loads(pickle.dumps(data))

    assert again.read(again.rows[0]) == data.read(data.rows[0])


@settings(deadline=None, max_examples=60)
@given(
    contents=st.lists(st.binary(max_size=60), max_size=30),
    shard_bytes=st.integers(1, 100),
    data=st.data(),
)
def test_any_files_come_back_in_any_order(
    contents: list[bytes],
    shard_bytes: int,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    writer = ShardWriter(folder, shard_bytes)
    cut = data.draw(st.integers(0, len(contents)))
    for first, after in ((0, cut), (cut, len(contents))):
        files = [
            (f"{number}/a.bin", len(content), hashlib.sha256(content).digest())
            for number, content in enumerate(contents)
        ][first:after]
        for run in writer.place(files):
            write_run(run, contents[first + run.first : first + run.after])
    writer.finish()
    shards = Shards(folder)
    shards.verify()
    order = data.draw(st.lists(st.sampled_from(range(len(contents))))) if contents else []

    assert len(shards) == len(contents)
    wanted = [contents[number] for number in order]
    views = list(shards.views(order))
    assert [bytes(view) for view in views] == wanted
    assert all(view.readonly for view in views)
    assert list(shards.stream(order)) == wanted
    assert [shards.read(number) for number in order] == wanted
    assert [bytes(view) for view in shards.views(order)] == wanted
    assert [shards.numbers[f"{number}/a.bin"] for number in order] == order


@pytest.mark.parametrize("at", [0, 1, 150, 271])
def test_a_changed_small_file_stages_nothing(many: Path, tmp_path: Path, at: int) -> None:
    manifest = stage.manifest_of(many, "many", "1")
    entry = [each for each in manifest.entries if each.path.endswith(".bin")][at]
    if entry.path.startswith("s0") and int(entry.path[1:3]) < 3:
        entry = next(each for each in manifest.entries if each.path == "s29/299.bin")
    (many / entry.path).write_bytes(b"?" * entry.bytes if entry.bytes else b"?")

    with pytest.raises(stage.DataFault) as error:
        stage.stage(manifest, stage.open_in(many), tmp_path / "in" / "many", policy=PACKED)

    assert entry.path not in str(error.value)
    assert list((tmp_path / "in").iterdir()) == []


def test_a_full_disk_stages_nothing_and_says_how_much_is_needed(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = stage.manifest_of(many, "many", "1")
    entry = ManifestEntry("huge.bin", "0" * 64, 1 << 50)
    huge = dataclasses.replace(manifest, entries=(*manifest.entries, entry))

    def unopened(entry: ManifestEntry) -> BinaryIO:
        assert entry.path == "labels.csv", "decrypted although there is no room"
        return stage.open_in(many)(entry)

    with pytest.raises(stage.NoRoom, match="1073741"):
        stage.stage(huge, unopened, tmp_path / "in" / "many", policy=PACKED)
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.parametrize("policy", [None, PACKED, ALONE], ids=["paths", "both", "shards"])
def test_a_disk_that_fills_up_in_between_leaves_nothing(
    many: Path, tmp_path: Path, policy: StagingPolicy | None, small_disk: Callable[[int], Path]
) -> None:
    for number in range(200):
        (many / f"filler{number}.bin").write_bytes(b"y" * 20_000)
    manifest = stage.manifest_of(many, "many", "1")
    disk = small_disk(12 << 20)
    others = disk / "others"

    def fill_up(entry: ManifestEntry) -> BinaryIO:
        # Somebody else takes the room between our look at it and our writing.
        if entry.path == "filler100.bin" and not others.exists():
            with others.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"z" * 65536):
                    pass
        return stage.open_in(many)(entry)

    with pytest.raises(stage.NoRoom, match="became full"):
        stage.stage(manifest, fill_up, disk / "in" / "many", policy=policy)

    assert list((disk / "in").iterdir()) == []


def test_files_that_cannot_stand_beside_each_other_are_refused(tmp_path: Path) -> None:
    for paths in (("a", "a/b"), ("a", "a"), ("a/b/c", "a/b")):
        entries = tuple(ManifestEntry(path, "0" * 64, 1) for path in paths)
        with pytest.raises(stage.DataFault):
            stage.stage(
                DatasetManifest("many", "1", entries), lambda _: None, tmp_path / "in" / "x"
            )
        assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["a\nb.bin", ".hidden.bin", "a\u202eb.bin", os.fsdecode(b"\xff.bin"), "-rf", "a:b.bin"]
)
def test_a_directory_with_an_odd_name_is_refused_with_why(many: Path, name: str) -> None:
    (many / name).write_bytes(b"x")

    with pytest.raises(Invalid, match="cannot be staged") as error:
        stage.manifest_of(many, "many", "1")
    assert name not in str(error.value)


@pytest.mark.parametrize("kind", ["link", "pipe", "gone", "directory"])
def test_a_file_that_is_swapped_after_the_manifest_is_not_followed(
    many: Path, tmp_path: Path, kind: str
) -> None:
    manifest = stage.manifest_of(many, "many", "1")
    place = many / "s10" / "100.bin"
    (tmp_path / "same").write_bytes(place.read_bytes())
    place.unlink()
    if kind == "link":
        place.symlink_to(tmp_path / "same")
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()

    with pytest.raises(stage.DataFault):
        stage.stage(manifest, stage.open_in(many), tmp_path / "in" / "many", policy=PACKED)
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.parametrize(
    "spelling", ["./s10/100.bin", "s10//100.bin", " s10/100.bin", "S10/100.BIN", "s10\\100.bin"]
)
def test_a_sealed_row_that_spells_its_file_otherwise_still_seals_it(
    many: Path, tmp_path: Path, spelling: str
) -> None:
    labels = many / "labels.csv"
    text = labels.read_text(encoding="utf-8")
    row = "s10/100.bin,s10,a,train"
    assert row in text
    labels.write_text(text.replace(row, f"{spelling},other,a,sealed"), encoding="utf-8")

    data = staged(many, tmp_path / "in", PACKED)

    assert data.shards is not None
    assert "s10/100.bin" not in data.shards.numbers
    assert not (data.path / "s10/100.bin").exists()
    assert (data.path / "s10/101.bin").exists()


def test_a_steward_may_leave_less_in_plain_and_not_more() -> None:
    base = default_policy()
    assert base.deployment.warm == 0
    tighter = tighten(base, {"staging": {"paths": False, "pack_files": 10}})
    assert tighter.staging.paths is False
    for looser in ({"warm": "2h"}, {"pack_files": 10_000_000}, {"pack_file_bytes": "1Ki"}):
        with pytest.raises(Invalid) as error:
            tighten(base, {"staging": looser})
        assert error.value.field.startswith("staging.")
    with pytest.raises(Invalid):
        tighten(tighter, {"staging": {"paths": True}})


def test_every_thread_has_ended_when_staging_fails(many: Path, tmp_path: Path) -> None:
    manifest = stage.manifest_of(many, "many", "1")

    def fails(entry: ManifestEntry) -> BinaryIO:
        if entry.path == "s10/100.bin":
            raise OSError(errno.EIO, "the object store is gone")
        return stage.open_in(many)(entry)

    with pytest.raises(OSError, match="gone"):
        stage.stage(manifest, fails, tmp_path / "in" / "many", policy=PACKED)

    assert not [each for each in threading.enumerate() if each.name.startswith("stage")]
    assert list((tmp_path / "in").iterdir()) == []
    assert filling.THREADS > 1


READS = """
import os, glovebox
data = glovebox.dataset("mini")
assert data.shards is not None
assert [data.read(row) for row in data.rows] == [b"picture of s1"]
assert [content for _row, content in data.stream("train")] == [b"picture of s1"]
assert not os.path.exists("/data/mini/s1/1.png")
assert data.file(data.rows[0]).read_bytes() == b"picture of s1"
try:
    open(next(data.shards.folder.glob("shard-*")), "ab")
except OSError:
    glovebox.save_weights({})
"""


@pytest.mark.sandbox
@pytest.mark.parametrize("name", ["bubblewrap", "gvisor"])
def test_a_sealed_job_reads_its_shards_and_cannot_write_them(
    name: str, job: Callable[..., JobSpec], policy: Policy, tmp_path: Path
) -> None:
    if missing(name):
        pytest.skip(f"{name} is not whole here")
    packed = dataclasses.replace(policy, staging=ALONE)
    spec = dataclasses.replace(job(READS), backend=name)

    outcome = run_job(spec, packed, tmp_path / "work")

    assert (outcome.state, outcome.reason) == ("finished", "exit"), outcome
    assert [artefact.path for artefact in outcome.artefacts] == ["model.safetensors"]
    assert not list((tmp_path / "work").glob("data*")), "nothing staged is left"


def test_a_job_without_room_for_its_data_fails_with_the_figures(
    job: Callable[..., JobSpec],
    policy: Policy,
    dataset: Path,
    tmp_path: Path,
    small_disk: Callable[[int], Path],
) -> None:
    (dataset / "s1" / "2.png").write_bytes(b"x" * (4 << 20))
    work = small_disk(3 << 20) / "work"

    outcome = run_job(job("pass"), policy, work)

    assert (outcome.state, outcome.reason) == ("failed", "data")
    assert "5 MiB" in outcome.detail
    assert sorted(path.name for path in work.iterdir()) == ["outcome.json"]
