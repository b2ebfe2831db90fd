"""What one tensor's numbers are like, bit plane by bit plane, against what training leaves.

Each threshold stands above the largest value seen on networks that were really trained
(tests/sandbox_runner/inspection/test_distributions.py); what is found goes to review. Signs have no
threshold: long weight decay orders them more than a text does. Evenly spread bits in the lower half
of a mantissa are what training leaves there, too: encrypted ones are not found.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.findings import Finding
from sandbox_runner.inspection.safetensors_file import widened

LEAST_ELEMENTS: Final = 4096
#: Chi-square by degree of freedom of odd lowest bytes; 1 is expected, with a spread of 0.12. Even
#: ones stand out where a sum was rounded, as after added noise; trained: 1.5 at most.
UNEVEN: Final = 4.0
#: The same of one bit of eight neighbours as a byte, in windows of 4096 bytes; trained: 1.7.
UNEVEN_PLANE: Final = 2.5
PLANES: Final = 4
_WINDOW: Final = 4096
#: Density left and right of a power of two: trained weights have a step at one of them at most
#: (where a first value was bounded, or where small weights were cut away).
STEP: Final = 0.2
STEP_SPREADS: Final = 8.0
STEPS: Final = 2
#: The share of numbers 2^16 times smaller than the median; trained: 0.0003 at most.
TINY_SHARE: Final = 0.01
_TINY: Final = 16
#: Chi-square by degree of freedom of whole bytes against an even spread; 8-bit weights: 5 and more.
EVEN: Final = 1.6
EVEN_ELEMENTS: Final = 16384
#: The share of one value, other than zero, among numbers of 32 bits; trained: 0.0002 at most.
REPEATED: Final = 0.05
#: How alike neighbours are in some window of a tensor (correlation), and how much more than in
#: most of its windows (median): a picture among weights. Of fifty trained networks three reached
#: both, in layers whose inputs are all pixels; the next were 0.44 apart.
SMOOTH: Final = 0.5
APART: Final = 0.45
_RUN: Final = 256
_HALF: Final = _RUN // 2
#: Less of a window's squares than this is what rounding leaves of one number.
_ROUNDING: Final = 1e-13
#: So many of a tensor's first elements are compared with each other.
_VALUES: Final = 1 << 20
_UNSIGNED: Final = {8: "<u8", 4: "<u4", 2: "<u2", 1: "|u1"}
_MANTISSA: Final = {"F32": 7, "BF16": 7, "F16": 10, "F64": 4}
_ONES: Final = np.array([number.bit_count() for number in range(256)])


class Distribution:
    """What one tensor's stored elements are like, gathered block by block."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._count = 0
        self._low = np.zeros(256, np.int64)
        self._top = np.zeros(1 << 16, np.int64)
        self._uneven = 0.0
        self._first: list[NDArray[Any]] = []
        self._runs: list[NDArray[np.float32]] = []

    def feed(self, block: NDArray[Any]) -> None:
        """Take some elements as they are stored, one-dimensional."""
        self._count += len(block)
        if self._dtype in (*_MANTISSA, "I8", "U8"):
            self._runs.append(_neighbours(widened(block, self._dtype)))
        bits = np.ascontiguousarray(block).view(_UNSIGNED[block.itemsize])
        if self._dtype in ("I8", "U8"):
            self._low += np.bincount(bits, minlength=256)
        if self._dtype not in _MANTISSA:
            return
        width = 8 * block.itemsize
        top = bits.view("<u2")[width // 16 - 1 :: width // 16]
        self._top += np.bincount(top, minlength=1 << 16)
        self._low += np.bincount(bits.view(np.uint8)[:: block.itemsize], minlength=256)
        if self._count - len(block) < _VALUES:
            self._first.append(bits)
        # Zeros of pruned networks stand in patterns, and hold nothing.
        live = bits[bits << bits.dtype.type(1) != 0]
        if len(live) >= LEAST_ELEMENTS:
            low = live.astype(np.uint8)
            self._uneven = max([self._uneven, *(_unevenness(low >> k & 1) for k in range(PLANES))])

    def findings(self, artefact: str, name: str) -> list[Finding]:
        """Return what no training makes, for review."""
        if self._count < LEAST_ELEMENTS:
            return []
        if self._dtype in ("I8", "U8"):
            found = self._bytes()
        elif self._dtype in _MANTISSA:
            found = self._values() or [*self._low_bits(), *self._exponents()]
        else:
            found = []
        found += self._smooth()
        return [
            Finding(rule, "review", artefact, message, evidence, {"tensor": name})
            for rule, message, evidence in found
        ]

    def _smooth(self) -> list[tuple[str, str, dict[str, Any]]]:
        runs = np.concatenate(self._runs) if self._runs else np.zeros(0, np.float32)
        most = float(runs.max()) if len(runs) else 0.0
        if most < SMOOTH or most - float(np.median(runs)) < APART:
            return []
        message = "A part of a tensor runs as smoothly as a picture, and the rest does not."
        return [("samples.smooth", message, {"correlation": round(most, 2)})]

    def _bytes(self) -> list[tuple[str, str, dict[str, Any]]]:
        expected = self._count / 256
        even = float(((self._low - expected) ** 2).sum() / expected / 255)
        if self._count < EVEN_ELEMENTS or even > EVEN:
            return []
        message = "A tensor of 8 bits is spread as evenly as compressed or encrypted bytes."
        return [("payload.even", message, {"chi_square_by_freedom": round(even, 2)})]

    def _values(self) -> list[tuple[str, str, dict[str, Any]]]:
        bits = np.concatenate(self._first)[:_VALUES]
        different, counts = np.unique(bits, return_counts=True)
        evidence = {"values": int(different.size)}
        if self._dtype != "BF16" and 16 < different.size <= 256:
            message = "A tensor of real numbers takes few different values, as bytes do."
            return [("payload.few-values", message, evidence)]
        if self._dtype not in ("F32", "F64") or different.size <= 256:
            return []
        numbers = different.view("<f4" if self._dtype == "F32" else "<f8")
        with np.errstate(invalid="ignore"):
            whole = bool((numbers % 1 == 0).all())
        if whole:
            message = "A tensor of real numbers holds whole numbers only."
            return [("payload.whole-numbers", message, evidence)]
        share = float(counts[numbers != 0].max() / bits.size)
        if share > REPEATED:
            message = "One number stands again and again among real numbers."
            return [("payload.repeated", message, {"share": round(share, 2)})]
        return []

    def _low_bits(self) -> list[tuple[str, str, dict[str, Any]]]:
        odd = self._low[1::2]
        expected = max(1.0, odd.sum() / 128)
        whole = float(((odd - expected) ** 2).sum() / expected / 127)
        if self._dtype in ("F16", "BF16") or odd.sum() < LEAST_ELEMENTS // 2:
            whole = 0.0
        if whole <= UNEVEN and self._uneven <= UNEVEN_PLANE:
            return []
        message = "The lowest bits of a tensor are not spread as training spreads them."
        uneven = max(self._uneven, whole)
        return [("payload.low-bits", message, {"chi_square_by_freedom": round(uneven, 2)})]

    def _exponents(self) -> list[tuple[str, str, dict[str, Any]]]:
        mantissa = _MANTISSA[self._dtype]
        positive = self._top[: 1 << 15] + self._top[1 << 15 :]
        octaves = positive.reshape(-1, 1 << mantissa)[1:]  # without zero and the subnormal
        counts = octaves.sum(axis=1)
        whole = counts.sum()
        if whole < LEAST_ELEMENTS:
            return []
        found = []
        median = int(np.searchsorted(np.cumsum(counts), whole / 2))
        tiny = float(counts[: max(0, median - _TINY)].sum() / whole)
        if tiny > TINY_SHARE:
            message = "The exponents of a tensor spread further than training spreads them."
            found.append(("payload.exponents", message, {"share": round(tiny, 3)}))
        steps = _steps(octaves.reshape(len(octaves), 8, -1).sum(axis=2)) if mantissa > 2 else 0
        if steps >= STEPS:
            message = (
                "The numbers of a tensor jump at powers of two, as where bits of their mantissas "
                "or exponents were replaced."
            )
            found.append(("payload.steps", message, {"steps": steps}))
        return found


def _neighbours(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the correlation of neighbours in windows of 256 numbers, one at every 128."""
    if len(numbers) < _RUN:
        return np.zeros(0, np.float32)
    if not np.isfinite(numbers).all():
        numbers = np.nan_to_num(numbers, nan=0.0, posinf=0.0, neginf=0.0)
    # Every window is two halves, and so are its sums; of doubles, because a mean is taken off them.
    halves = numbers[: len(numbers) // _HALF * _HALF].astype(np.float64).reshape(-1, _HALF)
    sums, squares = halves.sum(axis=1), np.einsum("ij,ij->i", halves, halves)
    products = np.einsum("ij,ij->i", halves[:, 1:], halves[:, :-1])
    total, square = sums[:-1] + sums[1:], squares[:-1] + squares[1:]
    first, last = halves[:-1, 0], halves[1:, -1]
    inner = products[:-1] + products[1:] + halves[:-1, -1] * halves[1:, 0]
    mean = total / _RUN
    power = square - total * mean
    inner -= mean * (2 * total - first - last - (_RUN - 1) * mean)
    # What is all one number is no picture.
    told = (power > _ROUNDING * square) & (power > 1e-36)
    alike = np.divide(inner, power, out=np.zeros_like(power), where=told)
    return np.asarray(np.clip(alike, -1.0, 1.0), dtype=np.float32)


def _unevenness(plane: NDArray[np.uint8]) -> float:
    """Return the largest chi-square by degree of freedom of any window of a packed bit plane.

    Against independent bits of the plane's own share of ones.
    """
    packed = np.packbits(plane, bitorder="little")
    size = min(_WINDOW, len(packed))
    packed = packed[: len(packed) // size * size]
    windows = len(packed) // size
    at = packed + np.repeat(np.arange(windows, dtype=np.int64) * 256, size)
    counts = np.bincount(at, minlength=256 * windows).reshape(windows, 256)
    ones = (counts @ _ONES / (8 * size))[:, None]
    expected = size * ones**_ONES * (1 - ones) ** (8 - _ONES)
    chi = ((counts - expected) ** 2 / np.maximum(expected, 1.0)).sum(axis=1) / 255
    return float(chi.max())


def _steps(octaves: NDArray[np.int64]) -> int:
    """Return at how many powers of two the density jumps; rows are octaves, eight bins each.

    A smooth density, continued to the power of two from the last two bins below it and from the
    first two above, whose bins are twice as wide, is the same.
    """
    below, above = octaves[:-1].astype(np.float64), octaves[1:].astype(np.float64)
    left = 2 * (1.5 * below[:, -1] - 0.5 * below[:, -2])
    right = 1.5 * above[:, 0] - 0.5 * above[:, 1]
    spread = np.sqrt(4 * (2.25 * below[:, -1] + 0.25 * below[:, -2])
                     + 2.25 * above[:, 0] + 0.25 * above[:, 1] + 1)  # fmt: skip
    level = 2 * below[:, -1] + above[:, 0]
    jumps = np.abs(left - right)
    return int(((jumps > STEP_SPREADS * spread) & (jumps > STEP * level) & (level > 64)).sum())
