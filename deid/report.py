"""The report: JSON lines, one row an input, that say nothing of whose it is.

While a run goes on, rows are appended as files finish, so that a killed run can be resumed; at
its end the rows are written once more in the order of the inputs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from deid import output

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


def read(path: Path) -> list[Row]:
    """The rows of a report; a last line that was cut off by a kill is left out."""
    rows: list[Row] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return rows
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and "source" in value and "status" in value:
            rows.append(value)
    return rows


class Journal:
    """The report while a run goes on."""

    def __init__(self, path: Path, rows: Iterable[Row]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle: TextIO = path.open("w", encoding="utf-8")
        for each in rows:
            self._line(each)
        self._handle.flush()

    def _line(self, each: Row) -> None:
        self._handle.write(json.dumps(each, ensure_ascii=True) + "\n")

    def add(self, each: Row) -> None:
        """Append a row and hand it to the system, so that a killed process loses none."""
        try:
            self._line(each)
            self._handle.flush()
        except OSError as error:
            raise output.DiskFull from error

    def close(self) -> None:
        """Close the file as it is."""
        try:
            self._handle.close()
        except OSError:
            return

    def finish(self, rows: Iterable[Row]) -> None:
        """Replace the journal by the final rows, atomically."""
        self._handle.close()
        lines = [json.dumps(each, ensure_ascii=True) + "\n" for each in rows]
        output.write(self.path.parent, self.path.name, [line.encode() for line in lines])
