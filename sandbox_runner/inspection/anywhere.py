"""Find whole training pictures at any place of a line of numbers, however noisy or coarse.

The line is correlated with each picture, turned and mirrored, with the differences of its rows and
with its cosine transforms (whole, and in blocks of 8x8 as JPEG has them), by Fourier transforms of
pieces that overlap (overlap-save). What all pictures have in common is taken out of both first: the
bias of a decoder is the mean of its training pictures, and is none of them.

Only lines that a search of all offsets can afford are searched. Longer ones are those of large
files, which go to review for their size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sandbox_runner.inspection.samples import Sample

MOST_NUMBERS: Final = 1 << 19
MOST_PIXELS: Final = 1 << 15
MOST_SAMPLES: Final = 1000
LEAST_PIXELS: Final = 256
#: Of noise, the correlation with a picture of n pixels has a deviation of 1/sqrt(n).
REVIEW: Final = 0.5
BLOCK: Final = 0.7
#: More pictures than this are a kind of picture: eight, or a twentieth of those searched for.
LEAST_SHARED: Final = 8
SHARED: Final = 0.05
SAME: Final = 0.95
_TOGETHER: Final = 32
_LEAST_PIECE: Final = 4096

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """Where a line runs like one picture, what all have in common aside (absolute value)."""

    sample: int
    correlation: float
    offset: int


def is_common(found: Sequence[Place], searched: int) -> bool:
    """Whether what was found is what many pictures are like, and not one of them.

    Templates that a network has learned follow a part of all pictures, a stored one follows one
    (and those that are like it: then it follows that one very well).
    """
    return found[0].correlation < SAME and len(found) > max(LEAST_SHARED, SHARED * searched)


class AnywhereIndex:
    """The prepared pictures of all samples, of which an even choice is searched for."""

    def __init__(self) -> None:
        self._pictures: list[tuple[int, NDArray[np.float32]]] = []

    def __len__(self) -> int:
        return len(self._pictures)

    def add(self, number: int, sample: Sample) -> None:
        """Keep one picture, if it is not too large."""
        if LEAST_PIXELS <= sample.prepared.size <= MOST_PIXELS:
            self._pictures.append((number, sample.prepared))

    def close(self) -> None:
        """Choose the pictures that are searched for, and what they have in common."""
        step = max(1.0, len(self._pictures) / MOST_SAMPLES)
        count = min(len(self._pictures), MOST_SAMPLES)
        self._pictures = [self._pictures[int(i * step)] for i in range(count)]
        if self._pictures:
            stack = [picture for _, picture in self._pictures]
            self._common = np.asarray(np.mean(stack, axis=0, dtype=np.float64))
            height, width = self._common.shape
            self._cosines = _cosines(height), _cosines(width), _cosines(8)

    def search(self, line: NDArray[np.float32]) -> list[Place]:
        """Return the best place of each picture that is found, best first."""
        found: dict[int, Place] = {}
        if not self._pictures or not self._common.size <= len(line) <= MOST_NUMBERS:
            return []
        for view in (*_TURNS, self._rows, self._transformed, self._blocks):
            for place in self._search(line.astype(np.float64), view):
                if place.sample not in found or (
                    found[place.sample].correlation < place.correlation
                ):
                    found[place.sample] = place
        return sorted(found.values(), key=lambda place: -place.correlation)

    def _rows(self, picture: Floats) -> Floats:
        return np.asarray(np.diff(picture, axis=0).reshape(-1))

    def _transformed(self, picture: Floats) -> Floats:
        return np.asarray((self._cosines[0] @ picture @ self._cosines[1].T).reshape(-1))

    def _blocks(self, picture: Floats) -> Floats:
        height, width = (side // 8 * 8 for side in picture.shape)
        blocks = picture[:height, :width].reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2)
        return np.asarray((self._cosines[2] @ blocks @ self._cosines[2].T).reshape(-1))

    def _search(self, line: Floats, view: Callable[[Floats], Floats]) -> Iterator[Place]:
        common = _unit(view(self._common))
        size = len(common)
        if not LEAST_PIXELS // 2 <= size <= len(line):
            return
        piece = max(_LEAST_PIECE, 1 << math.ceil(math.log2(4 * size)))
        useful = piece - size + 1
        starts = range(0, len(line) - size + 1, useful)
        pieces = np.stack([_padded(line[start : start + piece], piece) for start in starts])
        transformed = np.fft.rfft(pieces)
        # What is left of each window without its mean and without what all have in common.
        shared = np.fft.irfft(transformed * np.conj(np.fft.rfft(common, piece)), piece)
        left = np.stack([_power(each, size) for each in pieces]) - shared[:, :useful] ** 2
        counts = [min(useful, len(line) - size + 1 - start) for start in starts]
        floor = 1e-9 * max(float(left.max()), 1e-300)
        norms = np.sqrt(np.maximum(left, floor))
        for first in range(0, len(self._pictures), _TOGETHER):
            some = self._pictures[first : first + _TOGETHER]
            templates = np.stack(
                [_without(view(picture.astype(np.float64)), common) for _, picture in some]
            )
            spectra = np.conj(np.fft.rfft(templates, piece))
            for number, start in enumerate(starts):
                products = np.fft.irfft(transformed[number] * spectra, piece)[:, : counts[number]]
                values = np.abs(products) / norms[number, : counts[number]]
                best = values.argmax(axis=1)
                for row, (sample, _) in enumerate(some):
                    value = float(values[row, best[row]])
                    if value >= REVIEW:
                        yield Place(sample, min(value, 1.0), start + int(best[row]))


#: As it is, turned by a half, transposed, both, and mirrored.
_TURNS: Final[tuple[Callable[[Floats], Floats], ...]] = (
    lambda picture: picture.reshape(-1),
    lambda picture: picture.reshape(-1)[::-1],
    lambda picture: np.ascontiguousarray(picture.T).reshape(-1),
    lambda picture: np.ascontiguousarray(picture.T).reshape(-1)[::-1],
    lambda picture: np.ascontiguousarray(picture[:, ::-1]).reshape(-1),
)


def _cosines(size: int) -> Floats:
    """Return the matrix of the orthogonal cosine transform (DCT-II)."""
    places = np.arange(size)
    matrix = np.cos(np.pi * (places[None, :] + 0.5) * places[:, None] / size)
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix * np.sqrt(2 / size))


def _unit(flat: Floats) -> Floats:
    centred = flat - flat.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-300))


def _without(flat: Floats, common: Floats) -> Floats:
    """Return a picture without its mean and without what all have in common, of length one."""
    centred = _unit(flat)
    rest = centred - (centred @ common) * common
    norm = float(np.linalg.norm(rest))
    # A picture that is what all are cannot be told from it.
    return np.asarray(rest / norm) if norm > 0.05 else np.zeros_like(rest)


def _padded(part: Floats, size: int) -> Floats:
    return np.concatenate([part, np.zeros(size - len(part))]) if len(part) < size else part


def _power(part: Floats, size: int) -> Floats:
    """Return, for each window, the sum of the squares of what differs from its mean."""
    sums = np.r_[0.0, np.cumsum(part)]
    squares = np.r_[0.0, np.cumsum(part * part)]
    totals = sums[size:] - sums[:-size]
    return np.asarray(np.maximum(squares[size:] - squares[:-size] - totals * totals / size, 0.0))
