"""One line a step: number, what happened, seconds, the page to look at."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from policies.errors import GloveboxError, UserError

T = TypeVar("T")


class StepFailed(GloveboxError):
    """A step did not do what the demonstration promises; the text is the step's name."""


class Narrator:
    """Prints the steps as they are done, and remembers the seconds of each."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, number: int, name: str, page: str = "/") -> Iterator[Callable[[str], None]]:
        """Run one step; call the given function with what happened."""
        started = time.monotonic()
        said: list[str] = []
        try:
            yield said.append
        except UserError as error:
            field = f"{error.field}: " if error.field else ""
            raise StepFailed(f"{number} {name}: {field}{error}") from error
        except StepFailed as error:
            raise StepFailed(f"{number} {name}: {error}") from error
        seconds = time.monotonic() - started
        self.seconds[f"{number} {name}"] = seconds
        what = "; ".join(said)
        print(f"{number:>2}  {name}: {what}  [{seconds:.1f} s]  {self.url}{page}", flush=True)

    def say(self, text: str) -> None:
        """Print a line that is no step."""
        print(f"    {text}", flush=True)

    def warn(self, text: str) -> None:
        """Print a line for people on standard error."""
        print(text, file=sys.stderr, flush=True)


def until(look: Callable[[], T | None], *, seconds: float, what: str, pause: float = 0.5) -> T:
    """Call ``look`` until it gives something; StepFailed after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > end:
            raise StepFailed(f"waited {seconds:.0f} s for {what}")
        time.sleep(pause)
