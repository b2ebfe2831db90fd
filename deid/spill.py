"""Values too large to hold: kept in a file without a name, and seen through a map of it.

A process that cleans a file of gigabytes keeps its own size: whatever is large is a view of a
mapped file, read piece by piece, and each piece's memory is given back before the next.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, TypeAlias

Buffer: TypeAlias = bytes | memoryview

LARGE = 32 << 20
"""Bytes from which on a value is kept in a file."""

STEP = 8 << 20
"""Bytes that are looked at in one piece; whole words of every size."""

_WORTH = 1 << 16


def mapped(descriptor: int) -> memoryview:
    """The contents of an open file, read only when they are looked at."""
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


def forget(value: Buffer) -> None:
    """Give back the memory of a mapped value; whoever looks again reads its file again."""
    if isinstance(value, memoryview) and isinstance(value.obj, mmap.mmap):
        value.obj.madvise(mmap.MADV_DONTNEED)


def pieces(value: Buffer, step: int = STEP) -> Iterator[memoryview]:
    """A value in pieces, whose memory is given back as the caller goes on."""
    view = memoryview(value)
    for start in range(0, len(view), step):
        yield view[start : start + step]
        if len(view) >= _WORTH:
            forget(view)


def replaced(value: Buffer, change: Callable[[memoryview], Buffer]) -> Buffer:
    """What ``change`` makes of each piece, one after another."""
    new = Spill()
    for piece in pieces(value):
        new.write(change(piece))
    return new.value()


class Spill:
    """A value that is written from its beginning to its end, in memory as long as it is small.

    The file has no name and ends with the process. It lies where ``tempfile`` puts files: the
    workers of a batch set that to the output directory, where the value will go. Writing raises
    :class:`OSError` where there is no room.
    """

    def __init__(self) -> None:
        self._parts: list[Buffer] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    def write(self, data: Buffer) -> None:
        """Append to the value."""
        self.size += len(data)
        if self._file is None:
            self._parts.append(bytes(data))
            if self.size <= LARGE:
                return
            self._file = tempfile.TemporaryFile(prefix=".glovebox-", suffix=".part")  # noqa: SIM115 - closed by value()
            for part in self._parts:
                self._file.write(part)
            self._parts = []
        else:
            self._file.write(data)

    def value(self) -> Buffer:
        """All that was written. Nothing can be written after."""
        if self._file is None:
            return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        with self._file as file:
            file.flush()
            return mapped(file.fileno())
