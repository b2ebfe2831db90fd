"""Look for what should not be there any more, by other means than those that removed it.

Two searches. The rules: every DICOM output is read with pydicom (not with this package's own
reader) and each element is held against what may stay. The values: everything that stood in an
identifying field of the originals is looked for in every byte of every output, in several
encodings, in the file as it is and in what it holds compressed.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from deid.dicom import text as free_text
from deid.identifying import CODES, IDENTIFYING_VRS, identifying_values
from policies.errors import Invalid, _

ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "cp949", "shift_jis", "gb18030", "latin-1")
# Shorter values occur by chance in pixels; they are looked for as words of texts instead.
SHORTEST_BYTES = 7
SHORTEST_WORD = 4
# Runs like 00000 and 11111111 are numbers of pixels in any picture, whoever's it is.
MEANINGFUL = 4
_WORD_BYTES = re.compile(rb"[A-Za-z0-9 _.-]*")
_SHAPES = (b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"\x1f\x8b")


@dataclass(frozen=True)
class Finding:
    """Something left over: in which output, where (tag or offset), against which rule."""

    file: str
    where: str
    rule: str


@dataclass
class Verification:
    """What was searched and what was found; ``held`` when nothing was."""

    files: int = 0
    values: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether no identifier was found."""
        return not self.findings

    def as_mapping(self) -> dict[str, Any]:
        """The JSON document of ``glovebox deid verify --json``."""
        return {
            "held": self.held,
            "files": self.files,
            "values": self.values,
            "findings": [asdict(finding) for finding in self.findings],
        }


def verify(dst: Path, against: Path | None = None) -> Verification:
    """Search the outputs under ``dst``, for the values of ``against`` where it is given."""
    if not dst.is_dir():
        raise Invalid(_("There is no folder of outputs to verify."), field="DST")
    needles = Needles(identifying_values(against)) if against is not None else Needles(())
    result = Verification(values=len(needles.values))
    for path in sorted(each for each in dst.rglob("*") if each.is_file()):
        name = path.relative_to(dst).as_posix()
        data = path.read_bytes()
        result.files += 1
        found = {Finding(name, "name", "value of the originals") for _hit in needles.words(name)}
        found |= {
            Finding(name, f"{place} at byte {offset}", "value of the originals")
            for place, content in contents(data)
            for offset in needles.bytes(content)
        }
        if data[128:132] == b"DICM":
            found |= set(_rules(name, data, needles))
        result.findings.extend(sorted(found, key=lambda each: (each.where, each.rule)))
    return result


def contents(data: bytes) -> Iterator[tuple[str, bytes]]:
    """A file's bytes, and what stands compressed in them."""
    yield "file", data
    if data.startswith(_SHAPES[0]):
        yield from _png(data)
    elif data.startswith(_SHAPES[1]):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for entry in archive.infolist()[:1000]:
                    with archive.open(entry) as member:
                        yield "zip member", member.read(64 << 20)
        except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, zlib.error):
            return
    elif data.startswith(_SHAPES[2]):
        try:
            yield "gzip", zlib.decompressobj(31).decompress(data, 256 << 20)
        except zlib.error:
            return


def _png(data: bytes) -> Iterator[tuple[str, bytes]]:
    position = 8
    while position + 12 <= len(data):
        length = struct.unpack_from(">I", data, position)[0]
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length
        for start in [match.start() for match in re.finditer(b"\x78[\x01\x5e\x9c\xda]", body)][:8]:
            try:
                plain = zlib.decompressobj().decompress(body[start:], 64 << 20)
            except zlib.error:
                continue
            yield f"PNG {kind.decode('latin-1')}", plain


class Needles:
    """Values to look for, in bytes and as words."""

    def __init__(self, found: Iterable[str]) -> None:
        self.values = frozenset(
            value
            for value in found
            if len(value) >= SHORTEST_WORD and len(set(value)) >= MEANINGFUL
        )
        encoded: set[bytes] = set()
        for value in self.values:
            for encoding in ENCODINGS:
                try:
                    raw = value.encode(encoding)
                except UnicodeEncodeError:
                    continue
                wide = encoding.startswith("utf-16")
                if len(raw) >= SHORTEST_BYTES and (not wide or len(set(value)) > MEANINGFUL):
                    encoded.add(raw)
        self._by_prefix: dict[int, list[bytes]] = {}
        for raw in encoded:
            self._by_prefix.setdefault(struct.unpack_from("<I", raw)[0], []).append(raw)
        self._prefixes = np.array(sorted(self._by_prefix), dtype="<u4")
        self._words = frozenset(value.lower() for value in self.values)

    def bytes(self, data: bytes) -> list[int]:
        """The offsets at which a value starts."""
        found: list[int] = []
        if not len(self._prefixes) or len(data) < 4:
            return found
        for start in range(4):
            windows = np.frombuffer(data, "<u4", count=(len(data) - start) // 4, offset=start)
            hits = np.flatnonzero(np.isin(windows, self._prefixes))
            for hit in hits:
                offset = int(hit) * 4 + start
                for raw in self._by_prefix[int(windows[hit])]:
                    if data.startswith(raw, offset) and not _part_of_known(data, offset, raw):
                        found.append(offset)
        return found

    def words(self, text: str) -> list[str]:
        """The words of a text that are a value."""
        return [word for word in free_text.words_of(text) if word in self._words]


def _part_of_known(data: bytes, offset: int, raw: bytes) -> bool:
    """Whether the hit is the beginning of a text of known words (a maker's name cut short)."""
    if not raw.isascii() or b"\0" in raw:
        return False
    following = _WORD_BYTES.match(data, offset + len(raw))
    rest = following[0] if following else b""
    if not rest or not rest[:1].isalnum():
        return False
    found = free_text.words_of((raw + rest).decode("ascii"))
    return all(free_text.is_known_word(word) for word in found)


def _rules(name: str, data: bytes, needles: Needles) -> Iterator[Finding]:
    if data[:128].strip(b"\0"):
        yield Finding(name, "preamble", "the preamble must be empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(io.BytesIO(data), stop_before_pixels=False)
            yield from _data_set(name, "", dataset, needles)
            if dataset.get("PatientIdentityRemoved") != "YES":
                yield Finding(name, "00120062", "the file must say that it is de-identified")
    except (InvalidDicomError, ValueError, TypeError, KeyError, AttributeError, OSError,
            NotImplementedError):  # fmt: skip
        yield Finding(name, "file", "the output cannot be read")


def _data_set(name: str, place: str, dataset: Dataset, needles: Needles) -> Iterator[Finding]:
    own = str(dataset.get("PatientID", ""))
    for element in dataset:
        where = f"{place}{int(element.tag):08X}"
        if element.tag.is_private and not element.tag.is_private_creator and element.VR not in (
            "DS", "IS", "US", "SS", "UL", "SL", "FL", "FD",
        ):  # fmt: skip
            yield Finding(name, where, "private elements may not stay")
        if 0x5000 <= element.tag.group <= 0x50FF or 0x6000 <= element.tag.group <= 0x60FF:
            yield Finding(name, where, "overlays and curves may not stay")
        if element.VR == "SQ":
            for number, item in enumerate(element.value or ()):
                yield from _data_set(name, f"{where}[{number}].", item, needles)
            continue
        if int(element.tag) in CODES:
            continue
        if element.VR not in IDENTIFYING_VRS or element.value in (None, ""):
            continue
        text = str(element.value)
        if element.VR == "PN" and text not in (own, "Anonymous"):
            yield Finding(name, where, "no person's name may stay")
        if needles.words(text) and text != own:
            yield Finding(name, where, "value of the originals")
