"""How far an inspection is, on standard error: a bar on a terminal, a line a step elsewhere."""

from __future__ import annotations

import sys
import time
from typing import IO, Final

_WIDTH: Final = 30


class Bar:
    """Called with a step and its share done, 0 to 1."""

    def __init__(self, stream: IO[str] = sys.stderr) -> None:
        self._stream = stream
        self._moves = stream.isatty()
        self._step = ""
        self._since = time.monotonic()

    def __call__(self, step: str, share: float) -> None:
        if step != self._step:
            self.end()
            self._step, self._since = step, time.monotonic()
            if not self._moves:
                print(f"{step} ...", file=self._stream, flush=True)
        if self._moves:
            full = round(_WIDTH * min(1.0, max(0.0, share)))
            seconds = time.monotonic() - self._since
            line = (
                f"\r{step:<12} [{'#' * full}{'.' * (_WIDTH - full)}] {share:4.0%} {seconds:4.0f} s"
            )
            self._stream.write(line)
            self._stream.flush()

    def end(self) -> None:
        """Leave the bar where it is and begin a new line."""
        if self._moves and self._step:
            self._stream.write("\n")
            self._stream.flush()
        self._step = ""
