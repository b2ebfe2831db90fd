"""Side files: only the columns that the profile declares, each cleaned by its kind."""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from deid.dicom import text as free_text
from deid.dicom import values
from deid.quarantine import Quarantined
from deid.vault import Pseudonyms

LONGEST_KEPT = 500
_IDENTIFYING = re.compile(r"\d{6}|@|\^|\d[-./]\d+[-./]\d|[\x00-\x08\x0b-\x1f\x7f]")
TABLE_BYTES = 256 << 20


@dataclass
class Published:
    """What became of the inputs: each published input's name with its target."""

    targets: dict[str, str] = field(default_factory=dict)
    _by_base: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, target: str) -> None:
        """Remember that the input ``name`` was published as ``target``."""
        self.targets[name] = target
        self._by_base.setdefault(PurePosixPath(name).name, []).append(target)

    def find(self, table: str, reference: str) -> str:
        """The target that a table's cell means: a path from the table, or a unique file name."""
        written = reference.strip().replace("\\", "/").removeprefix("./")
        folder = PurePosixPath(table).parent
        for candidate in (str(folder / written), written):
            if candidate in self.targets:
                return self.targets[candidate]
        bases = set(self._by_base.get(PurePosixPath(written).name, ()))
        return bases.pop() if len(bases) == 1 and "/" not in written else ""

    def subjects(self) -> frozenset[str]:
        """The pseudonyms that have at least one published file."""
        return frozenset(target.split("/", 1)[0] for target in self.targets.values())


def pattern_for(name: str, tables: Mapping[str, Mapping[str, str]]) -> str:
    """The declared pattern that an input's name matches, empty when it is no side file."""
    for pattern in tables:
        if fnmatchcase(name, pattern) or fnmatchcase(name, "*/" + pattern):
            return pattern
    return ""


