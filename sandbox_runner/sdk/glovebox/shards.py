"""Many small files in a few large ones: the reader, and the format for who writes it.

A folder of shards holds

- ``shard-00000``, ``shard-00001``, ...: the files' bytes, one after another, nothing between;
- ``names``: their paths in the same order, UTF-8, each followed by a line feed;
- ``index``: for each file 16 bytes, little-endian: offset in its shard (64 bits), length (32
  bits), number of its shard (32 bits). It is mapped, never copied;
- ``digests``: for each file the 32 bytes of its SHA-256;
- ``shards.json``: the format's name, how many files, the size of each shard, and the SHA-256 of
  the three lists above.

Reading a file is one ``pread``, from the second pass on a copy out of mapped memory: no name is
looked up in the file system, nothing is opened.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = "glovebox-shards-1"
ABOUT = "shards.json"
NAMES = "names"
INDEX = "index"
DIGESTS = "digests"
ENTRY = struct.Struct("<QII")
FIELDS = np.dtype([("offset", "<u8"), ("length", "<u4"), ("shard", "<u4")])
DIGEST_BYTES = 32
# What one call of the system reads ahead of a run of neighbours: it stays in a core's own cache.
SPAN = 1 << 18
# Files whose places are worked out together, so that a million of them need no long lists.
AT_ONCE = 1 << 13


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}"


class DamagedShards(ValueError):
    """A folder of shards is not what was written; it must be staged again."""


class Shards:
    """The files of a folder of shards, by name or number. Safe to fork, to pickle and to share.

    Raises :class:`DamagedShards` where sizes or lists do not fit together. What the files hold is
    not read for that: :meth:`verify` does it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        try:
            about = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise DamagedShards(f"{ABOUT} names another format than {FORMAT}")
            self._count = int(about["files"])
            self._bounds = [int(size) for size in about["bytes"]]
            self._lists = dict(about["sha256"])
            self._index = self._mapped(INDEX, ENTRY.size)
            self._digests = self._mapped(DIGESTS, DIGEST_BYTES)
            self._open_shards()
        except (OSError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, DamagedShards):
                raise
            raise DamagedShards(f"the shards cannot be read ({type(error).__name__})") from error
        self._unread = sum(self._bounds)
        self._maps: list[mmap.mmap | bytes] | None = None
        self._entries = np.frombuffer(self._index, dtype=FIELDS)
        self._numbers: dict[str, int] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes that were not forked open the folder themselves.
        return Shards, (self.folder,)

    def __del__(self) -> None:
        for descriptor in getattr(self, "_descriptors", ()):
            os.close(descriptor)

    def __len__(self) -> int:
        """Return how many files there are."""
        return self._count

    @property
    def numbers(self) -> Mapping[str, int]:
        """Each file's place in the order, by its path."""
        return self._by_name()

    def size(self, number: int) -> int:
        """Return the bytes of a file."""
        return int(ENTRY.unpack_from(self._index, number * ENTRY.size)[1])

    def read(self, number: int) -> bytes:
        """Return a file's bytes. Raises ``IndexError``, and DamagedShards where it is cut off."""
        offset, length, shard = ENTRY.unpack_from(self._index, number * ENTRY.size)
        if self._maps is not None:
            content: bytes = self._maps[shard][offset : offset + length]
        else:
            content = os.pread(self._descriptors[shard], length, offset)
            self._count_read(length)
        if len(content) != length:
            raise DamagedShards("a shard is shorter than its index says")
        return content

    def stream(self, numbers: Sequence[int] | NDArray[np.int64]) -> Iterator[bytes]:
        """Give the bytes of many files; neighbours in a shard are read together."""
        for first in range(0, len(numbers), AT_ONCE):
            entries = self._entries[np.asarray(numbers[first : first + AT_ONCE], dtype=np.int64)]
            if self._maps is not None:
                yield from self._cut(self._maps, entries)
                continue
            for content, places in self._by_calls(entries):
                yield from map(content.__getitem__, places)

    def views(self, numbers: Sequence[int] | NDArray[np.int64]) -> Iterator[memoryview]:
        """Give many files as read-only views, without a copy; each keeps its neighbours alive."""
        for first in range(0, len(numbers), AT_ONCE):
            entries = self._entries[np.asarray(numbers[first : first + AT_ONCE], dtype=np.int64)]
            if self._maps is not None:
                yield from self._cut([memoryview(each) for each in self._maps], entries)
                continue
            for content, places in self._by_calls(entries):
                yield from map(memoryview(content).__getitem__, places)

    def _by_calls(self, entries: NDArray[Any]) -> Iterator[tuple[bytes, Iterator[slice]]]:
        """Read files that lie together; give what was read, and where in it each lies."""
        shards, begins = entries["shard"], entries["offset"]
        ends = begins + entries["length"]
        # Files are read together that lie side by side, in one shard and one span of it.
        apart = (begins[1:] != ends[:-1]) | (shards[1:] != shards[:-1])
        apart |= begins[1:] // SPAN != begins[:-1] // SPAN
        edges = np.flatnonzero(apart) + 1
        groups = [0, *edges.tolist(), len(entries)]
        bases = np.repeat(begins[groups[:-1]], np.diff(groups))
        starts, stops = (begins - bases).tolist(), (ends - bases).tolist()
        for first, last in itertools.pairwise(groups):
            base, length = int(begins[first]), stops[last - 1]
            content = os.pread(self._descriptors[shards[first]], length, base)
            if len(content) != length:
                raise DamagedShards("a shard is shorter than its index says")
            places = zip(starts[first:last], stops[first:last], strict=True)
            yield content, itertools.starmap(slice, places)
        self._count_read(int(entries["length"].sum()))

    def _cut(self, maps: Sequence[Any], entries: NDArray[Any]) -> Iterator[Any]:
        begins = entries["offset"]
        places = (begins.tolist(), (begins + entries["length"]).tolist(), entries["shard"].tolist())
        for start, stop, shard in zip(*places, strict=True):
            yield maps[shard][start:stop]

    def _count_read(self, length: int) -> None:
        """Map the shards once as much was read as there is.

        Who reads a second time will read a tenth time. To map a page costs as much as to copy it,
        so a single pass is better made by calls, and on a disk these read what is asked for only.
        """
        self._unread -= length
        if self._unread < 0:
            try:
                self._maps = [
                    mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) if size else b""
                    for descriptor, size in zip(self._descriptors, self._bounds, strict=True)
                ]
            except OSError:
                self._unread = 1 << 62  # no room to map: calls will do

    def verify(self) -> None:
        """Read everything and compare it with its digests. Raises DamagedShards."""
        for name, digest in self._lists.items():
            if hashlib.sha256((self.folder / name).read_bytes()).hexdigest() != digest:
                raise DamagedShards(f"the list {name} is not what was written")
        for number, content in enumerate(self.stream(range(self._count))):
            wanted = self._digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
            if hashlib.sha256(content).digest() != wanted:
                raise DamagedShards("a file in the shards is not what was written")

    def _by_name(self) -> dict[str, int]:
        if self._numbers is None:
            names = (self.folder / NAMES).read_bytes().decode().split("\n")[:-1]
            self._numbers = {name: number for number, name in enumerate(names)}
            if len(self._numbers) != self._count:
                raise DamagedShards("there are not as many names as files")
        return self._numbers

    def _mapped(self, name: str, size: int) -> memoryview:
        with (self.folder / name).open("rb") as file:
            if os.fstat(file.fileno()).st_size != size * self._count:
                raise DamagedShards(f"the list {name} has another length than it should")
            if not self._count:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

    def _open_shards(self) -> None:
        self._descriptors: list[int] = []
        for number, size in enumerate(self._bounds):
            path = self.folder / shard_name(number)
            self._descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            if os.fstat(self._descriptors[-1]).st_size != size:
                raise DamagedShards("a shard has another length than it should")
