"""Many small files in a few large ones: the reader, and the format for who writes it.

A folder of shards holds

- ``shard-00000``, ``shard-00001``, ...: the files' bytes, one after another, nothing between;
- ``names``: their paths in the same order, UTF-8, each followed by a line feed;
- ``index``: for each file 16 bytes, little-endian: offset in its shard (64 bits), length (32
  bits), number of its shard (32 bits). It is mapped, never copied;
- ``digests``: for each file the 32 bytes of its SHA-256;
- ``shards.json``: the format's name, how many files, the size of each shard, and the SHA-256 of
  the three lists above.

Reading a file is one ``pread``: no name is looked up in the file system, nothing is opened.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FORMAT = "glovebox-shards-1"
ABOUT = "shards.json"
NAMES = "names"
INDEX = "index"
DIGESTS = "digests"
ENTRY = struct.Struct("<QII")
DIGEST_BYTES = 32
# What one call of the system reads ahead of a run of neighbours: it stays in a core's own cache.
SPAN = 1 << 18


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
        self._wide = self._index.cast("Q")
        self._narrow = self._index.cast("I")
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

    def __contains__(self, name: object) -> bool:
        """Whether a file of this path is in the shards."""
        return name in self._by_name()

    def names(self) -> Iterator[str]:
        """Give the files' paths in the order in which they are stored."""
        return iter(self._by_name())

    def find(self, name: str) -> int | None:
        """Return a file's place in the order, None where it is not in the shards."""
        return (self._numbers or self._by_name()).get(name)

    def size(self, number: int) -> int:
        """Return the bytes of a file."""
        return self._narrow[4 * number + 2]

    def read(self, number: int) -> bytes:
        """Return a file's bytes. Raises ``IndexError``, and DamagedShards where it is cut off."""
        length = self._narrow[4 * number + 2]
        content = os.pread(
            self._descriptors[self._narrow[4 * number + 3]], length, self._wide[2 * number]
        )
        if len(content) != length:
            raise DamagedShards("a shard is shorter than its index says")
        return content

    def stream(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """Give the bytes of many files; neighbours in a shard are read together."""
        wide, narrow = self._wide, self._narrow
        total, at = len(numbers), 0
        while at < total:
            number = numbers[at]
            start, shard = wide[2 * number], narrow[4 * number + 3]
            end = start + narrow[4 * number + 2]
            cuts = [0, end - start]
            at += 1
            while at < total:
                number = numbers[at]
                length = narrow[4 * number + 2]
                if (
                    wide[2 * number] != end
                    or narrow[4 * number + 3] != shard
                    or end - start + length > SPAN
                ):
                    break
                end += length
                cuts.append(end - start)
                at += 1
            content = os.pread(self._descriptors[shard], end - start, start)
            if len(content) != end - start:
                raise DamagedShards("a shard is shorter than its index says")
            if len(cuts) == 2:
                yield content
                continue
            for first, last in itertools.pairwise(cuts):
                yield content[first:last]

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
