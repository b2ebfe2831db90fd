"""Write the shards that the SDK reads; ``sdk/glovebox/shards.py`` says what they are."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from sandbox_runner.private_files import begin_writeback, create, write_new
from sandbox_runner.sdk.glovebox.shards import (
    ABOUT,
    DIGESTS,
    ENTRY,
    FORMAT,
    INDEX,
    NAMES,
    shard_name,
)

SHARD_BYTES: Final = 1 << 30
#: Pieces of one call; the kernel takes 1,024.
VECTOR: Final = 1024


@dataclass(frozen=True)
class Run:
    """Files that lie one after another in a shard: the numbers of the first and after the last."""

    path: Path
    shard: BinaryIO
    offset: int
    first: int
    after: int


class ShardWriter:
    """Lays files out in shards in an empty folder of ours; ``finish`` makes them whole.

    Places are given out in order by :meth:`place`; what is written there may come in any order,
    from several threads.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._names: list[str] = []
        self._index = bytearray()
        self._digests = bytearray()
        self._sizes: list[int] = []
        self._shards: list[BinaryIO] = []

    def place(self, files: Sequence[tuple[str, int, bytes]]) -> list[Run]:
        """Give files (name, length, SHA-256) their places; return where they lie, in order."""
        runs: list[Run] = []
        first = start = 0
        size = self._sizes[-1] if self._sizes else 0
        for number, (name, length, digest) in enumerate(files):
            if not self._sizes or size + length > self._shard_bytes:
                if number > first:
                    runs.append(self._run(start, first, number))
                path = self._folder / shard_name(len(self._sizes))
                self._shards.append(create(path, 0))
                self._sizes.append(0)
                first, start, size = number, 0, 0
            elif number == 0:
                start = size
            self._names.append(name)
            self._index += ENTRY.pack(size, length, len(self._sizes) - 1)
            self._digests += digest
            size += length
            self._sizes[-1] = size
        if len(files) > first:
            runs.append(self._run(start, first, len(files)))
        return runs

    def _run(self, offset: int, first: int, after: int) -> Run:
        shard = self._shards[-1]
        return Run(self._folder / shard_name(len(self._shards) - 1), shard, offset, first, after)

    def finish(self) -> None:
        """Write the lists and, last, what makes the folder one of shards."""
        self.close()
        names = "".join(f"{name}\n" for name in self._names).encode()
        lists = {NAMES: names, INDEX: bytes(self._index), DIGESTS: bytes(self._digests)}
        for list_name, content in lists.items():
            write_new(self._folder / list_name, content)
        about = {
            "format": FORMAT,
            "files": len(self._names),
            "bytes": self._sizes,
            "sha256": {
                list_name: hashlib.sha256(content).hexdigest()
                for list_name, content in lists.items()
            },
        }
        write_new(self._folder / ABOUT, json.dumps(about, indent=1).encode())

    def close(self) -> None:
        """Close the shards; idempotent."""
        while self._shards:
            self._shards.pop().close()


def write_run(run: Run, contents: Sequence[bytes]) -> None:
    """Write the files of a run at their places, without copying them into one piece first."""
    descriptor = run.shard.fileno()
    offset = run.offset
    for at in range(0, len(contents), VECTOR):
        pieces = contents[at : at + VECTOR]
        length = sum(map(len, pieces))
        written = os.pwritev(descriptor, pieces, offset)
        while written < length:
            # A disk with little room left takes a part; writing the rest says why.
            rest = memoryview(b"".join(pieces))[written:]
            written += os.pwrite(descriptor, rest, offset + written)
        offset += length
    begin_writeback(descriptor, run.offset, offset - run.offset)
