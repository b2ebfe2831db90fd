"""Write the shards that the SDK reads; ``sdk/glovebox/shards.py`` says what they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import BinaryIO, Final

from sandbox_runner.private_files import create, write_new
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
BUFFER: Final = 1 << 20


class ShardWriter:
    """Appends files to shards in an empty folder of ours; ``finish`` makes them whole."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._names: list[str] = []
        self._index = bytearray()
        self._digests = bytearray()
        self._sizes: list[int] = []
        self._shard: BinaryIO | None = None

    def add(self, name: str, content: bytes, digest: bytes) -> None:
        """Append a file; ``digest`` is the SHA-256 of its content, already verified."""
        if self._shard is None or self._sizes[-1] + len(content) > self._shard_bytes:
            self.close()
            self._shard = create(self._folder / shard_name(len(self._sizes)), BUFFER)
            self._sizes.append(0)
        self._shard.write(content)
        self._names.append(name)
        self._index += ENTRY.pack(self._sizes[-1], len(content), len(self._sizes) - 1)
        self._digests += digest
        self._sizes[-1] += len(content)

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
        """Close the shard that is being written; idempotent."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None
