"""Staging a version from its encrypted objects, against dd of the same bytes with fsync.

Both begin with a cold disk and end with everything on it. Staging reads, decrypts, verifies each
chunk and each file's SHA-256 and writes; dd copies one file in blocks of a mebibyte. In use the
copy lies in memory, where there is nothing to sync: a disk is the harder case.
"""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bench.ratios import Ratio, in_turns
from bench.reading import dropper, write_images
from policies.document import StagingPolicy, default_policy
from policies.errors import CannotRun
from sandbox_runner import stage
from sandbox_runner.spec import ManifestEntry

REPETITIONS = 5
#: Mammograms: a dozen of megabytes each.
LARGE_FILES, LARGE_BYTES = 64, 12 << 20
#: Fewer than elsewhere: an object is synced when it is written, which takes longer than staging.
SMALL_FILES = 2_000


def run(folder: Path) -> list[Ratio]:
    """Measure large files, and small ones packed; the objects are written by ``portal.blobs``."""
    drop = dropper()
    if drop is None:
        raise CannotRun("A cold disk needs root, to drop what the kernel holds of it.")
    _portal(folder)
    large = folder / "large"
    large.mkdir()
    noise = os.urandom(LARGE_BYTES)
    for number in range(LARGE_FILES):
        # Random bytes, each file's own: nothing can be guessed or merged.
        (large / f"{number:03d}.dcm").write_bytes(os.urandom(64) + noise[64:])
    small = folder / "small"
    write_images(small, SMALL_FILES)
    shards = default_policy().staging
    both = dataclasses.replace(shards, pack_files=1)
    alone = dataclasses.replace(both, paths=False)
    rows = []
    for name, source, policy in (
        (f"{LARGE_FILES} files of 12 MiB", large, shards),
        (f"{SMALL_FILES:,} files of 10 kB, in shards", small, alone),
        (f"{SMALL_FILES:,} files of 10 kB, by path too", small, both),
    ):
        rows += _against_dd(name, source, policy, folder, drop)
    return rows


def _portal(folder: Path) -> None:
    """Let portal.blobs keep its objects in this folder."""
    from django.conf import settings

    if not settings.configured:
        settings.configure()
    settings.HOME = folder / "portal"
    os.environ.pop("GLOVEBOX_S3_ENDPOINT", None)  # the disk is measured, not somebody's store


def _against_dd(
    name: str, source: Path, policy: StagingPolicy, folder: Path, drop: Callable[[], None]
) -> list[Ratio]:
    from portal import blobs

    manifest = stage.manifest_of(source, "bench", "1")
    key = os.urandom(32)
    names = {
        entry.path: blobs.object_name(key, source.name, entry.path) for entry in manifest.entries
    }
    whole = folder / "whole"
    with whole.open("wb") as out:
        for entry in manifest.entries:
            content = (source / entry.path).read_bytes()
            out.write(content)
            if not blobs.exists(names[entry.path]):
                blobs.put(io.BytesIO(content), key=key, name=names[entry.path])
    total = sum(entry.bytes for entry in manifest.entries)
    processor: list[float] = []

    def opened(entry: ManifestEntry) -> BinaryIO:
        return blobs.open(names[entry.path], key=key)

    def staged() -> float:
        target = folder / "staged" / "bench"
        drop()
        began, before = time.perf_counter(), time.process_time()
        stage.stage(manifest, opened, target, policy=policy)
        _sync(folder)
        seconds = time.perf_counter() - began
        processor.append(time.process_time() - before)
        stage.unstage(target)
        return seconds

    def copied() -> float:
        drop()
        began = time.perf_counter()
        copy = folder / "copy"
        subprocess.run(
            ["dd", f"if={whole}", f"of={copy}", "bs=1M", "conv=fsync", "status=none"], check=True
        )
        seconds = time.perf_counter() - began
        copy.unlink()
        return seconds

    measured = in_turns({"staged": staged, "dd": copied}, REPETITIONS)
    rates = {way: [total / 1e6 / value for value in values] for way, values in measured.items()}
    print(f"  {name}: {total / 1e6:,.0f} MB, {min(processor):.2f} s of processor time to stage")
    return [Ratio(name, "MB/s", "higher", "staged", rates["staged"], "dd", rates["dd"])]


def _sync(folder: Path) -> None:
    """Bring everything of this file system to its disk, as fsync does for dd's one file."""
    subprocess.run(["sync", "--file-system", str(folder)], check=True)
