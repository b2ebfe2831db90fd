"""The folder that a sealed program writes into, and the careful taking of files out of it.

The program decodes strangers' files, so what it leaves is treated as written by them: nothing is
followed, and a path or a line that is not as its contract says ends the step.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from policies.errors import GloveboxError
from sandbox_runner.regular_files import NotRegular, open_plain

DOCUMENT_BYTES = 64 << 20
LINE_BYTES = 4 << 20
STATUSES = frozenset({"written", "unchanged", "quarantined", "failed"})
KEPT = frozenset({"written", "unchanged"})
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SOURCE = re.compile(r"[0-9A-Za-z-]{1,64}")
_TARGET = re.compile(r"(?:[A-Za-z0-9_-]{1,100}/)?[A-Za-z0-9_-]{1,100}\.[a-z0-9]{1,8}")


class BadResult(GloveboxError):
    """A sealed program left something that its contract does not know. Names no content."""


def make(path: Path) -> Path:
    """Make the folder, or keep one that an interrupted run left."""
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink() or not path.is_dir():
        raise BadResult("the program's folder is no folder")
    return path


def opened(room: Path, relative: str) -> BinaryIO:
    """Open a regular file below the room for reading. Raises FileNotFoundError, BadResult."""
    top = os.open(room, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.fdopen(open_plain(top, relative), "rb")
    except FileNotFoundError:
        raise
    except (NotRegular, OSError):
        raise BadResult("a result is no plain file") from None
    finally:
        os.close(top)


def document(room: Path, relative: str) -> dict[str, Any]:
    """Return a small JSON object that the program wrote."""
    with opened(room, relative) as stream:
        data = stream.read(DOCUMENT_BYTES + 1)
    try:
        value = json.loads(data) if len(data) <= DOCUMENT_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadResult("a result is no JSON object")
    return value


def count_lines(room: Path, relative: str) -> int:
    """Return how many complete lines a file has that may still be written to."""
    try:
        with opened(room, relative) as stream:
            return sum(line.endswith(b"\n") for line in _lines(stream))
    except (FileNotFoundError, BadResult):
        return 0


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    while line := stream.readline(LINE_BYTES + 1):
        if len(line) > LINE_BYTES:
            raise BadResult("a line of the report is too long")
        yield line


def report(room: Path, relative: str) -> Iterator[dict[str, Any]]:
    """Give the rows of a finished report, each checked. Raises BadResult."""
    with opened(room, relative) as stream:
        for line in _lines(stream):
            yield _row(line)


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise BadResult("a row of the report is no JSON object")
    kept = row.get("status") in KEPT
    target, digest = row.get("target"), row.get("digest")
    sound = (
        row.get("status") in STATUSES
        and isinstance(row.get("source"), str)
        and _SOURCE.fullmatch(row["source"])
        and isinstance(target, str)
        and (_TARGET.fullmatch(target) if kept else target == "")
        and isinstance(digest, str)
        and (_DIGEST.fullmatch(digest) if kept else True)
        and isinstance(row.get("reason"), str)
        and all(isinstance(row.get(name), dict) for name in ("actions", "boxes", "stratum"))
        and isinstance(row.get("kind"), str)
        and isinstance(row.get("seconds"), int | float)
    )
    if not sound:
        raise BadResult("a row of the report is not as the contract says")
    return row
