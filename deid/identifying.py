"""What identifies in a tree of originals: the values that no output may hold."""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from deid import intake, needles, output, profile, tables
from deid.dicom import stream, values
from deid.dicom import text as free_text
from deid.dicom.header import encodings_of
from deid.dicom.stream import Buffer, Element
from deid.photo_room import is_video, suffix_of
from deid.quarantine import Quarantined
from deid.video_words import of_video
from policies.errors import Invalid, _

IDENTIFYING_VRS = frozenset({"PN", "UI", "LO", "SH", "ST", "LT", "UT", "UC", "AE", "UR"})
CODES = frozenset({0x00080100, 0x00080102, 0x00080103, 0x00080104, 0x00080119, 0x00080120})
LONGEST_BYTES = 1 << 16
BIRTH_DATE = 0x00100030
DIGITS = 6
_NAMED_KINDS = {"file": "file name", "subject": "identifier", "identifier": "identifier"}
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ufffd]{4,200}")
_MARKUP = re.compile(r"""<[^<>]*>|\s[\w:.-]+=["']|["']""")
_DAY = re.compile(r"((?:19|20)\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_EXIF_DAY = re.compile(r"((?:19|20)\d\d)[:-](\d\d)[:-](\d\d)(?:[ T]\d\d:\d\d(?::\d\d)?.*)?\Z")
# What containers and cleaners write themselves: found in an output it says nothing of anybody.
OWN_WORDS = frozenset(
    {"adobe", "jfif", "exif", "srgb", "ducky", "xmp", "dicm", "glovebox", "ascii", "unicode"}
    | {dummy.decode("ascii", "ignore").lower() for dummy in values.DUMMIES.values()}
)
Found = Iterator[tuple[str, str]]


@dataclass
class Originals:
    """The values of the originals, each with its kind, and how much they prove.

    ``short`` values are too short to be looked for; ``common`` ones are words of the clinical
    vocabulary or what cleaned files hold themselves. ``unread`` inputs gave only their names.
    """

    values: dict[str, str] = field(default_factory=dict)
    days: set[str] = field(default_factory=set)
    own_days: dict[str, dict[int, str]] = field(default_factory=dict)
    inputs: int = 0
    unread: int = 0
    short: set[str] = field(default_factory=set)
    common: set[str] = field(default_factory=set)

    def add(self, value: str, kind: str) -> None:
        """Take a value in, to be looked for or only to be counted."""
        value = value.strip(" \0")
        if not value or value in self.values:
            return
        day = _DAY.fullmatch(value)
        if day is not None:
            self.days.add(value)
            self.values[value] = "date"
        elif _is_common(value):
            self.common.add(value[:64])
        elif not needles.proves(value):
            self.short.add(value)
        else:
            self.values[value] = kind


def originals(
    src: Path,
    targets: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Originals:
    """Every value that stands in an identifying field of the originals, and its parts.

    Identifying are texts, names, UIDs and dates of DICOM headers (nested, private and of the file
    meta group too), the metadata of photographs, the file, subject, identifier and date columns of
    side files, and the words of file and folder names. Words of the clinical vocabulary and
    registered UIDs identify nobody. ``targets`` names by digest the output of an input whose own
    dates are wanted. A broken input is counted and never stops the search.
    """
    found = Originals()
    declared = profile.load("research").tables
    reader = intake.Reader()
    sources = intake.walk(src)
    if not sources:
        raise Invalid(_("There is nothing to read in this folder."), field="--against")
    for number, source in enumerate(sources, 1):
        pattern = tables.pattern_for(source.name, declared)
        # A side file keeps its declared name (labels.csv); only the folders above it name people.
        kept = source.name.removesuffix(pattern) if pattern and "*" not in pattern else source.name
        for value in _words_of_path(kept):
            found.add(value, "file name")
        found.inputs += 1
        try:
            data = reader.read(source)
            if pattern.endswith((".csv", ".json")):
                pairs = _of_table(bytes(data), pattern, declared[pattern])
            elif suffix_of(data) and data[128:132] != b"DICM":
                pairs = _of_photo(bytes(data))
            elif is_video(data) and data[128:132] != b"DICM":
                pairs = of_video(bytes(data))
            elif pattern:
                pairs = iter(())
            else:
                pairs = _of_dicom(data, found, targets or {})
            for value, kind in pairs:
                found.add(value, kind)
        except Quarantined:
            found.unread += 1
        except Exception:  # a hostile original may raise nearly anything in a parser
            found.unread += 1
        if progress is not None:
            progress(number, len(sources))
    reader.close()
    return found


def _words_of_path(name: str) -> Iterator[str]:
    stem = name.rsplit(".", 1)[0]
    yield from (part for part in stem.split("/") if part)
    yield from free_text.words_of(stem)


def _of_table(data: bytes, pattern: str, kinds: Mapping[str, str]) -> Found:
    text = tables.decoded(data)
    wanted = {column: _NAMED_KINDS.get(kind, kind) for column, kind in kinds.items()
              if kind in _NAMED_KINDS or kind == "date"}  # fmt: skip
    if pattern.endswith(".json"):
        yield from _of_node(json.loads(text), wanted)
        return
    try:
        for line in csv.DictReader(io.StringIO(text)):
            for column, kind in wanted.items():
                yield from _of_cell((line.get(column) or "").strip(), kind)
    except csv.Error:
        return


def _of_node(node: object, wanted: Mapping[str, str]) -> Found:
    if isinstance(node, list):
        for item in node:
            yield from _of_node(item, wanted)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in wanted and isinstance(value, (str, int)):
                yield from _of_cell(str(value), wanted[key])
            else:
                yield from _of_node(value, wanted)


def _of_cell(value: str, kind: str) -> Found:
    if kind == "date":
        yield re.sub(r"[-./]", "", value), "date"
    elif kind == "file name":
        yield from ((each, kind) for each in _words_of_path(value))
    else:
        yield value, kind


def _of_photo(data: bytes) -> Found:
    """The texts of a photograph's metadata, as far as the imaging library reads them."""
    entries: list[object] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            entries += image.info.values()
            exif = image.getexif()
            entries += exif.values()
            for ifd in (0x8769, 0x8825, 0xA005):
                entries += exif.get_ifd(ifd).values()
    for text in _texts(entries):
        day = _EXIF_DAY.match(text)
        if day is not None:
            yield "".join(day.groups()), "date"
        else:
            yield text, "photograph's metadata"


def _texts(entry: object, depth: int = 0) -> Iterator[str]:
    if depth > 20:
        return
    if isinstance(entry, dict):
        entry = list(entry.values())
    if isinstance(entry, (list, tuple)):
        for each in entry:
            yield from _texts(each, depth + 1)
        return
    if isinstance(entry, bytes):
        entry = entry[: 1 << 20]
        # EXIF 2.3 4.6.5: a comment begins with the name of its character set.
        if entry[:8] == b"UNICODE\0":
            text = entry[8:].decode("utf-16-le" if entry[9:10] == b"\0" else "utf-16-be", "replace")
        else:
            text = entry.removeprefix(b"ASCII\0\0\0").decode("utf-8", "replace")
    elif isinstance(entry, str):
        text = entry
    else:
        return
    if "\ufffd" in text and isinstance(entry, bytes) and len(entry) > 256:
        return  # a profile, a thumbnail: pictures and tables, whose runs of letters are chance
    for part in _MARKUP.split(text) if "<" in text else (text,):
        yield from (each.strip() for each in _PRINTABLE.findall(part))


def _of_dicom(data: Buffer, found: Originals, targets: Mapping[str, str]) -> Found:
    file = stream.parse(data)
    if data[128:132] == b"DICM" and bytes(data[:128]).strip(b"\0"):
        for text in _texts(bytes(data[:128])):
            yield text, "preamble"
    for tag, value in file.meta.items():
        if tag not in (0x00020001, 0x00020010, 0x00020012):
            for text in _texts(bytes(value)):
                yield text, "UID" if tag == 0x00020003 else "file meta"
    if targets:
        target = targets.get(output.digest_of_bytes(data), "")
        if target:
            found.own_days[target] = {
                each.tag: stream.text_of(each.value)
                for each in file.elements
                if each.vr == "DA" and each.items is None and _DAY.fullmatch(
                    stream.text_of(each.value))
            }  # fmt: skip
    yield from _of_elements(file.elements, encodings_of(file.elements))


def _of_elements(elements: list[Element], encodings: tuple[str, ...]) -> Found:
    for element in elements:
        if element.items is not None:
            for item in element.items:
                yield from _of_elements(item, encodings)
        elif (
            element.tag in CODES
            or element.fragments is not None
            or len(element.value) > LONGEST_BYTES
        ):
            continue
        elif element.vr in IDENTIFYING_VRS:
            yield from _of_text(element, encodings)
        elif element.vr in ("DA", "DT"):
            for part in values.words(element.value, encodings).split("\\"):
                if _DAY.match(part.strip()):
                    yield part.strip()[:8], "date"
        elif (element.tag >> 16) & 1 and element.vr in ("UN", "OB", "CS", "IS", "DS"):
            for text in _texts(bytes(element.value)):
                if len(text) >= 6:
                    yield text, "private element"


def _of_text(element: Element, encodings: tuple[str, ...]) -> Found:
    text = values.words(element.value, encodings)
    kind = {"PN": "name", "UI": "UID"}.get(element.vr, "text")
    kind = "private element" if (element.tag >> 16) & 1 else kind
    for part in text.split("\\"):
        yield part.strip(), kind
    if element.vr == "PN":
        for person in re.split(r"[\\=]", text):
            parts = [part.strip() for part in person.split("^") if part.strip()]
            yield from ((part, kind) for part in parts if len(part) >= 2)
            if len(parts) >= 2:
                yield f"{parts[0]}^{parts[1]}", kind


def _is_common(value: str) -> bool:
    if values.is_registered(value) or value.lower() in OWN_WORDS:
        return True
    if sum(letter.isdigit() for letter in value) >= DIGITS:
        return False  # a number in groups, whose groups alone would be known
    return all(free_text.is_known_word(word) for word in free_text.words_of(value))
