"""Find pieces of training samples, byte for byte, anywhere in a stream of bytes.

Chunks of 32 bytes of every sample, in the encodings that a trainer would have at hand, are hashed
into an index; a stream is hashed at every offset, so that neither the alignment nor the tensor in
which a chunk lies matters. Of 64-bit hashes, 10^8 offsets against 10^7 chunks agree by chance
with a probability of 5e-5; two different chunks of one sample are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sandbox_runner.inspection.samples import Sample

CHUNK: Final = 32
#: Chunks with fewer different bytes (flat background, padding) prove nothing.
DIFFERENT_BYTES: Final = 12
CHUNKS_AN_ENCODING: Final = 192
_PRIME: Final = 0x9E3779B97F4A7C15 | 1
_MASK: Final = 2**64 - 1
_BLOCK: Final = 1 << 22
_TABLE_BITS: Final = 24


def rolling(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the hash of the 32 bytes from each offset; uint64 of length n - 31."""
    with np.errstate(over="ignore"):
        # Mixed first: small numbers must not stay small in the product.
        hashes = (data.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)
        hashes ^= hashes >> np.uint64(32)
        span, power = 1, _PRIME
        while span < CHUNK:
            hashes = hashes[:-span] * np.uint64(power) + hashes[span:]
            power = power * power & _MASK
            span *= 2
        hashes ^= hashes >> np.uint64(29)
        hashes *= np.uint64(0xBF58476D1CE4E5B9)
        return hashes


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
            rows = whole[: len(whole) // CHUNK * CHUNK].reshape(-1, CHUNK)
            if len(rows) > 4 * CHUNKS_AN_ENCODING:
                rows = rows[:: len(rows) // (4 * CHUNKS_AN_ENCODING)]
            if not len(rows):
                continue
            ordered = np.sort(rows, axis=1)
            different = 1 + (np.diff(ordered, axis=1) != 0).sum(axis=1)
            rows = rows[different >= DIFFERENT_BYTES]
            if len(rows) > CHUNKS_AN_ENCODING:
                rows = rows[:: -(-len(rows) // CHUNKS_AN_ENCODING)]
            if not len(rows):
                continue
            offsets = np.arange(len(rows)) * CHUNK
            hashed = rolling(np.ascontiguousarray(rows).reshape(-1))[offsets]
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
        self._table = np.zeros(1 << _TABLE_BITS, dtype=bool)
        self._table[self._sorted >> np.uint64(64 - _TABLE_BITS)] = True

    def search(self, stream: NDArray[np.uint8]) -> list[Match]:
        """Return the samples of which at least two different chunks are in the stream."""
        found: dict[int, set[int]] = {}
        first: dict[int, int] = {}
        if not len(self._sorted):
            return []
        for start in range(0, max(0, len(stream) - CHUNK + 1), _BLOCK):
            hashes = rolling(np.asarray(stream[start : start + _BLOCK + CHUNK - 1]))
            maybe = np.flatnonzero(self._table[hashes >> np.uint64(64 - _TABLE_BITS)])
            places = np.searchsorted(self._sorted, hashes[maybe])
            places[places == len(self._sorted)] = 0
            hit = self._sorted[places] == hashes[maybe]
            for place, offset in zip(places[hit].tolist(), maybe[hit].tolist(), strict=True):
                owner = int(self._owners[place])
                found.setdefault(owner, set()).add(place)
                first.setdefault(owner, start + offset)
        best: dict[int, Match] = {}
        for owner, chunks in found.items():
            match = Match(owner >> 16, self.names[owner & 0xFFFF], len(chunks), first[owner])
            if len(chunks) >= 2 and (
                match.sample not in best or best[match.sample].chunks < match.chunks
            ):
                best[match.sample] = match
        return sorted(best.values(), key=lambda match: -match.chunks)
