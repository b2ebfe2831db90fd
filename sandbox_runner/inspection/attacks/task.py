"""What the network is for, as its ``[config]`` says: that decides which attacks there are.

``task``: ``classification`` (the default; settings of the trusted evaluation), ``reconstruction``
(a picture in, a picture of that size out), ``generation`` (``latent = k``: k numbers in, a picture
of ``size`` out) or ``verification`` (a picture in, a template out). Another task is attacked by
what its weights and layers show alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from policies.submission import Manifest
from sandbox_runner.inspection import evaluation
from sandbox_runner.oracle import OUTPUTS_A_PICTURE

KINDS: Final = ("classification", "reconstruction", "generation", "verification")
MOST_LATENT: Final = 4096
#: Of a large picture a network's answer is not compared: it would be asked for too many numbers.
MOST_PIXELS: Final = 1024 * 1024
#: A task that is not known may answer so many numbers a pixel, as masks of several organs do.
MASKS: Final = 8


@dataclass(frozen=True)
class Task:
    """``kind`` is "other" for a task that is not known."""

    kind: str
    size: tuple[int, int]
    positive_label: str | None = None
    threshold: float = 0.0
    latent: int = 0

    @property
    def outputs(self) -> int:
        """How many numbers a network may answer a picture."""
        pixels = self.size[0] * self.size[1]
        if self.kind == "reconstruction":
            return pixels
        if self.kind == "generation":
            return max(pixels, OUTPUTS_A_PICTURE)
        if self.kind == "other" and pixels <= MOST_PIXELS:
            return max(MASKS * pixels, OUTPUTS_A_PICTURE)
        return OUTPUTS_A_PICTURE


def read(manifest: Manifest) -> Task | None:
    """Return the task, or None where ``[config]`` does not say how large pictures are."""
    config = manifest.config
    kind: Any = config.get("task", "classification")
    settings = evaluation.read_settings(manifest)
    if settings is not None and kind == "classification":
        return Task(kind, settings.size, settings.positive_label, settings.threshold)
    size, latent = config.get("size"), config.get("latent")
    if (
        not isinstance(size, list | tuple)
        or len(size) != 2
        or not all(type(side) is int and 1 <= side <= evaluation.MOST_SIDE for side in size)
    ):
        return None
    if kind not in KINDS or kind == "classification" or size[0] * size[1] > MOST_PIXELS:
        return Task("other", (size[0], size[1]))
    if kind == "generation":
        if type(latent) is not int or not 1 <= latent <= MOST_LATENT:
            return Task("other", (size[0], size[1]))
        return Task(kind, (size[0], size[1]), latent=latent)
    return Task(kind, (size[0], size[1]))
