"""What looks for text by default."""

from __future__ import annotations

from functools import lru_cache

from deid.pixels.interface import Box, Image, TextDetector, without_contained
from deid.pixels.stroke_network import StrokeNetwork
from deid.pixels.text_network import TextNetwork


class TwoNetworks:
    """The union of two networks that learnt apart: what one overlooks the other may see.

    Strokes of any script, size and contrast are found by our own; lines in heavy noise by the
    other, of which one quick look is enough then.
    """

    def __init__(self, *, threads: int = 1) -> None:
        self._strokes = StrokeNetwork(threads=threads)
        self._lines = TextNetwork(threads=threads)

    def detect(self, image: Image) -> list[Box]:
        """The boxes of both."""
        return without_contained([*self._strokes.detect(image), *self._lines.glance(image)])

    def glance(self, image: Image) -> list[Box]:
        """The boxes of a quick look of both."""
        return without_contained([*self._strokes.glance(image), *self._lines.glance(image)])


@lru_cache(maxsize=4)
def default_text_detector(threads: int = 1) -> TextDetector:
    """The text detector of the shipped profiles; one session a process, kept.

    Raises :class:`policies.errors.CannotRun` when a network's file is not installed.
    """
    return TwoNetworks(threads=threads)
