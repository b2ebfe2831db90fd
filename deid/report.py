"""The report: JSON lines, one row an input, that say nothing of whose it is.

While a run goes on, rows are appended as files finish, so that a killed run can be resumed; at
its end the rows are written once more in the order of the inputs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from deid import output
from policies.errors import Invalid, _

STATUSES = ("written", "unchanged", "quarantined", "failed")
Row = dict[str, Any]
Boxes = dict[str, list[dict[str, int | float]]]


@dataclass
class Summary:
    """The counts of a run. ``foreign`` counts files under DST that this run did not make."""

    inputs: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    foreign: int = 0
    seconds: float = 0.0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row."""
        self.inputs += 1
        self.statuses[str(row["status"])] += 1
        if row["reason"]:
            self.reasons[str(row["reason"])] += 1
        for kind, boxes in row["boxes"].items():
            self.boxes[str(kind)] += len(boxes)

    def as_mapping(self) -> dict[str, Any]:
        """The JSON document of ``glovebox deid --json``."""
        return {
            "inputs": self.inputs,
            **{status: self.statuses[status] for status in STATUSES},
            "reasons": dict(sorted(self.reasons.items())),
            "boxes": dict(sorted(self.boxes.items())),
            "foreign": self.foreign,
            "seconds": round(self.seconds, 3),
        }


def row(
    source: str,
    status: str,
    *,
    kind: str,
    run: str,
    target: str = "",
    reason: str = "",
    actions: Mapping[str, str] | None = None,
    boxes: Boxes | None = None,
    stratum: Mapping[str, str] | None = None,
    digest: str = "",
    review: str = "",
    seconds: float = 0.0,
) -> Row:
    """One row. ``boxes`` are ``x, y, width, height, score`` in pixels of the image, by kind.

    ``review`` is the reason why a person has to look at this output, whatever the sample is.
    """
    return {
        "source": source,
        "status": status,
        "target": target,
        "reason": reason,
        "actions": dict(sorted((actions or {}).items())),
        "boxes": dict(boxes or {}),
        "kind": kind,
        "stratum": dict(stratum or {}),
        "review": review,
        "digest": digest,
        "run": run,
        "seconds": round(seconds, 4),
    }


def read(path: Path) -> Iterator[Row]:
    """The rows of a report, one after another; a line that was cut off by a kill is left out."""
    try:
        handle = path.open("rb")
    except OSError:
        return
    with handle:
        for line in handle:
            value = _row_of(line)
            if value is not None:
                yield value


def _row_of(line: bytes) -> Row | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "source" in value and "status" in value else None


class Journal:
    """The report while a run goes on: on the disk, with the place of every row, not in memory."""

    def __init__(self, path: Path, kept: Iterable[Row]) -> None:
        """Begin with the rows of a former run, which stay findable by their source.

        The former report stands until they are written. Raises :class:`Invalid` where the report
        cannot be written or another run writes it.
        """
        self.path = path
        self._places: dict[int, int] = {}  # of a row, by the place of its input
        self._kept: dict[str, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            former = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                _lock(former)
                with output.draft(path) as begun:
                    for each in kept:
                        self._kept[str(each["source"])] = begun.tell()
                        begun.write(_line(each))
            finally:
                os.close(former)
            self._handle: BinaryIO = path.open("r+b")
            _lock(self._handle.fileno())
            self._end = self._handle.seek(0, os.SEEK_END)
        except (OSError, output.Unwritable):
            raise Invalid(_("The report cannot be written there."), field="--report") from None

    def __len__(self) -> int:
        return len(self._places)

    def add(self, index: int, each: Row) -> None:
        """Append the row of an input and hand it to the system: a killed process loses none."""
        line = _line(each)
        try:
            self._handle.seek(self._end)
            self._handle.write(line)
            self._handle.flush()
        except OSError as error:
            raise output.cannot_store(error) from None
        self._places[index] = self._end
        self._end += len(line)

    def kept(self, source: str) -> Row:
        """The former run's row of a source."""
        row: Row = json.loads(self._line_at(self._kept[source]))
        return row

    def _line_at(self, place: int) -> bytes:
        self._handle.seek(place)
        return self._handle.readline()

    def close(self) -> None:
        """Close the file as it is."""
        with contextlib.suppress(OSError):
            self._handle.close()

    def finish(self) -> Summary:
        """Replace the journal by the final rows in the order of the inputs, and count them."""
        summary = Summary()
        with output.draft(self.path) as final:
            for index in sorted(self._places):
                line = self._line_at(self._places[index])
                summary.add(json.loads(line))
                final.write(line)
        return summary


def _line(each: Row) -> bytes:
    return (json.dumps(each, ensure_ascii=True) + "\n").encode()


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Invalid(_("Another run writes this report; wait for its end."), field="--report"
                      ) from None  # fmt: skip
    except OSError:
        return  # a file system without locks
