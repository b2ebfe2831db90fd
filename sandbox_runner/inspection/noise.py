"""Noise that nobody can predict: straight from the kernel's generator.

A seeded generator would not do. Whoever knows the weights before and after knows some of its
output, and could look for its state in order to know the rest.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray


def gaussian(count: int) -> NDArray[np.float32]:
    """Return ``count`` independent standard normal numbers (Box and Muller 1958)."""
    half = (count + 1) // 2
    words = np.frombuffer(os.urandom(8 * half), dtype="<u4")
    # Halfway between steps, so that the logarithm is finite.
    first = (words[:half].astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
    angle = words[half:].astype(np.float32) * np.float32(2 * np.pi * 2.0**-32)
    radius = np.sqrt(np.float32(-2) * np.log(np.minimum(first, np.float32(1 - 2.0**-24))))
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def steps(count: int, bits: int) -> NDArray[np.int32]:
    """Return ``count`` independent whole numbers, uniform in [-2**(bits-1), 2**(bits-1))."""
    words = np.frombuffer(os.urandom(count), dtype=np.uint8) & np.uint8((1 << bits) - 1)
    return words.astype(np.int32) - (1 << bits >> 1)
