"""Look for what should not be there any more, by other means than those that removed it.

Three searches. The rules: every DICOM output is read with pydicom (not with this package's own
reader) and each element is held against what may stay. The values: everything that stood in an
identifying field of the originals is looked for in every byte of every output, in many spellings
and encodings, in the file as it is and in what it holds compressed or escaped. The pictures: the
text detector looks at them once more. Nothing that is reported repeats a value.
"""

from __future__ import annotations

import io
import mmap
import os
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from deid import layers, needles, report
from deid.decoding import Decoder
from deid.identifying import CODES, IDENTIFYING_VRS, Originals, originals
from deid.needles import HITS, Needles
from deid.photo_room import is_video, suffix_of
from deid.photo_structure import TIFF_TAGS, tiff_tags
from deid.quarantine import Quarantined
from deid.video_container import is_clean_video
from policies.errors import Invalid, _

LARGEST_PICTURE = 1 << 30
_TABLES = (".csv", ".json", ".toml")
_UNREADABLE = (InvalidDicomError, ValueError, TypeError, KeyError, AttributeError, OSError,
               NotImplementedError, RecursionError, MemoryError)  # fmt: skip
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Finding:
    """Something left over: in which output, where (tag or offset), against which rule.

    An output whose own name holds a value is called by its number in the sorted list.
    """

    file: str
    where: str
    rule: str


@dataclass
class Verification:
    """What was searched and what was found; ``held`` when nothing was.

    ``short`` and ``common`` values of the originals prove nothing and were not looked for;
    ``unread`` inputs gave no more than their names. ``pictures`` of ``all_pictures`` were looked
    at again, ``partly`` of them not in every frame. ``ambiguous`` days stand in a date of an
    output, as a moved date of anybody may. ``doubts`` are places of photographs and videos that
    look like text: textures do too beside a mask, so a person sees them and they fail nothing.
    """

    files: int = 0
    values: int = 0
    inputs: int = 0
    unread: int = 0
    short: int = 0
    common: int = 0
    ambiguous: int = 0
    pictures: int = 0
    all_pictures: int = 0
    partly: int = 0
    doubts: list[Finding] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether no identifier was found."""
        return not self.findings

    def as_mapping(self) -> dict[str, Any]:
        """The JSON document of ``glovebox deid verify --json``."""
        counts = {
            name: value
            for name, value in asdict(self).items()
            if name not in ("findings", "doubts")
        }
        return {
            "held": self.held,
            **counts,
            "doubts": [asdict(finding) for finding in self.doubts],
            "findings": [asdict(finding) for finding in self.findings],
        }


def verify(
    dst: Path,
    against: Path | None = None,
    *,
    pictures: int | None = None,
    report_path: Path | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Search the outputs under ``dst``, for the values of ``against`` where it is given.

    ``pictures`` is the most that the text detector looks at, spread over the files; all of them
    without it. With the run's report each output's dates are held against its own original's.
    ``progress`` is called with the number of steps done and of all.
    """
    if not dst.is_dir():
        raise Invalid(_("There is no folder of outputs to verify."), field="DST")
    rows = report.read(report_path) if report_path is not None else []
    targets = {str(row["source"]): str(row["target"]) for row in rows if row.get("target")}
    found = Originals() if against is None else originals(against, targets)
    return _Search(dst, found).run(pictures, progress)


def _is_inner(path: Path) -> bool:
    """Whether the names of what a folder holds say its name; of an empty one nothing else does."""
    if path.is_symlink() or not path.is_dir():
        return False
    with os.scandir(path) as held:
        return any(held)


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


