"""What looks for text by default."""

from __future__ import annotations

from functools import lru_cache

from deid.pixels.interface import TextDetector
from deid.pixels.stroke_network import StrokeNetwork


@lru_cache(maxsize=4)
def default_text_detector(threads: int = 1) -> TextDetector:
    """The text detector of the shipped profiles; one session a process, kept.

    Raises :class:`policies.errors.CannotRun` when the network's file is not installed.
    """
    return StrokeNetwork(threads=threads)
