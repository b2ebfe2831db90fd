"""Ask the network within a time, in an order that it cannot know."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from policies.errors import GloveboxError
from policies.tensors import TensorFact
from sandbox_runner.oracle import OracleFault

BATCH: Final = 32


class OutOfTime(GloveboxError):
    """The time for an attack was used up before it was done."""


class Network(Protocol):
    """What attacks may ask; :class:`sandbox_runner.oracle.Oracle` is one."""

    def predict(self, batch: NDArray[np.float32], outputs: int = ...) -> NDArray[np.float32]:
        """Return the answers, float32 [n, k] with k at most ``outputs``."""

    def gradient(
        self, batch: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the gradient of the weighted sum of the answers, in the shape of ``batch``."""

    def widths(self, batch: NDArray[np.float32]) -> dict[int, int]:
        """Return how many layers answer with how many numbers a picture."""

    def features(
        self, batch: NDArray[np.float32], width: int, first: int = ...
    ) -> list[NDArray[np.float32]]:
        """Return what layers answer that give ``width`` numbers a picture, each [n, width]."""

    def put(self, fact: TensorFact, array: NDArray[Any]) -> None:
        """Replace the values of one tensor."""


class Asker:
    """A network, and until when it may be asked.

    ``pulse`` is called at each batch: it may raise to end the whole inspection.
    """

    def __init__(
        self,
        network: Network,
        seconds: float,
        outputs: int = 4096,
        pulse: Callable[[], None] | None = None,
    ) -> None:
        self.network, self.outputs, self._pulse = network, outputs, pulse
        self._end = time.monotonic() + seconds
        self._rng = np.random.default_rng(secrets.randbits(128))

    @property
    def left(self) -> float:
        """Seconds left."""
        return self._end - time.monotonic()

    def check(self) -> None:
        """Raise OutOfTime if the time is used up."""
        if self._pulse is not None:
            self._pulse()
        if self.left <= 0:
            raise OutOfTime

    def seconds_a_picture(self, pixels: NDArray[np.float32]) -> float:
        """Return how long one picture takes in a batch: the shortest of three, neighbours aside."""
        batch = pixels[self._rng.permutation(len(pixels))[:BATCH]]
        times = []
        for _ in range(3):
            self.check()
            start = time.monotonic()
            self.network.predict(batch, self.outputs)
            times.append(time.monotonic() - start)
        return min(times) / len(batch)

    def shuffled(
        self,
        count: int,
        pictures: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        ask: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
    ) -> NDArray[np.float32]:
        """Return the answers [count, k] to the pictures that ``pictures`` makes of their numbers.

        Members and others come in the same batches, each batch in an order of its own.
        Raises OracleFault and OutOfTime.
        """
        asked = ask or (lambda batch: self.network.predict(batch, self.outputs))
        order = self._rng.permutation(count)
        answers: NDArray[np.float32] | None = None
        for start in range(0, count, BATCH):
            self.check()
            chosen = order[start : start + BATCH]
            given = asked(pictures(chosen))
            if answers is None:
                answers = np.zeros((count, given.shape[1]), np.float32)
            if given.shape != (len(chosen), answers.shape[1]):
                raise OracleFault("shape")
            answers[chosen] = given
        if answers is None:
            raise ValueError("no pictures")
        return answers
