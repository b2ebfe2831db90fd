"""A bar on a terminal: how many files, how fast, how long still. It names no file."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from tqdm import tqdm


class Bar:
    """Called with the number done and the number of all; the bar appears at the first call."""

    def __init__(self, words: str, stream: TextIO) -> None:
        self._words, self._stream = words, stream
        self._began = time.time()
        self._bar: tqdm[None] | None = None

    def __call__(self, done: int, total: int, _row: Mapping[str, object] | None = None) -> None:
        """Move the bar to ``done`` of ``total``."""
        if self._bar is None:
            size = shutil.get_terminal_size()
            self._bar = tqdm(
                desc=self._words, total=total, unit=" files", file=self._stream,
                # On a terminal that does not say its size tqdm would hide the bar.
                ncols=size.columns, nrows=size.lines,
            )  # fmt: skip
            # The first file counts too: tqdm's own clock starts when it is done.
            self._bar.start_t = self._began
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it stands and end its line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def bar(words: str, *, json: bool, stream: TextIO | None = None) -> Bar | None:
    """A bar where a person watches: none for a program, a file or a pipe."""
    stream = sys.stderr if stream is None else stream
    return Bar(words, stream) if not json and stream.isatty() else None
