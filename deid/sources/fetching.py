"""Take every original of a source into a folder; what was taken before is not asked for again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from deid.sources.originals import Full, Originals, Refused
from policies.errors import CannotRun, _

# An original is asked for so often; after so many failures in a row the source is taken for gone.
ATTEMPTS, GIVE_UP = 3, 10
PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Item:
    """A remote original. ``name`` identifies it at its source and is never written anywhere."""

    name: tuple[str, ...] = field(repr=False)
    size: int | None = None


class Source(Protocol):
    """Where originals come from. Its methods raise Refused for one, CannotRun for all."""

    kind: str

    def items(self) -> Iterator[Item]:
        """List the originals in an order that stays."""

    def open(self, item: Item) -> AbstractContextManager[Iterable[bytes]]:
        """Give the bytes of an original; they are whole only when the iteration ends."""

    def check(self, item: Item, part: Path) -> None:
        """Raise Refused when the whole file is not what was asked for."""


@dataclass
class Summary:
    """The counts of a run, by what became of each listed original."""

    listed: int = 0
    new: int = 0
    already: int = 0
    doubled: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def as_mapping(self) -> dict[str, Any]:
        """The JSON document of ``glovebox intake fetch --json``."""
        return {
            "listed": self.listed, "new": self.new, "already": self.already,
            "doubled": self.doubled, "refused": dict(sorted(self.refused.items())),
        }  # fmt: skip


def fetch(
    source: Source, originals: Originals, progress: Callable[[Summary], None] | None = None
) -> Summary:
    """Take what is new. One bad original is counted and left; raises :class:`CannotRun` when the
    source is gone or the folder is full."""
    summary = Summary()
    in_a_row = 0
    for item in source.items():
        summary.listed += 1
        if summary.listed > originals.bounds.files:
            raise Full(
                _("The source lists more than the folder may hold; raise --files or ask for less."),
                code="intake.files",
            )
        token = originals.token(source.kind, *item.name)
        if originals.has(token):
            summary.already += 1
        else:
            try:
                digest, new = _taken(source, item, originals)
            except Refused as refused:
                summary.refused[refused.reason] += 1
                in_a_row = in_a_row + 1 if refused.again else 0
                if in_a_row >= GIVE_UP:
                    raise CannotRun(
                        _("The source stopped answering; run the same command again later."),
                        code="intake.gone",
                    ) from None
            else:
                in_a_row = 0
                originals.remember(token, digest)
                summary.new += new
                summary.doubled += not new
        if progress is not None:
            progress(summary)
    return summary


def _taken(source: Source, item: Item, originals: Originals) -> tuple[str, bool]:
    if item.size is not None:
        if item.size > originals.bounds.file_bytes:
            raise Refused("too-large")
        originals.room(item.size)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with source.open(item) as pieces:
                return originals.take(pieces, source.kind, lambda part: source.check(item, part))
        except Refused as refused:
            if not refused.again or attempt == ATTEMPTS:
                raise
        time.sleep(PAUSE_SECONDS * 2**attempt)
    raise AssertionError("unreachable")
