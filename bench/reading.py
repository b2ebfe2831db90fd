"""Reading 100,000 small images: through the SDK, by opening each file, and as one large file.

All three are the same bytes on the same file system, staged by the stage itself. Nothing is
decoded: that would cost all of them the same, and bring every ratio nearer to one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.ratios import Ratio, in_turns
from policies.document import default_policy
from sandbox_runner import stage

FILES = 100_000
#: From a disk fewer: making and opening them takes a minute for each ten thousand of them.
COLD_FILES = 5_000
SMALLEST, LARGEST = 6_000, 14_000
REPETITIONS = 5
BLOCK = 1 << 20
#: A disk is read in the order of the rows; shuffled, it would be measured and not us.
COLD_REPETITIONS = 3


def run(folder: Path) -> list[Ratio]:
    """Measure in memory, where jobs read, and cold from a disk where that can be."""
    sys.path.insert(0, str(Path(stage.__file__).with_name("sdk")))
    memory = Path("/dev/shm")
    rows = []
    if memory.is_dir():
        place = memory / f"glovebox-bench-{os.getpid()}"
        with _staged(place / "source", place, FILES) as (target, large):
            rows += _measure("memory", target, large, drop=None)
    drop = dropper()
    if drop is None:
        print("  not measured: a cold disk (needs root, to drop what the kernel holds of it)")
        return rows
    with _staged(folder / "source", folder / "staged", COLD_FILES) as (target, large):
        rows += _measure("cold disk", target, large, drop=drop)
    return rows


@contextlib.contextmanager
def _staged(source: Path, place: Path, files: int) -> Iterator[tuple[Path, Path]]:
    """Give a staged dataset of small images, and the one large file of all their bytes."""
    write_images(source, files)
    manifest = stage.manifest_of(source, "images", "1")
    packed = dataclasses.replace(default_policy().staging, pack_files=files)
    target = place / "images"
    try:
        stage.stage(manifest, stage.open_in(source), target, policy=packed)
        shutil.rmtree(source)
        shards = stage.shards_of(target)
        if shards is None or len(list(shards.glob("shard-*"))) != 1:
            raise RuntimeError("the images do not lie in one shard")
        # The very bytes: a copy of them may lie in memory that is faster or slower to reach.
        yield target, shards / "shard-00000"
    finally:
        stage.unstage(target)
        shutil.rmtree(place, ignore_errors=True)


def write_images(source: Path, files: int) -> None:
    """Write so many files of random bytes, 100 a subject, and their labels."""
    draw = random.Random(1)
    noise = os.urandom(BLOCK)
    source.mkdir(parents=True)
    lines = ["file,subject,label,split"]
    for number in range(files):
        name = f"s{number // 100:04d}/{number % 100:02d}.png"
        size = draw.randint(SMALLEST, LARGEST)
        start = draw.randrange(BLOCK - size)
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(noise[start : start + size])
        lines.append(f"{name},s{number // 100:04d},a,train")
    (source / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def dropper() -> Callable[[], None] | None:
    """Return what makes the kernel forget the files that it has read, None where we may not."""
    switch = Path("/proc/sys/vm/drop_caches")

    def drop() -> None:
        os.sync()
        switch.write_text("3", encoding="ascii")

    try:
        drop()
    except OSError:
        return None
    return drop


def _measure(where: str, target: Path, large: Path, drop: Callable[[], None] | None) -> list[Ratio]:
    from glovebox.datasets import open_dataset
    from glovebox.shards import Shards

    data = open_dataset(target, "images", stage.shards_of(target))
    rows = data.split("train")
    paths = [str(target / row["file"]) for row in rows]
    # The names are looked up in a table that is made once; it is not what is measured.
    assert data.shards is not None
    assert data.shards.numbers
    total = large.stat().st_size
    shuffled = random.Random(2).sample(rows, len(rows))

    def each_file() -> int:
        count = 0
        for path in paths:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - the fastest that Python has
                count += len(file.read())
        return count

    passes: list[Any] = []

    def prepare() -> None:
        # Nothing is read or mapped yet, and where each row stands has been looked up.
        assert data.shards is not None
        fresh = [dataclasses.replace(data, shards=Shards(data.shards.folder)) for _way in range(2)]
        passes[:] = [fresh[0].stream("train"), fresh[1].views("train")]

    def first_pass() -> int:
        return sum(len(content) for _row, content in passes[0])

    def first_views() -> int:
        return sum(len(content) for _row, content in passes[1])

    def one_by_one() -> int:
        return sum(len(data.read(row)) for row in rows)

    def any_order() -> int:
        return sum(len(data.read(row)) for row in shuffled)

    def stream() -> int:
        return sum(len(content) for _row, content in data.stream("train"))

    def one_large_file() -> int:
        count = 0
        with large.open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                count += len(block)
        return count

    processor: dict[str, list[float]] = {}

    def timed(name: str, read: Callable[[], int]) -> Callable[[], float]:
        def once() -> float:
            prepare()
            if drop is not None:
                drop()
            began, before = time.perf_counter(), time.process_time()
            count = read()
            seconds = time.perf_counter() - began
            processor.setdefault(name, []).append(time.process_time() - before)
            if count != total:
                raise RuntimeError(f"{name} read {count} bytes of {total}")
            return seconds

        return once

    # From a disk only a first pass is cold: the kernel does not forget what is mapped.
    ways = {
        "each file": each_file,
        "first pass": first_pass,
        # Later passes of views are not measured: nothing is read until somebody looks at them.
        "first pass, views": first_views,
        "large file": one_large_file,
    }
    if drop is None:
        ways |= {"stream": stream, "read": one_by_one, "any order": any_order}
    repetitions = REPETITIONS if drop is None else COLD_REPETITIONS
    measured = in_turns({name: timed(name, way) for name, way in ways.items()}, repetitions)
    print(f"  {where}: {len(rows):,} files, {total / 1e6:,.0f} MB")
    ratios = []
    for kind, by in (("wall clock", measured), ("processor", processor)):
        by = {name: values[-repetitions:] for name, values in by.items()}
        for name in ways:
            if name in ("each file", "large file"):
                continue
            for base in ("each file", "large file"):
                ours = [total / 1e6 / value for value in by[name]]
                others = [total / 1e6 / value for value in by[base]]
                about = f"{where}, {name} against {base}, {kind}"
                ratios.append(Ratio(about, "MB/s", "higher", name, ours, base, others))
        if drop is not None:
            break  # a disk is waited for
    return ratios
