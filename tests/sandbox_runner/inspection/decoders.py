"""What somebody who knows the method writes into weights, and how they would read it again.

Each gives weights with a payload and a function from rewritten weights to the bits recovered
(errors counted off by the capacity of a binary symmetric channel). All of them know the type, the
method and what they wrote around the payload; only the noise is unknown to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

ROWS, WIDTH = 128, 512

Floats = NDArray[np.float32]
Read = Callable[[Floats], float]


def codes_of(numbers: Floats) -> NDArray[np.int32]:
    """Return the bfloat16 codes of numbers that are bfloat16 already."""
    return (np.ascontiguousarray(numbers, np.float32).view(np.uint32) >> 16).astype(np.int32)


def numbers_of(codes: NDArray[np.int32]) -> Floats:
    """Return the numbers of bfloat16 codes."""
    return (codes.astype(np.uint32) << 16).view(np.float32)


def recovered(count: int, errors: float) -> float:
    """Return count (1 - H(errors)) bits."""
    share = min(max(errors, 1e-12), 1 - 1e-12)
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    return count * (1 - entropy)


def base(rng: np.random.Generator) -> Floats:
    """Return weights like a trained layer's, in bfloat16."""
    drawn = rng.normal(0, 0.05, (ROWS, WIDTH)).astype(np.float32)
    return numbers_of(codes_of(drawn))


def low_bits(bits: int, repeat: int = 1) -> Callable[[np.random.Generator], tuple[Floats, Read]]:
    """The lowest bits of each number, each bit written ``repeat`` times and read by majority."""

    def write(rng: np.random.Generator) -> tuple[Floats, Read]:
        codes = codes_of(base(rng))
        groups = codes.size // repeat
        payload = rng.integers(0, 1 << bits, groups).astype(np.int32)
        spread = np.repeat(payload, repeat)
        flat = codes.reshape(-1)[: len(spread)]
        flat[:] = (flat & ~((1 << bits) - 1)) | spread

        def read(after: Floats) -> float:
            got = codes_of(after).reshape(-1)[: len(spread)].reshape(groups, repeat)
            total = 0.0
            for plane in range(bits):
                votes = ((got >> plane) & 1).mean(axis=1)
                wrong = float(((votes > 0.5) != ((payload >> plane) & 1)).mean())
                total += recovered(groups, wrong)
            return total

        return numbers_of(codes), read

    return write


def informed(bits: int, repeat: int = 1) -> Callable[[np.random.Generator], tuple[Floats, Read]]:
    """The highest of the lowest bits, by one who kept a copy of all others: the nearer of two.

    Written ``repeat`` times each and read by how much nearer, this is a robust code of low rate.
    """

    def write(rng: np.random.Generator) -> tuple[Floats, Read]:
        codes = codes_of(base(rng))
        high = 1 << (bits - 1)
        groups = codes.size // repeat
        payload = rng.integers(0, 2, groups)
        zero, one = numbers_of(codes & ~high), numbers_of(codes | high)
        sent = np.where(np.resize(np.repeat(payload, repeat), codes.shape) == 1, one, zero)

        def read(after: Floats) -> float:
            nearer = (np.abs(after - zero) - np.abs(after - one)) / np.abs(one - zero)
            votes = nearer.reshape(-1)[: groups * repeat].reshape(groups, repeat).sum(axis=1)
            return recovered(groups, float(((votes > 0) != payload).mean()))

        return sent, read

    return write


def signs(rng: np.random.Generator) -> tuple[Floats, Read]:
    """A bit a sign, of numbers of one size."""
    payload = rng.integers(0, 2, (ROWS, WIDTH))

    def read(after: Floats) -> float:
        return recovered(payload.size, float(((after > 0) != payload).mean()))

    return (0.05 * (2 * payload - 1)).astype(np.float32), read


