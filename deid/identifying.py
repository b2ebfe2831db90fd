"""What identifies in a tree of originals: the values that no output may hold."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from deid import intake, profile, tables
from deid.dicom import stream, values
from deid.dicom import text as free_text
from deid.dicom.header import encodings_of
from deid.dicom.stream import Element
from deid.photo_room import suffix_of
from deid.quarantine import Quarantined

IDENTIFYING_VRS = frozenset({"PN", "UI", "LO", "SH", "ST", "LT", "UT", "UC", "AE", "UR"})
CODES = frozenset({0x00080100, 0x00080102, 0x00080103, 0x00080104, 0x00080119, 0x00080120})
LONGEST_BYTES = 1 << 16
_BIRTH_DATE = 0x00100030
_NAMED_KINDS = frozenset({"file", "subject", "identifier"})
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f-\x9f]{4,200}")


def identifying_values(src: Path) -> set[str]:
    """Every value that stands in an identifying field of the originals, and its parts.

    Identifying are texts, names and UIDs of DICOM headers, texts of photographs' metadata, the
    file, subject and identifier columns of side files, and the words of file and folder names.
    Words of the clinical vocabulary and registered UIDs identify nobody and are left out.
    """
    found: set[str] = set()
    declared = profile.load("research").tables
    reader = intake.Reader()
    for source in intake.walk(src):
        pattern = tables.pattern_for(source.name, declared)
        # A side file keeps its declared name (labels.csv); only the folders above it name people.
        kept = source.name.removesuffix(pattern) if pattern and "*" not in pattern else source.name
        found.update(_words_of_path(kept))
        try:
            data = reader.read(source)
            if pattern.endswith(".csv"):
                found.update(_of_table(data, declared[pattern]))
            elif suffix_of(data) and data[128:132] != b"DICM":
                found.update(_of_photo(data))
            else:
                elements = stream.parse(data).elements
                found.update(_of_elements(elements, encodings_of(elements)))
        except Quarantined:
            continue
    reader.close()
    return {value for value in found if not _is_harmless(value)}


def _words_of_path(name: str) -> Iterator[str]:
    stem = name.rsplit(".", 1)[0]
    yield from (part for part in stem.split("/") if part)
    yield from free_text.words_of(stem)


def _of_table(data: bytes, kinds: Mapping[str, str]) -> Iterator[str]:
    columns = [column for column, kind in kinds.items() if kind in _NAMED_KINDS]
    try:
        for line in csv.DictReader(io.StringIO(tables.decoded(data))):
            yield from ((line.get(column) or "").strip() for column in columns)
    except csv.Error:
        return


def _of_photo(data: bytes) -> Iterator[str]:
    """The texts of a photograph's metadata, as far as the imaging library reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data)) as image:
                entries: list[object] = list(image.info.values())
                exif = image.getexif()
                entries += [*exif.values(), *exif.get_ifd(0x8769).values()]
                entries += list(exif.get_ifd(0x8825).values())
        except Exception:  # a decoder of broken files raises nearly anything
            return
    for entry in entries:
        if isinstance(entry, bytes):
            entry = entry[:LONGEST_BYTES].decode("utf-8", "replace")
        if isinstance(entry, str) and "<" not in entry and "\ufffd" not in entry:
            yield from (text.strip() for text in _PRINTABLE.findall(entry))


def _of_elements(elements: list[Element], encodings: tuple[str, ...]) -> Iterator[str]:
    for element in elements:
        if element.items is not None:
            for item in element.items:
                yield from _of_elements(item, encodings)
        elif element.tag in CODES or element.fragments is not None:
            continue
        elif element.vr in IDENTIFYING_VRS and len(element.value) <= LONGEST_BYTES:
            text = values.words(element.value, encodings)
            yield from (part.strip() for part in text.split("\\"))
            if element.vr == "PN":
                yield from (part for part in re.split(r"[\^=\\ ]", text) if len(part) >= 2)
        elif element.tag == _BIRTH_DATE:
            yield values.words(element.value, encodings)


def _is_harmless(value: str) -> bool:
    if values.is_registered(value):
        return True
    return all(free_text.is_known_word(word) for word in free_text.words_of(value))
