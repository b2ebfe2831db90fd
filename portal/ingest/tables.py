"""Take files and subjects that are no longer published out of a version's own tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection
from typing import Any

_GONE = object()


def without(path: str, content: bytes, gone: Collection[str]) -> bytes | None:
    """Return a published table without what names one of ``gone``; None where nothing is left.

    A row of a CSV, or an object of a JSON document, goes when one of its own cells is the path of
    a withdrawn file or the pseudonym of a subject who has no file left. A table that names none
    of them is returned byte for byte.
    """
    if path.endswith(".csv"):
        return _csv(content, gone)
    if path.endswith(".json"):
        return _json(content, gone)
    return content


def _csv(content: bytes, gone: Collection[str]) -> bytes:
    lines = list(csv.reader(io.StringIO(content.decode(), newline="")))
    kept = [lines[0], *(line for line in lines[1:] if not any(cell in gone for cell in line))]
    if len(kept) == len(lines):
        return content
    sheet = io.StringIO()
    csv.writer(sheet, lineterminator="\n").writerows(kept)
    return sheet.getvalue().encode()


def _json(content: bytes, gone: Collection[str]) -> bytes | None:
    document = json.loads(content)
    cleaned = _node(document, gone)
    if cleaned is _GONE or cleaned == []:
        return None
    if cleaned == document:
        return content
    return json.dumps(cleaned, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"


def _node(node: Any, gone: Collection[str]) -> Any:
    if isinstance(node, list):
        return [each for each in (_node(item, gone) for item in node) if each is not _GONE]
    if isinstance(node, dict):
        if any(isinstance(value, str) and value in gone for value in node.values()):
            return _GONE
        cleaned = {key: _node(value, gone) for key, value in node.items()}
        return {key: value for key, value in cleaned.items() if value is not _GONE}
    return node