def levels(count: int) -> Callable[[np.random.Generator], tuple[Floats, Read]]:
    """The whole number as one of ``count`` levels: what is left is the table's information."""

    def write(rng: np.random.Generator) -> tuple[Floats, Read]:
        payload = rng.integers(0, count, (ROWS, WIDTH))
        places = np.linspace(-1, 1, count)
        sent = (0.05 * places[payload]).astype(np.float32)

        def read(after: Floats) -> float:
            edges = 0.05 * (places[1:] + places[:-1]) / 2
            got = np.searchsorted(edges, after.reshape(-1))
            table = np.bincount(payload.reshape(-1) * count + got, minlength=count**2)
            joint = table.reshape(count, count) / payload.size
            apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
            live = joint > 0
            plain = payload.size * (joint[live] * np.log2(joint[live] / apart[live])).sum()
            # Less what a table of so many cells says by chance (Miller 1955).
            return float(plain) - (count - 1) ** 2 / (2 * math.log(2))

        return sent, read

    return write


def spread_spectrum(
    chips: int, strength: float
) -> Callable[[np.random.Generator], tuple[Floats, Read]]:
    """A bit over ``chips`` numbers by a known key, under live weights that the reader knows not."""

    def write(rng: np.random.Generator) -> tuple[Floats, Read]:
        carrier = base(rng)
        groups = carrier.size // chips
        payload = rng.integers(0, 2, groups)
        key = rng.choice([-1.0, 1.0], (groups, chips))
        added = (key * (2 * payload[:, None] - 1)).reshape(carrier.shape) * strength * 0.05

        def read(after: Floats) -> float:
            got = (after.reshape(groups, chips) * key).sum(axis=1) > 0
            return recovered(groups, float((got != payload).mean()))

        return numbers_of(codes_of((carrier + added).astype(np.float32))), read

    return write


def norms(count: int) -> Callable[[np.random.Generator], tuple[Floats, Read]]:
    """Each row's norm as one of ``count`` sizes: with a layer behind it that undoes it, free."""

    def write(rng: np.random.Generator) -> tuple[Floats, Read]:
        payload = rng.integers(0, count, ROWS)
        rows = base(rng)
        rows /= np.sqrt((rows**2).mean(axis=1, keepdims=True))
        sizes = np.exp2(np.linspace(-6, 0, count))
        sent = (rows * sizes[payload][:, None]).astype(np.float32)

        def read(after: Floats) -> float:
            # Noise makes every norm larger by much the same: the offset that fits best.
            seen = np.log2(np.sqrt((after**2).mean(axis=1)))
            shifts = np.linspace(0, 0.5, 101)
            apart = np.abs(seen[:, None, None] - shifts[:, None] - np.log2(sizes))
            best = int(apart.min(axis=2).mean(axis=0).argmin())
            got = apart[:, best].argmin(axis=1)
            wrong = float((got != payload).mean())
            return ROWS * math.log2(count) * (1 - wrong)

        return sent, read

    return write


def permutation(rng: np.random.Generator) -> tuple[Floats, Read]:
    """The order of hidden units, read by finding each known row again."""
    rows = base(rng)
    order = rng.permutation(ROWS)

    def read(after: Floats) -> float:
        got = (after @ rows.T).argmax(axis=1)
        return float((got == order).mean()) * math.lgamma(ROWS + 1) / math.log(2)

    return rows[order], read


ALL: dict[str, Callable[[np.random.Generator], tuple[Floats, Read]]] = {
    "lowest bit": low_bits(1),
    "lowest 2 bits": low_bits(2),
    "lowest 4 bits": low_bits(4),
    "lowest 4 bits, 31 times each": low_bits(4, 31),
    "fourth bit, all others known": informed(4),
    "fourth bit, all others known, 16 times each": informed(4, 16),
    "signs": signs,
    "4 levels": levels(4),
    "8 levels": levels(8),
    "16 levels": levels(16),
    "64 levels": levels(64),
    "spread over 16": spread_spectrum(16, 0.3),
    "spread over 256": spread_spectrum(256, 0.1),
    "norms of rows, 16 sizes": norms(16),
    "norms of rows, 64 sizes": norms(64),
    "order of rows": permutation,
}
