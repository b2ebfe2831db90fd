"""A submission's files as numbered, inert lines, with the static scan's advice beside them."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from django.conf import settings

from policies.document import Policy
from policies.errors import Invalid
from portal.jobs.archive import Archive
from portal.jobs.queries import inert

# A page is read by a person: more than this is fetched as the archive.
MOST_OF_A_FILE = 128 * 1024
MOST_OF_ALL = 1024 * 1024
FIRST = ("glovebox.toml",)


@dataclass(frozen=True)
class Line:
    """One line with what the scan says of it."""

    number: int
    text: str
    advice: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class CodeFile:
    """One file; ``shown`` is text, binary, cut, broken or left-out (the page was full)."""

    name: str
    bytes: int
    shown: str
    lines: tuple[Line, ...]
    advice: tuple[Mapping[str, Any], ...]  # on the file as a whole


def listing(
    stream: BinaryIO, advice: Iterable[Mapping[str, Any]] | None, policy: Policy
) -> list[CodeFile]:
    """Return every file of a submission's zip, the manifest first, as far as a page holds them.

    ``stream`` is closed. Text is made inert; what is no UTF-8 text is named and not shown.
    """
    by_file: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for one in advice or ():
        by_file[str(one["file"])].append(one)
    found: list[CodeFile] = []
    left = MOST_OF_ALL
    # Where uploads lie as well: a confined web process may write nowhere else.
    folder = settings.FILE_UPLOAD_TEMP_DIR
    with stream, tempfile.TemporaryFile(dir=folder) as plain:
        shutil.copyfileobj(stream, plain, 1 << 20)
        plain.seek(0)
        archive = Archive(plain, policy)
        for name, size in sorted(archive.sizes, key=_manifest_first):
            file = _read(archive, name, size, by_file[name], min(left, MOST_OF_A_FILE))
            left -= sum(len(line.text) for line in file.lines)
            found.append(file)
    return found


def _manifest_first(row: tuple[str, int]) -> tuple[bool, str]:
    return row[0] not in FIRST, row[0]


def _read(
    archive: Archive, name: str, size: int, advice: list[Mapping[str, Any]], limit: int
) -> CodeFile:
    by_line: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for one in advice:
        by_line[int(one["line"])].append(one)
    whole = tuple(by_line[0])
    if limit <= 0:
        return CodeFile(name, size, "left-out", (), tuple(advice))
    try:
        data = archive.beginning(name, limit)
    except Invalid:
        return CodeFile(name, size, "broken", (), tuple(advice))
    if b"\0" in data:
        return CodeFile(name, size, "binary", (), tuple(advice))
    try:
        # A character may be cut in two at the limit: then only its bytes are lost.
        text = data.decode("utf-8", "ignore" if len(data) < size else "strict")
    except UnicodeDecodeError:
        return CodeFile(name, size, "binary", (), tuple(advice))
    lines = tuple(
        Line(number, inert(line), tuple(by_line[number]))
        for number, line in enumerate(text.split("\n"), start=1)
    )
    return CodeFile(name, size, "cut" if len(data) < size else "text", lines, whole)
