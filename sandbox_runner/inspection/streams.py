"""Bytes and numbers of a file in blocks, handed to searches that run beside each other.

A search sees one stream as if it were whole: each block begins with the end of the one before it.
Nothing is held but a few blocks, whatever the file's size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

#: Elements of a tensor that are read at once; a multiple of what any packing needs.
ELEMENTS: Final = 1 << 20
_BYTES: Final = 1 << 21
_WAITING: Final = 6
#: How the names of streams begin whose bytes are packed from bits of several elements.
PACKED: Final = ("lowest bit", "lowest 2", "lowest 4", "sign")
_UNSIGNED: Final = {8: "<u8", 4: "<u4", 2: "<u2", 1: "|u1"}


class Together:
    """Runs searches on two threads (numpy lets go of the interpreter) and keeps their answers."""

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._waiting: deque[tuple[list[Any], Future[list[Any]]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def do(self, answers: list[Any], task: Callable[..., list[Any]], *given: Any) -> None:
        """Extend ``answers`` by what ``task`` returns; waits while too much is under way."""
        self._waiting.append((answers, self._pool.submit(task, *given)))
        self.wait(_WAITING)

    def wait(self, most: int = 0) -> None:
        """Wait until at most so many are under way."""
        while len(self._waiting) > most:
            answers, future = self._waiting.popleft()
            answers += future.result()


class Stream:
    """One line of bytes or numbers, given in parts, searched in blocks that overlap.

    ``search(block, start)`` returns what it finds, with offsets in the stream; ``overlap`` is one
    less than the longest thing it looks for.
    """

    def __init__(
        self,
        together: Together,
        search: Callable[[NDArray[Any], int], list[Any]],
        overlap: int,
    ) -> None:
        self.found: list[Any] = []
        self._together, self._search, self._overlap = together, search, overlap
        self._parts: list[NDArray[Any]] = []
        self._held, self._start, self._new = 0, 0, 0

    def feed(self, part: NDArray[Any]) -> None:
        """Take the next bytes or numbers."""
        self._parts.append(part)
        self._held += len(part)
        self._new += len(part)
        if self._held * part.itemsize >= _BYTES:
            self._flush()

    def _flush(self) -> None:
        block = np.concatenate(self._parts)
        self._together.do(self.found, self._search, block, self._start)
        kept = block[max(0, len(block) - self._overlap) :].copy() if self._overlap else block[:0]
        self._start += len(block) - len(kept)
        self._parts, self._held, self._new = [kept], len(kept), 0

    def end(self) -> None:
        """Search what is left."""
        if self._new:
            self._flush()
        self._parts = []


class Strided:
    """Every so-maniest number of a line, from one start on, as a stream."""

    def __init__(self, stream: Stream, start: int, stride: int) -> None:
        self.stream, self._next, self._stride = stream, start, stride

    def feed(self, part: NDArray[Any]) -> None:
        """Take the next numbers of the whole line."""
        self.stream.feed(part[self._next :: self._stride])
        self._next = (self._next - len(part)) % self._stride


def byte_streams(stored: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Give, of a block of a floating tensor's stored elements, the streams bytes may hide in.

    Each byte of the elements by itself, the lowest two, and the lowest 1, 2 and 4 bits and the
    signs packed to bytes in both orders.
    """
    width = stored.itemsize
    bits = np.ascontiguousarray(stored).reshape(-1).view(_UNSIGNED[width])
    each = bits.view(np.uint8).reshape(-1, width)
    if width > 1:
        for place in range(width):
            yield f"byte {place}", np.ascontiguousarray(each[:, place])
    if width >= 4:
        yield "lowest two bytes", np.ascontiguousarray(each[:, :2]).reshape(-1)
    low: NDArray[Any] = np.ascontiguousarray(each[: len(each) // 8 * 8, 0])
    top: NDArray[Any] = each[: len(each) // 8 * 8, width - 1]
    for name, plane in (("lowest bit", low & 1), ("sign", top >> 7)):
        yield f"{name}, low first", np.packbits(plane, bitorder="little")
        yield f"{name}, high first", np.packbits(plane, bitorder="big")
    # Two elements, and four, as one number.
    pairs: NDArray[Any] = low.view("<u2")
    yield "lowest 4 bits, low first", _byte(pairs & 15 | pairs >> 4 & 240)
    yield "lowest 4 bits, high first", _byte((pairs & 15) << 4 | pairs >> 8 & 15)
    fours: NDArray[Any] = low.view("<u4")
    yield (
        "lowest 2 bits, low first",
        _byte(fours & 3 | fours >> 6 & 12 | fours >> 12 & 48 | fours >> 18 & 192),
    )
    yield (
        "lowest 2 bits, high first",
        _byte((fours & 3) << 6 | fours >> 4 & 48 | fours >> 14 & 12 | fours >> 24 & 3),
    )


def _byte(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    return numbers.astype(np.uint8)
