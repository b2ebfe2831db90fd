"""Find pieces of training samples, byte for byte, anywhere in a stream of bytes.

Chunks of 32 bytes of every sample, in the encodings that a trainer would have at hand, are hashed
into an index, and so are those of a stream, whatever their alignment. Of both only the chunks whose
first eight bytes hash low are taken, one offset of eight: what is chosen is chosen by its content,
so that the same bytes are chosen in the sample and in the stream. Of 64-bit hashes, 10^8 offsets
against 10^7 chunks agree by chance with a probability of 5e-5; two different chunks of one sample
are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sandbox_runner.inspection.samples import Sample

CHUNK: Final = 32
#: Chunks with fewer different bytes (flat background, padding) prove nothing.
DIFFERENT_BYTES: Final = 12
CHUNKS_AN_ENCODING: Final = 192
#: One offset of so many is looked at.
ANCHOR: Final = 8
_WORD: Final = 8
_BLOCK: Final = 1 << 18
_SAMPLE_BYTES: Final = 1 << 18
_MOST_TABLE_BITS: Final = 26
_FIRST: Final = np.uint64(0x9E3779B97F4A7C15)
_PRIMES: Final = tuple(
    np.uint64(p) for p in (0xD6E8FEB86659FD93, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
#: Added before the first product: a long run of zeros must not be all anchors.
_SHIFT: Final = np.uint64(0x632BE59BD9B4E019)
_LOW: Final = np.uint64((1 << 64) // ANCHOR - 1)


def anchors(data: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64]]]:
    """Give offsets of chunks that are chosen by their content, and their hashes, in eight parts."""
    with np.errstate(over="ignore"):
        for phase in range(min(_WORD, len(data) - CHUNK + 1)):
            whole = (len(data) - phase) // _WORD * _WORD
            # Copied to where eight bytes are one number.
            words = np.frombuffer(data[phase : phase + whole].tobytes(), dtype="<u8")
            chosen = np.flatnonzero((words[: len(words) - 3] + _SHIFT) * _FIRST <= _LOW)
            hashes = words[chosen] * _PRIMES[0]
            for number in (1, 2, 3):
                hashes ^= hashes >> np.uint64(31)
                hashes = (hashes + words[chosen + number]) * _PRIMES[number % 3]
            hashes ^= hashes >> np.uint64(29)
            yield chosen * _WORD + phase, hashes * _PRIMES[1]


def encodings(sample: Sample) -> Iterator[tuple[str, bytes]]:
    """Give each name and bytes under which a sample's pixels might be stored."""
    yield "file", sample.file
    stored = np.ascontiguousarray(sample.pixels)
    yield "raw", stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    if stored.dtype.itemsize > 1:
        yield "raw, big-endian", stored.astype(stored.dtype.newbyteorder(">")).tobytes()
        yield "raw, as float32", stored.astype("<f4").tobytes()
    unit = (sample.grey - sample.low) / (sample.high - sample.low)
    for name, array in (("picture", unit), ("prepared", sample.prepared)):
        yield from _numbers(name, array)
        yield from _numbers(f"{name}, transposed", array.T)


def _numbers(name: str, array: NDArray[Any]) -> Iterator[tuple[str, bytes]]:
    single = np.ascontiguousarray(array, dtype="<f4")
    yield f"{name}, 8 bits", np.rint(single * 255).astype(np.uint8).tobytes()
    yield f"{name}, 8 bits cut", (single * 255).astype(np.uint8).tobytes()
    yield f"{name}, float16", single.astype("<f2").tobytes()
    yield f"{name}, bfloat16", (single.view("<u4") >> 16).astype("<u2").tobytes()
    yield f"{name}, float32", single.tobytes()


@dataclass
class Match:
    """What of one sample was found in one stream."""

    sample: int
    encoding: str
    chunks: int
    first_offset: int


