"""In how many hiding places a planted value survives a tool.

A value survives where it stands in the bytes of the output, in what they hold compressed, or in
what pydicom makes of them, in any of the encodings below and without regard to case.
"""

from __future__ import annotations

import contextlib
import csv
import io
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.datadict import keyword_dict

import deid.dicom
from bench import burned_in
from synthetic import canaries, canaries_in_structure, dicom_files

ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "latin-1", "euc-kr")
LISTED = "attributes that table E.1-1 lists"
UNLISTED = "other attributes"
TEXT = "text and character sets"
STRUCTURE = "structure, encodings, kinds of file"
PIXELS = "pixels"
GROUPS = (LISTED, UNLISTED, TEXT, STRUCTURE, PIXELS)


@dataclass(frozen=True)
class Place:
    """A file with a planted value, and whether an output still holds it."""

    name: str
    group: str
    file: bytes
    survives: Callable[[bytes], bool]


def places() -> list[Place]:
    """Every place; a value that its own file does not show is a mistake of the builder."""
    listed = _listed()
    made = []
    for canary in canaries.PLACES:
        if not canary.secrets:
            continue  # bits that are no text: among the pixels
        if canary.name in keyword_dict:
            group = LISTED if canary.name in listed else UNLISTED
        elif canary.build.__module__ == canaries_in_structure.__name__:
            group = STRUCTURE
        else:
            group = TEXT
        search = Search(canary.secrets)
        made.append(Place(canary.name, group, canary.build(), search.finds))
    made += [Place(each.name, PIXELS, each.file, each.survives) for each in burned_in.places()]
    for each in made:
        if not each.survives(each.file):
            raise RuntimeError(f"{each.name}: the planted value is not found in its own file")
    return made


def _listed() -> frozenset[str]:
    table = Path(deid.dicom.__file__).with_name("table_e1_1.csv")
    with table.open(encoding="utf-8", newline="") as lines:
        return frozenset(row["keyword"] for row in csv.DictReader(lines))


class Search:
    """Looks for values that were planted as bytes."""

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        self.texts: set[str] = set()
        self.needles = {secret.lower() for secret in secrets}
        for secret in secrets:
            text = _as_text(secret)
            if text is None:
                continue
            self.texts.add(text.lower())
            for encoding in ENCODINGS:
                try:
                    self.needles.add(text.encode(encoding).lower())
                except UnicodeEncodeError:
                    continue

    def finds(self, file: bytes) -> bool:
        """Whether any of the values is still there."""
        for content in contents(file):
            if isinstance(content, str):
                lower = content.lower()
                if any(text in lower for text in self.texts):
                    return True
            else:
                small = content.lower()
                if any(needle in small for needle in self.needles):
                    return True
        return False


def _as_text(secret: bytes) -> str | None:
    for encoding in ("utf-8", "cp949"):
        try:
            text = secret.decode(encoding)
        except UnicodeDecodeError:
            continue
        return text if text.isprintable() else None
    return None


def contents(file: bytes) -> Iterator[bytes | str]:
    """The bytes of a file, what it holds deflated, and its values as pydicom decodes them."""
    yield file
    yield dicom_files.inflated(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(io.BytesIO(file), force=True)
        except Exception:  # an output that cannot be read was searched as bytes
            return
        yield from _values(dataset.file_meta)
        yield from _values(dataset)
    pixels = burned_in.decoded(file)
    if pixels is not None:
        yield pixels.tobytes()


def _values(dataset: pydicom.Dataset) -> Iterator[bytes | str]:
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            value = element.value
            sequence = element.VR == "SQ"
        except Exception:  # a value that pydicom cannot decode was searched as bytes
            continue
        if sequence:
            for item in value:
                yield from _values(item)
        elif isinstance(value, bytes):
            yield value
            yield from _deflated(value)
        elif value is not None:
            yield str(value)


def _deflated(value: bytes) -> Iterator[bytes]:
    start = value.find(b"\x78")
    while start >= 0:
        # Any byte may look like the beginning of a stream: of large values only the first are.
        if start > 4096:
            return
        with contextlib.suppress(zlib.error):
            yield zlib.decompressobj().decompress(value[start:], 1 << 24)
        start = value.find(b"\x78", start + 1)


def outcome(place: Place, answer: str, output: Path) -> str:
    """``gone``, ``LEAK``, ``held`` (kept back with a reason) or ``failed``."""
    if answer == "written":
        return "LEAK" if place.survives(output.read_bytes()) else "gone"
    return "held" if answer.startswith("quarantined") else "failed"


def counts(outcomes: Mapping[str, str], group: list[Place]) -> dict[str, int]:
    """How many places of a group had each outcome."""
    found = [outcomes[each.name] for each in group]
    return {kind: found.count(kind) for kind in ("gone", "LEAK", "held", "failed")}