class _Search:
    def __init__(self, dst: Path, found: Originals) -> None:
        self.dst, self.originals = dst, found
        self.paths = sorted(each for each in dst.rglob("*") if not _is_inner(each))
        self.plain = {index for index, path in enumerate(self.paths) if _is_plain(path)}
        self.result = Verification(
            files=len(self.plain), inputs=found.inputs, unread=found.unread,
            short=len(found.short), common=len(found.common),
        )  # fmt: skip
        self.findings: dict[int, set[Finding]] = {}
        self.unnamed: set[int] = set()
        self.ambiguous: set[tuple[int, str]] = set()

    def run(self, pictures: int | None, progress: Progress | None) -> Verification:
        passes = max(1, -(-len(self.originals.values) // needles.BATCH))
        chosen = self._chosen(pictures)
        steps, done = len(self.paths) * passes + len(chosen), 0
        for number, sought in enumerate(needles.batches(self.originals.values)):
            self.result.values += len(sought.values)
            for index, path in enumerate(self.paths):
                self._file(index, path, sought, first=number == 0)
                done += 1
                if progress is not None:
                    progress(done, steps)
        decoder = Decoder()
        try:
            for index in chosen:
                self._look(index, decoder)
                done += 1
                if progress is not None:
                    progress(done, steps)
        finally:
            decoder.close()
        for index in sorted(self.findings):
            name = self._name(index)
            if index in self.unnamed:
                name = f"file {index + 1} of {len(self.paths)}"
            self.result.findings += [
                Finding(name, each.where, each.rule)
                for each in sorted(self.findings[index], key=lambda each: (each.where, each.rule))
            ]
        self.result.ambiguous = len(self.ambiguous)
        return self.result

    def _name(self, index: int) -> str:
        return self.paths[index].relative_to(self.dst).as_posix()

    def _add(self, index: int, where: str, rule: str) -> None:
        self.findings.setdefault(index, set()).add(Finding("", where, rule))

    def _file(self, index: int, path: Path, sought: Needles, *, first: bool) -> None:
        name = self._name(index)
        written = os.fsencode(name)  # a name may be no text
        in_name = {
            *sought.words(written.decode("utf-8", "replace")),
            *(kind for _at, kind in sought.found(written)),
        }
        for kind in in_name:
            self.unnamed.add(index)
            self._add(index, "name", f"{kind} of the originals")
        if index not in self.plain:
            if path.is_symlink() or not path.is_dir():
                self._add(index, "file", "a link or a device, and no file")
            return
        try:
            data = _mapped(path)
        except OSError:
            self._add(index, "file", "the output cannot be read")
            return
        budget = layers.Budget()
        is_dicom = bytes(data[128:132]) == b"DICM"
        days: Counter[str] = Counter()
        header = len(data) if name.endswith(_TABLES) else _header_end(data)
        if is_dicom:
            header, days = self._dicom(index, data, sought, first=first)
        elif first and suffix_of(bytes(data[:16])):
            for rule in _photo_rules(data):
                self._add(index, "metadata", rule)
        elif first and is_video(data) and not is_clean_video(data):
            self._add(index, "file", "a video may hold nothing but its frames")
        for start in range(0, max(1, len(data)), layers.BLOCK):
            block = bytes(data[start : start + layers.BLOCK + layers.OVERLAP])
            split = max(0, min(len(block), header - start))
            for offset, kind in self._hits(index, sought, block, split, days):
                self._add(index, f"file at byte {start + offset}", f"{kind} of the originals")
        for place, content in layers.layers(data, budget):
            if place == "file":
                continue
            split = len(content) if place == "deflated data set" else 0
            if place.startswith("PNG ") and place not in ("PNG pixels", "PNG IDAT"):
                split = len(content)
            for offset, kind in self._hits(index, sought, content, split, days):
                self._add(index, f"{place} at byte {offset}", f"{kind} of the originals")
        if budget.spent:
            self._add(index, "file", "more is compressed in it than was unfolded")

    def _hits(
        self, index: int, sought: Needles, block: bytes, header: int, days: Mapping[str, int]
    ) -> list[tuple[int, str]]:
        """Hits in a block whose first ``header`` bytes are no picture's."""
        table = self._name(index).endswith(_TABLES)

        def proven() -> Iterator[tuple[int, str]]:
            for offset, kind in sought.found(block):
                day = block[offset : offset + 8]
                if kind == "date" and day.isdigit():
                    text = day.decode("ascii")
                    # A moved date of one may be the true date of another.
                    expected = days.get(text, 0)
                    if table or (expected and block.count(day) <= expected):
                        self.ambiguous.add((index, text))
                        continue
                yield offset, kind

        if header >= len(block):
            return list(islice(proven(), HITS))
        return [
            hit for hit in islice(proven(), 64 * HITS)
            if hit[0] < header or self._is_long(sought, block, hit[0])
        ]  # fmt: skip

    def _is_long(self, sought: Needles, block: bytes, offset: int) -> bool:
        """Whether a hit among pixels is long enough to be no chance."""
        tail = block[offset : offset + 4096]
        return any(at == 0 for at, _kind in sought.found(tail, least=needles.SHORTEST_ANYWHERE))

    def _dicom(
        self, index: int, data: memoryview, sought: Needles, *, first: bool
    ) -> tuple[int, Counter[str]]:
        """Hold a DICOM file against the rules: where its header ends, and the days in its dates."""
        days: Counter[str] = Counter()
        if first and bytes(data[:128]).strip(b"\0"):
            self._add(index, "preamble", "the preamble must be empty")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                stream = io.BytesIO(data[:LARGEST_PICTURE])
                dataset = dcmread(stream, stop_before_pixels=True)
                header = stream.tell()
                for where, rule in _data_set("", dataset, sought, days, first=first):
                    self._add(index, where, rule)
                if not first:
                    return header, days
                if dataset.get("PatientIdentityRemoved") != "YES":
                    self._add(index, "00120062", "the file must say that it is de-identified")
                own = self.originals.own_days.get(self._name(index), {})
                if dataset.get("LongitudinalTemporalInformationModified") != "UNMODIFIED":
                    for tag, day in own.items():
                        if tag in dataset and str(dataset[tag].value) == day:
                            self._add(index, f"{tag:08X}", "date of its own original, not moved")
                return header, days
        except _UNREADABLE:
            self._add(index, "file", "the output cannot be read")
            return len(data), days

    def _chosen(self, pictures: int | None) -> Sequence[int]:
        """The outputs to look at again: every one, or so many at equal steps."""
        shown = [index for index in sorted(self.plain) if _may_be_picture(self.paths[index])]
        self.result.all_pictures = len(shown)
        if pictures is None or pictures >= len(shown):
            return shown
        return [shown[place * len(shown) // pictures] for place in range(pictures)]

    def _look(self, index: int, decoder: Decoder) -> None:
        path = self.paths[index]
        try:
            if path.stat().st_size > LARGEST_PICTURE:
                self._add(index, "pixels", "too large to be looked at again")
                return
            answer, _none = decoder.ask({"operation": "text"}, path.read_bytes())
        except OSError:
            self._add(index, "pixels", "the picture cannot be read")
            return
        except Quarantined as held:
            if held.reason != "no-pixels":
                self._add(index, "pixels", f"the picture cannot be looked at ({held.reason})")
            else:
                self.result.all_pictures -= 1
            return
        self.result.pictures += 1
        self.result.partly += not answer["whole"]
        for x, y, width, height in answer["boxes"]:
            where = f"pixels {x},{y} {width}x{height}"
            if _is_photo_or_video(_head(path)):
                name = f"file {index + 1}" if index in self.unnamed else self._name(index)
                self.result.doubts.append(Finding(name, where, "looks like text"))
            else:
                self._add(index, where, "looks like text")


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as handle:
        if not handle.seek(0, io.SEEK_END):
            return memoryview(b"")
        return memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(132)
    except OSError:
        return b""


def _may_be_picture(path: Path) -> bool:
    head = _head(path)
    return _is_photo_or_video(head) or head[128:132] == b"DICM"


def _is_photo_or_video(head: bytes) -> bool:
    return head[128:132] != b"DICM" and (bool(suffix_of(head)) or is_video(head))


def _header_end(data: memoryview) -> int:
    """Where a photograph's header ends; a text is header throughout, other bytes have none."""
    head = bytes(data[: 1 << 20])
    if head.startswith(b"\xff\xd8"):
        return max(0, head.find(b"\xff\xda"))
    if head.startswith(b"\x89PNG"):
        return max(0, head.find(b"IDAT"))
    return len(data) if b"\0" not in head and not suffix_of(head) else 0


def _photo_rules(data: memoryview) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                is_tiff = image.format == "TIFF"
                if is_tiff and not set(tiff_tags(bytes(data))) <= TIFF_TAGS:
                    yield "tags that say more than the picture may not stay"
                exif = () if is_tiff else image.getexif()
                if len(exif):
                    yield "EXIF may not stay"
                for name in ("xmp", "XML:com.adobe.xmp", "comment", "photoshop", "Comment"):
                    if image.info.get(name):
                        yield "metadata may not stay"
                if getattr(image, "text", None):
                    yield "texts may not stay"
    except Exception:  # a decoder of broken files raises nearly anything
        yield "the output cannot be read"


def _data_set(
    place: str, dataset: Dataset, sought: Needles, days: Counter[str], *, first: bool
) -> Iterator[tuple[str, str]]:
    own = str(dataset.get("PatientID", ""))
    for element in dataset:
        where = f"{place}{int(element.tag):08X}"
        if first:
            yield from _against_rules(where, element, own)
        if element.VR == "SQ":
            for number, item in enumerate(element.value or ()):
                yield from _data_set(f"{where}[{number}].", item, sought, days, first=first)
            continue
        if element.VR in ("DA", "DT") and element.value:
            values = element.value if element.VM > 1 else [element.value]
            days.update(str(value)[:8] for value in values)
        if int(element.tag) in CODES or element.value in (None, ""):
            continue
        if element.VR in IDENTIFYING_VRS:
            text = str(element.value)
            for kind in sought.words(text) if text != own else ():
                yield where, f"{kind} of the originals"


def _against_rules(where: str, element: Any, own: str) -> Iterator[tuple[str, str]]:
    if element.tag.is_private and not element.tag.is_private_creator and element.VR not in (
        "DS", "IS", "US", "SS", "UL", "SL", "FL", "FD",
    ):  # fmt: skip
        yield where, "private elements may not stay"
    if 0x5000 <= element.tag.group <= 0x50FF or 0x6000 <= element.tag.group <= 0x60FF:
        yield where, "overlays and curves may not stay"
    if element.VR == "PN" and str(element.value or "") not in ("", own, "Anonymous"):
        yield where, "no person's name may stay"
