"""Let progress through seldom and rounded: what leaks this way is bounded by number and size."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from policies.errors import Invalid
from policies.ledger import round_tick
from policies.metrics import MetricSpec
from sandbox_runner.spec import Progress


class Ticks:
    """A :data:`Progress` that passes on at most one rounded tick every ``seconds``.

    What comes between is dropped: keeping the last of them for later would let the time at which
    a program speaks say something. Numbers outside of their declared range are dropped too.
    """

    def __init__(
        self,
        specs: Mapping[str, MetricSpec],
        seconds: float,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._specs = {n: s for n, s in specs.items() if s.kind in ("number", "curve")}
        self._seconds = seconds
        self._progress = progress
        self._clock = clock
        self._last: float | None = None

    @property
    def names(self) -> frozenset[str]:
        """The metrics that may be reported while the job runs."""
        return frozenset(self._specs)

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Take one tick of the job's."""
        now = self._clock()
        if self._last is not None and now - self._last < self._seconds:
            return
        try:
            step, rounded = round_tick(self._specs, step, values)
        except Invalid:
            return
        kept = {name: value for name, value in rounded.items() if value is not None}
        if kept:
            self._last = now
            self._progress(step, kept)