def decoded(data: bytes) -> str:
    """A table's text: UTF-8, or the code page that Korean spreadsheets save in."""
    if len(data) > TABLE_BYTES:
        raise Quarantined("too-large")
    for encoding in ("utf-8-sig", "cp949"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise Quarantined("bad-table")


def subjects_of(data: bytes, kinds: Mapping[str, str]) -> dict[str, str]:
    """File to subject, as the hospital writes them, from a CSV with both columns."""
    by_kind = {kind: column for column, kind in kinds.items()}
    if "file" not in by_kind or "subject" not in by_kind:
        return {}
    try:
        rows = csv.DictReader(io.StringIO(decoded(data)), strict=True)
        return {
            (line.get(by_kind["file"]) or "").strip(): (line.get(by_kind["subject"]) or "").strip()
            for line in rows
        }
    except (csv.Error, Quarantined):
        return {}


class TableCleaner:
    """Rewrites side files for what was published."""

    def __init__(self, pseudonyms: Pseudonyms, published: Published) -> None:
        self.pseudonyms = pseudonyms
        self.published = published
        self._subjects = published.subjects()

    def clean(self, name: str, pattern: str, kinds: Mapping[str, str], data: bytes
              ) -> tuple[str, bytes]:  # fmt: skip
        """The target's name and bytes; raises :class:`Quarantined` for what cannot be read."""
        suffix = PurePosixPath(pattern).suffix
        try:
            if suffix == ".csv":
                cleaned = self._csv(name, kinds, decoded(data))
            elif suffix == ".json":
                cleaned = self._json(name, kinds, decoded(data))
            elif suffix == ".toml":
                cleaned = self._toml(kinds, decoded(data))
            else:
                raise Quarantined("undeclared-file")
        except (ValueError, csv.Error, RecursionError):
            raise Quarantined("bad-table") from None
        if "*" in pattern:
            own = self.pseudonyms.name("table", name) + suffix
            return str(PurePosixPath(pattern).parent / own), cleaned
        return pattern, cleaned

    def _csv(self, name: str, kinds: Mapping[str, str], text: str) -> bytes:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        columns = [column for column in reader.fieldnames or () if column in kinds]
        if not columns:
            raise Quarantined("bad-table")
        sheet = io.StringIO()
        writer = csv.writer(sheet, lineterminator="\n")
        writer.writerow(columns)
        for line in reader:
            cells = {column: (line.get(column) or "").strip() for column in columns}
            record = self._record(name, {column: kinds[column] for column in columns}, cells)
            if record is not None:
                writer.writerow([record[column] for column in columns])
        return sheet.getvalue().encode()

    def _record(self, name: str, kinds: Mapping[str, str], cells: Mapping[str, Any]
                ) -> dict[str, Any] | None:  # fmt: skip
        """A cleaned record, None when it speaks of a file or subject that was not published."""
        target, subject, written = "", "", ""
        for column, kind in kinds.items():
            if kind == "file":
                target = self.published.find(name, str(cells[column]))
                if not target:
                    return None
            elif kind == "subject":
                written = str(cells[column])
        if target:
            subject = target.split("/", 1)[0]
        elif written:
            subject = self.pseudonyms.patient(written)
            if subject not in self._subjects:
                return None
        result: dict[str, Any] = {}
        for column, kind in kinds.items():
            value = cells[column]
            if kind == "file":
                result[column] = target
            elif kind == "subject":
                result[column] = subject
            else:
                result[column] = self._value(kind, value, written)
        return result

    def _value(self, kind: str, value: Any, patient: str) -> Any:
        own = free_text.own_words((patient,))
        if kind == "polygon":
            return _numbers(value)
        if value is None or isinstance(value, (bool, int, float)):
            number = not isinstance(value, (int, float)) or abs(value) < 1_000_000
            return value if number and kind == "keep" else None
        if not isinstance(value, str):
            return None
        if kind == "identifier":
            return self.pseudonyms.accession(value) if value else ""
        if kind == "date":
            shift = self.pseudonyms.date_shift(patient) if patient else 0
            plain = value.replace("-", "").replace(".", "").replace("/", "")
            return values.date(plain.encode(), "DA", shift).decode() if shift else ""
        if kind == "text":
            return free_text.clean(value, own, self.pseudonyms.uid)
        holds = any(word in own for word in free_text.words_of(value))
        if len(value) > LONGEST_KEPT or _IDENTIFYING.search(value) or holds:
            return ""
        return value

    def _json(self, name: str, kinds: Mapping[str, str], text: str) -> bytes:
        cleaned = self._node(name, kinds, json.loads(text), "")
        return json.dumps(cleaned, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"

    def _node(self, name: str, kinds: Mapping[str, str], node: Any, patient: str) -> Any:
        if isinstance(node, list):
            cleaned = [self._node(name, kinds, item, patient) for item in node]
            return [item for item in cleaned if item is not None]
        if not isinstance(node, dict):
            return None
        here = {key: kinds[key] for key in node if key in kinds}
        flat = {key: kind for key, kind in here.items() if kind != "items"}
        record = self._record(name, flat, {key: node[key] for key in flat})
        if record is None:
            return None
        for key in here:
            if here[key] == "items":
                record[key] = self._node(name, kinds, node[key], patient)
        return record

    def _toml(self, kinds: Mapping[str, str], text: str) -> bytes:
        document = tomllib.loads(text)
        lines = []
        for key, kind in sorted(kinds.items()):
            value = document.get(key)
            if isinstance(value, str):
                lines.append(f"{key} = {json.dumps(self._value(kind, value, ''))}\n")
            elif isinstance(value, (bool, int)):
                lines.append(f"{key} = {json.dumps(value)}\n")
        return "".join(lines).encode()


def _numbers(value: Any) -> Any:
    """Nested lists of numbers, and of objects with x and y; everything else is left out."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value if abs(value) < 1_000_000 else None
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _numbers(value[key]) for key in ("x", "y", "X", "Y") if key in value}
    return None
