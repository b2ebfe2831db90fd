"""How many hidden bits rewritten weights can still carry at most.

Upper bounds, in bits, for whoever chose the numbers, knows the method and lacks only the noise.
They hold for every code: low bits, signs, norms, the order of hidden units, spread spectrum. What
is not credited is that the numbers must also still work as a network. Sums are bounds, too, for
each piece has noise of its own.
"""

from __future__ import annotations

import math
from typing import Final

#: Below this many octaves under a tensor's largest number, a number becomes zero.
OCTAVES: Final = 24
#: Noise may carry a number this many octaves over the largest, not further.
ABOVE: Final = 2
#: A piece's scale is rounded up to one of so many an octave; fewer scales say less.
SCALES: Final = 4
#: Stored magnitudes an octave of bfloat16 has.
BF16_STEPS: Final = 128
#: Which octave a tensor's largest number lies in (-149 to 128, or none).
TENSOR_BITS: Final = math.log2(279)


def scale_bits() -> float:
    """Return what the choice of one piece's scale can say: zero, or one of its steps."""
    return math.log2(SCALES * OCTAVES + 2)


def noisy_bits(count: int, noise: float) -> float:
    """Return the bound for ``count`` numbers with Gaussian noise of ``noise`` times their scale.

    The capacity of the Gaussian channel under a power limit, count/2 log2(1 + 1/noise^2) (Shannon
    1949; Cover and Thomas, Elements of Information Theory, theorem 9.1.1): the scale is at least
    the numbers' root mean square, so their power is at most its square. Whatever is done to the
    noisy numbers afterwards tells no more (data processing).
    """
    if noise <= 0:
        return math.inf
    return 0.5 * count * math.log2(1 + noise**-2)


def dithered_bits(count: int, codes: int, bits: int, *, signed: bool) -> float:
    """Return the bound for ``count`` stored codes to which one of 2**bits steps was added.

    With uniform noise of n steps on ``codes`` codes there are codes + n - 1 outcomes, of which
    each input makes n equally likely: log2((codes + n - 1) / n). Where the sign is apart
    (``signed``), both signs and zero are channels whose outcomes differ, and 2**bits of theirs add.
    """
    steps = 1 << bits
    one = (codes + steps - 1) / steps
    return count * math.log2(1 + 2 * one if signed else one)


def bf16_bits(count: int, bits: int) -> float:
    """Return :func:`dithered_bits` of bfloat16 between the octaves that are let through."""
    return dithered_bits(count, (OCTAVES + ABOVE) * BF16_STEPS, bits, signed=True)


def piece_bits(count: int, noise: float, stored: float) -> float:
    """Return the bound of a piece with one scale; ``stored`` is its bound by dither alone."""
    return scale_bits() + min(noisy_bits(count, noise), stored)
