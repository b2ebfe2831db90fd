"""Staging a version from its encrypted objects, against dd of the same bytes with fsync.

Both begin with a cold disk and end with everything on it. Staging reads, decrypts, verifies each
chunk and each file's SHA-256 and writes; dd copies one file in blocks of a mebibyte. In use the
copy lies in memory, where there is nothing to sync: a disk is the harder case.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
SMALL_FILES = 20_000
#: Where each is a file of its own on the disk fewer: to sync them takes longer than staging.
FEWER_FILES = 2_000
#: As portal.catalog.packing has it.
PACK_BYTES = 32 << 20


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
    small, fewer = folder / "small", folder / "fewer"
    write_images(small, SMALL_FILES)
    write_images(fewer, FEWER_FILES)
    shards = default_policy().staging
    both = dataclasses.replace(shards, pack_files=1)
    alone = dataclasses.replace(both, paths=False)
    rows = []
    for name, objects, policy, packed in (
        (f"{LARGE_FILES} files of 12 MiB", _Objects(large), shards, False),
        (f"{SMALL_FILES:,} files of 10 kB, 100 a subject, in shards", _Objects(small), alone, True),
        ("the same, one a subject", _Objects(small, alone=True), alone, True),
        (f"{FEWER_FILES:,} of them, by path too", _Objects(fewer), both, True),
        (f"{FEWER_FILES:,} not packed, in shards", _Objects(fewer), alone, False),
    ):
        rows += _against_dd(name, objects, policy, folder, drop, packed=packed)
    return rows


def _portal(folder: Path) -> None:
    """Let portal.blobs keep its objects in this folder."""
    from django.conf import settings

    if not settings.configured:
        settings.configure()
    settings.HOME = folder / "portal"
    os.environ.pop("GLOVEBOX_S3_ENDPOINT", None)  # the disk is measured, not somebody's store


class _Objects:
    """A version's files as the portal stores them, each under its subject's key.

    With ``alone`` each file is its own subject's: as many keys as files.
    """

    def __init__(self, source: Path, *, alone: bool = False) -> None:
        self._alone = alone
        self.source = source
        self._keys: dict[str, bytes] = {}
        self._places: dict[str, tuple[str, int, int]] = {}

    def store(self, entries: Sequence[ManifestEntry], *, packed: bool) -> None:
        """Write them, as objects of their own or in packs."""
        from portal import blobs, packs

        owners: dict[str, bytes] = {}
        for entry in entries:
            owner = entry.path if self._alone else entry.subject
            self._keys[entry.path] = owners.setdefault(owner, os.urandom(32))
        group: list[ManifestEntry] = []
        for entry in entries:
            if not packed:
                name = blobs.object_name(bytes(32), self.source.name, entry.path)
                with (self.source / entry.path).open("rb") as content:
                    blobs.put(content, key=self._keys[entry.path], name=name)
                self._places[entry.path] = (name, 0, 0)
                continue
            group.append(entry)
            if sum(each.bytes for each in group) >= PACK_BYTES or entry is entries[-1]:
                name = packs.new_name(bytes(32))
                written = packs.write(
                    [(self._keys[e.path], (self.source / e.path).read_bytes()) for e in group],
                    name=name,
                )
                for each, offset in zip(group, written.offsets, strict=True):
                    self._places[each.path] = (name, offset, written.bytes)
                group = []

    def open(self, entry: ManifestEntry) -> BinaryIO:
        """Open one."""
        from portal import blobs

        name, _offset, size = self._places[entry.path]
        if not size:
            return blobs.open(name, key=self._keys[entry.path])
        [content] = self.read_many([entry])
        return io.BytesIO(content)

    def read_many(self, entries: Sequence[ManifestEntry]) -> Iterator[bytes]:
        """Read several, as ``portal.catalog.contents`` does."""
        from portal import packs

        parts: list[Iterable[bytes]] = []
        for (name, size), group in itertools.groupby(
            entries, key=lambda entry: self._places[entry.path][::2]
        ):
            if size:
                members = [
                    packs.Member(self._keys[e.path], self._places[e.path][1], e.bytes)
                    for e in group
                ]
                parts.append(packs.read(name, members, size=size))
                continue
            for entry in group:
                with self.open(entry) as stream:
                    parts.append((stream.read(entry.bytes + 1),))
        return itertools.chain.from_iterable(parts)


def _against_dd(
    name: str,
    objects: _Objects,
    policy: StagingPolicy,
    folder: Path,
    drop: Callable[[], None],
    *,
    packed: bool,
) -> list[Ratio]:
    source = objects.source
    manifest = stage.manifest_of(source, "bench", "1")
    objects.store(manifest.entries, packed=packed)
    whole = folder / "whole"
    with whole.open("wb") as out:
        for entry in manifest.entries:
            out.write((source / entry.path).read_bytes())
    total = sum(entry.bytes for entry in manifest.entries)
    processor: list[float] = []

    def staged() -> float:
        target = folder / "staged" / "bench"
        drop()
        began, before = time.perf_counter(), _processor()
        stage.stage(manifest, objects.open, target, policy=policy, read_many=objects.read_many)
        used = _processor() - before
        _sync(folder)
        seconds = time.perf_counter() - began
        processor.append(used)
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


def _processor() -> float:
    """Return the processor time of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def _sync(folder: Path) -> None:
    """Bring everything of this file system to its disk, as fsync does for dd's one file."""
    subprocess.run(["sync", "--file-system", str(folder)], check=True)
