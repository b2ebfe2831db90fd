"""Two submissions file by file: what was added and removed, with the lines around it.

The files are a stranger's. The comparison is Myers' (1986), which costs as much as there are
differences, and stops at a bound: beyond it a stretch is shown as removed and added whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from portal.jobs.code_listing import CodeFile

MOST_EDITS = 600
AROUND = 3
Step = tuple[str, int, int]  # "same", "removed" or "added", with the line numbers of old and new


@dataclass(frozen=True)
class DiffLine:
    """One line; ``kind`` is same, added, removed, or gap for lines that are left out."""

    kind: str
    old: int
    new: int
    text: str

    @property
    def sign(self) -> str:
        """Return how the line is marked for who does not see colours."""
        return {"added": "+", "removed": "-"}.get(self.kind, "")


@dataclass(frozen=True)
class DiffFile:
    """One file of either submission; ``kind`` is same, changed, added, removed or unread."""

    name: str
    kind: str
    lines: tuple[DiffLine, ...] = ()

    @property
    def added(self) -> int:
        """Return how many lines are new."""
        return sum(line.kind == "added" for line in self.lines)

    @property
    def removed(self) -> int:
        """Return how many lines are gone."""
        return sum(line.kind == "removed" for line in self.lines)


def differences(old: Sequence[CodeFile], new: Sequence[CodeFile]) -> list[DiffFile]:
    """Return every file of two submissions, in the order of the new one, then what is gone."""
    before = {file.name: file for file in old}
    found = [_compared(before.pop(file.name, None), file) for file in new]
    return found + [_compared(file, None) for file in before.values()]


def _compared(old: CodeFile | None, new: CodeFile | None) -> DiffFile:
    name = (new or old).name  # type: ignore[union-attr]
    kind = "added" if old is None else "removed" if new is None else "changed"
    if any(file is not None and file.shown != "text" for file in (old, new)):
        return DiffFile(name, "unread")
    a = [line.text for line in old.lines] if old else []
    b = [line.text for line in new.lines] if new else []
    if old and new and a == b:
        return DiffFile(name, "same")
    return DiffFile(name, kind, tuple(_shown(a, b, list(steps(a, b)))))


def steps(a: Sequence[str], b: Sequence[str]) -> Iterator[Step]:
    """Return how ``a`` becomes ``b``, line by line; positions count from 0."""
    head = 0
    while head < min(len(a), len(b)) and a[head] == b[head]:
        head += 1
    tail = 0
    while tail < min(len(a), len(b)) - head and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    for n in range(head):
        yield "same", n, n
    inner_a, inner_b = a[head : len(a) - tail], b[head : len(b) - tail]
    for kind, x, y in _myers(inner_a, inner_b):
        yield kind, x + head, y + head
    for n in range(tail, 0, -1):
        yield "same", len(a) - n, len(b) - n


def _myers(a: Sequence[str], b: Sequence[str]) -> list[Step]:
    reach: dict[int, int] = {1: 0}
    trace: list[dict[int, int]] = []
    for edits in range(min(len(a) + len(b), MOST_EDITS) + 1):
        trace.append(dict(reach))
        for diagonal in range(-edits, edits + 1, 2):
            down = diagonal == -edits or (
                diagonal != edits and reach[diagonal - 1] < reach[diagonal + 1]
            )
            x = reach[diagonal + 1] if down else reach[diagonal - 1] + 1
            while x < len(a) and 0 <= x - diagonal < len(b) and a[x] == b[x - diagonal]:
                x += 1
            reach[diagonal] = x
            if x >= len(a) and x - diagonal >= len(b):
                return _walked(trace, len(a), len(b))
    return [("removed", n, 0) for n in range(len(a))] + [("added", 0, n) for n in range(len(b))]


def _walked(trace: list[dict[int, int]], x: int, y: int) -> list[Step]:
    back: list[Step] = []
    for edits in range(len(trace) - 1, -1, -1):
        reach, diagonal = trace[edits], x - y
        down = diagonal == -edits or (
            diagonal != edits and reach[diagonal - 1] < reach[diagonal + 1]
        )
        before = diagonal + 1 if down else diagonal - 1
        from_x = reach[before]
        from_y = from_x - before
        while x > max(from_x, 0) and y > max(from_y, 0):
            x, y = x - 1, y - 1
            back.append(("same", x, y))
        if edits:
            back.append(("added", from_x, from_y) if down else ("removed", from_x, from_y))
        x, y = from_x, from_y
    return back[::-1]


def _shown(a: Sequence[str], b: Sequence[str], found: list[Step]) -> Iterator[DiffLine]:
    """Return the lines that changed, with a few around them; the rest is one gap."""
    near: set[int] = set()
    for place, (kind, _x, _y) in enumerate(found):
        if kind != "same":
            near.update(range(place - AROUND, place + AROUND + 1))
    gap = False
    for place, (kind, x, y) in enumerate(found):
        if place not in near:
            if not gap:
                yield DiffLine("gap", 0, 0, "")
            gap = True
            continue
        gap = False
        text = b[y] if kind == "added" else a[x]
        yield DiffLine(
            kind, x + 1 if kind != "added" else 0, y + 1 if kind != "removed" else 0, text
        )
