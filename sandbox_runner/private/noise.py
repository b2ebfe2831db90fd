"""Draws that nobody can foresee or choose: who is drawn, and the noise.

A key of 256 bits of the kernel's, never written anywhere, makes a stream of ChaCha20 (RFC 8439);
torch's and NumPy's own generators are predictable from what they gave. Normal numbers are sums of
four by Box-Muller: a single one in floating point has gaps that tell what it was added to
(Mironov, CCS 2012), which the sum makes infeasible to use (Holohan and Braghin, arXiv:2107.10138).
"""

from __future__ import annotations

import os
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

_SUMMED: Final = 4
_STEP: Final = 1.0 / (1 << 53)


class Draws:
    """One stream of draws, from a key that is made here and kept nowhere."""

    def __init__(self) -> None:
        cipher = Cipher(algorithms.ChaCha20(os.urandom(32), bytes(16)), mode=None)
        self._stream = cipher.encryptor()

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return numbers in (0, 1], of 53 bits each."""
        words = np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8")
        numbers: NDArray[np.float64] = (words >> np.uint64(11)).astype(np.float64)
        numbers += 1.0
        numbers *= _STEP
        return numbers

    def normal(self, count: int) -> NDArray[np.float64]:
        """Return numbers of the standard normal distribution."""
        pairs = (count + 1) // 2
        total = np.zeros(2 * pairs)
        for _each in range(_SUMMED):
            radius = np.sqrt(-2.0 * np.log(self.uniform(pairs)))
            angle = 2.0 * np.pi * self.uniform(pairs)
            total += np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        total /= np.sqrt(float(_SUMMED))
        return total[:count]

    def drawn(self, count: int, rate: float) -> NDArray[np.int64]:
        """Return which of ``count`` are drawn, each by itself with this chance (Poisson)."""
        # At most: where rate is 1 everybody is.
        return np.flatnonzero(self.uniform(count) <= rate)

    def some(self, count: int, most: int) -> NDArray[np.int64]:
        """Return ``most`` of ``count``, or all of them."""
        if count <= most:
            return np.arange(count)
        return np.argsort(self.uniform(count))[:most]

    def seed(self) -> int:
        """Return a number for torch's generator: dropout need not be unforeseeable, only new."""
        return int.from_bytes(self._stream.update(bytes(7)), "little")
