"""Read what a sealed program says about itself: numbers of declared names, and one fault.

The descriptor is the program's to write what it likes, so every line is proven before any of it
is used, and nothing but a number, a declared name, a built-in type's name, a file of the
submission and one of its line numbers ever comes out.
"""

from __future__ import annotations

import builtins
import json
import math
from collections.abc import Mapping
from typing import Any, Final

from sandbox_runner.spec import Fault, Progress

LINE_BYTES: Final = 4096
LINES: Final = 100_000
MAGNITUDE: Final = 1e12
STEPS: Final = 10**9

BUILT_IN_EXCEPTIONS: Final = frozenset(
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException) and value.__name__ == name
)

# What an exception may say of the cause, in words of this table only.
CAUSES: Final = frozenset({"output-full", "processes", "memory"})


def _refuse_constant(_text: str) -> float:
    raise ValueError


class ProgressReader:
    """Turns bytes from the descriptor into calls of ``progress`` and at most one fault."""

    def __init__(
        self, metrics: frozenset[str], code: Mapping[str, int], progress: Progress | None
    ) -> None:
        self._metrics = metrics
        self._code = code
        self._progress = progress
        self._pending = b""
        self._skipping = False
        self._lines = 0
        self.refused = 0
        self.fault: Fault | None = None
        self.cause: str | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes as they come; an over-long line is thrown away up to its end."""
        if self._lines > LINES:  # a flood: reading it must not cost more than writing it
            return
        self._pending += data
        *lines, self._pending = self._pending.split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
            else:
                self._take(line)
        if len(self._pending) > LINE_BYTES:
            self._pending = b""
            self._skipping = True
            self.refused += 1

    def _take(self, line: bytes) -> None:
        self._lines += 1
        if self._lines > LINES or len(line) > LINE_BYTES:
            self.refused += 1
            return
        try:
            document = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            self.refused += 1
            return
        if isinstance(document, dict) and document.keys() == {"step", "values"}:
            self._take_numbers(document["step"], document["values"])
        elif isinstance(document, dict) and document.keys() == {"step", "metrics"}:
            self._take_numbers(document["step"], document["metrics"])
        elif isinstance(document, dict) and document.keys() == {"fault"}:
            self._take_fault(document["fault"])
        else:
            self.refused += 1

    def _take_numbers(self, step: Any, values: Any) -> None:
        if type(step) is not int or not 0 <= step <= STEPS or not isinstance(values, dict):
            self.refused += 1
            return
        kept: dict[str, float] = {}
        for name, value in values.items():
            # bool is an int in Python and no number here; an int may be too large for a float.
            is_number = type(value) is float or type(value) is int
            if name in self._metrics and is_number and abs(value) <= MAGNITUDE:
                kept[name] = float(value)
            else:
                self.refused += 1
        if kept and all(map(math.isfinite, kept.values())) and self._progress is not None:
            self._progress(step, kept)

    def _take_fault(self, document: Any) -> None:
        if self.fault is not None or not isinstance(document, dict):
            self.refused += 1
            return
        name, file, line = (document.get(key) for key in ("type", "file", "line"))
        known = isinstance(name, str) and name in BUILT_IN_EXCEPTIONS
        placed = (
            isinstance(file, str) and type(line) is int and 1 <= line <= self._code.get(file, 0)
        )
        self.fault = Fault(
            type=str(name) if known else "other",
            file=str(file) if placed else "",
            line=int(line) if placed and line is not None else 0,
        )
        cause = document.get("cause")
        self.cause = cause if isinstance(cause, str) and cause in CAUSES else None