@dataclass
class ChunkIndex:
    """The hashes of all samples' chunks."""

    hashes: list[NDArray[np.uint64]] = field(default_factory=list)
    owners: list[NDArray[np.int64]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def add(self, number: int, sample: Sample) -> None:
        """Put the chunks of one sample into the index."""
        for name, data in encodings(sample):
            if name not in self.names:
                self.names.append(name)
            whole = np.frombuffer(data, dtype=np.uint8)
            if len(whole) > _SAMPLE_BYTES:
                # Pieces from all over a large one.
                starts = np.linspace(0, len(whole) - _SAMPLE_BYTES // 64, 64).astype(np.int64)
                parts = [whole[start : start + _SAMPLE_BYTES // 64] for start in starts]
            else:
                parts = [whole]
            hashed = np.concatenate([_telling(part) for part in parts])
            if len(hashed) > CHUNKS_AN_ENCODING:
                hashed = hashed[:: -(-len(hashed) // CHUNKS_AN_ENCODING)]
            if not len(hashed):
                continue
            owner = number << 16 | self.names.index(name)
            self.hashes.append(hashed)
            self.owners.append(np.full(len(hashed), owner, dtype=np.int64))

    def close(self) -> None:
        """Sort the index; a chunk that several samples share (a header, a border) is dropped."""
        if not self.hashes:
            self._sorted, self._owners = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        else:
            hashes, owners = np.concatenate(self.hashes), np.concatenate(self.owners)
            order = np.argsort(hashes, kind="stable")
            hashes, owners = hashes[order], owners[order]
            starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
            first, last = owners[starts], owners[np.r_[starts[1:], len(hashes)] - 1]
            kept = first >> 16 == last >> 16
            self._sorted, self._owners = hashes[starts][kept], first[kept]
        self.hashes, self.owners = [], []
        # Large enough that few chunks of a stream find their place taken by chance.
        bits = min(_MOST_TABLE_BITS, max(16, (16 * len(self._sorted)).bit_length()))
        self._down = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, dtype=bool)
        self._table[self._sorted >> self._down] = True

    def hits(self, data: NDArray[np.uint8], start: int = 0) -> list[tuple[int, int]]:
        """Return the chunks (by their place in the index) in some bytes, and their offsets.

        ``start`` is the offset of the bytes in their stream. May be called by several threads.
        """
        found: list[tuple[int, int]] = []
        if not len(self._sorted):
            return found
        for block in range(0, max(0, len(data) - CHUNK + 1), _BLOCK):
            for offsets, hashes in anchors(data[block : block + _BLOCK + CHUNK - 1]):
                # As signed numbers, which numpy takes for places without a copy.
                slots = (hashes >> self._down).view(np.int64)
                maybe = np.flatnonzero(self._table.take(slots))
                places = np.searchsorted(self._sorted, hashes[maybe])
                places[places == len(self._sorted)] = 0
                hit = self._sorted[places] == hashes[maybe]
                where = (offsets[maybe[hit]] + block + start).tolist()
                found += zip(places[hit].tolist(), where, strict=True)
        return found

    def matches(self, hits: Iterable[tuple[int, int]]) -> list[Match]:
        """Return the samples of which at least two different chunks were hit in one stream."""
        found: dict[int, set[int]] = {}
        first: dict[int, int] = {}
        for place, offset in hits:
            owner = int(self._owners[place])
            found.setdefault(owner, set()).add(place)
            first[owner] = min(offset, first.get(owner, offset))
        best: dict[int, Match] = {}
        for owner, chunks in found.items():
            match = Match(owner >> 16, self.names[owner & 0xFFFF], len(chunks), first[owner])
            if len(chunks) >= 2 and (
                match.sample not in best or best[match.sample].chunks < match.chunks
            ):
                best[match.sample] = match
        return sorted(best.values(), key=lambda match: -match.chunks)

    def search(self, stream: NDArray[np.uint8]) -> list[Match]:
        """Return the samples of which at least two different chunks are in the stream."""
        return self.matches(self.hits(stream))


def _telling(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return hashes of the chosen chunks that hold many different bytes, in their order.

    Chunks of a sample that overlap say the same twice: of neighbours, one is kept.
    """
    parts = list(anchors(data))
    if not parts:
        return np.zeros(0, np.uint64)
    offsets = np.concatenate([part for part, _ in parts])
    order = np.argsort(offsets)
    offsets, hashes = offsets[order], np.concatenate([part for _, part in parts])[order]
    _, first = np.unique(offsets // CHUNK, return_index=True)
    offsets, hashes = offsets[first], hashes[first]
    ordered = np.sort(data[offsets[:, None] + np.arange(CHUNK)], axis=1)
    different = 1 + (np.diff(ordered, axis=1) != 0).sum(axis=1)
    return np.asarray(hashes[different >= DIFFERENT_BYTES])
