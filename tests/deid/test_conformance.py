"""docs/conformance.md against what the cleaner does: each cell, with a planted value.

The page itself is read, the standard's maps say where an element may stand, pydicom reads what
the cleaner wrote; the rules that the page was made from are asked for nothing.
"""

from __future__ import annotations

import csv
import datetime
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset, Sequence
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement

import deid.dicom
from deid.decoding import Decoder
from deid.dicom.clean import DicomCleaner
from deid.dicom.header import HeaderCleaner
from deid.dicom.plan import Plan
from deid.profile import Profile, from_document, load, shipped
from deid.quarantine import Quarantined
from deid.vault import Pseudonyms
from synthetic import dicom_files
from tests.deid.conftest import KEY
from tests.deid.reports import node, number, report

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
CT, MG, SC = dicom_files.CT, dicom_files.MG, dicom_files.SC
STORAGE = "1.2.840.10008.5.1.4.1.1."
REPORT = STORAGE + "88."
# Held whole by the shipped profiles; reports are cleaned by the default one.
HELD = (
    *(STORAGE + end for end in ("104.", "11.", "9.", "66", "91.")),
    REPORT,
    "1.2.840.10008.1.3.10",
)
ENTERED, LOOKED_AT = 3, 2  # ways into a sequence; places of an attribute
# Gone whatever the option says, as the page says: comments, and equipment that is written anew.
STRICTER = frozenset(
    {0x00081120, 0x00080201, 0x0018A002, 0x0018A003, 0x00104000, 0x00204000, 0x00209158}
)
SEQUENCES = (0x00081140, 0x00082218, 0x00180014)
OBSERVERS = "empty, in reports clean items"
WORDS, DAYS = ("QVARTZOB", "WJELKUMP"), ("20190807", "20190821")
CONTENT_ITEMS = frozenset({0x0040A730, 0x00400555, 0x00400612, 0x00400441})
KEPT_ANYWHERE = frozenset({0x00081150, 0x00081155, 0x00080100, 0x00280010, 0x00280004})

Place = tuple[str, tuple[int, ...]]  # SOP class, and the sequences to go through


@dataclass(frozen=True)
class Cell:
    """What the page says that one profile does to an attribute of one type."""

    tag: str
    keyword: str
    profile: str
    kind: str  # 1, 2, 3, or empty where the type does not matter
    word: str


def page() -> list[list[str]]:
    """The rows of the page's last table: tag, keyword, basic, and a cell a profile."""
    lines = PAGE.read_text("utf-8").split("## Rows", 1)[1].splitlines()
    rows = [[each.strip() for each in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]
    return rows


def cells() -> Iterator[Cell]:
    head, _rule, *rows = page()
    for tag, keyword, _basic, *words in rows:
        for name, text in zip(head[3:], words, strict=True):
            for part in text.split("; "):
                found = re.fullmatch(r"([^(]+?|remove \(no IOD\))(?: \(([123, ]+)\))?", part)
                assert found, part
                for kind in (found[2] or "").split(", "):
                    yield Cell(tag.strip("`"), keyword, name.strip("`"), kind, found[1])


@cache
def maps() -> dict[str, Any]:
    text = Path(deid.dicom.__file__).with_name("iods.json").read_text("ascii")
    found: dict[str, Any] = json.loads(text)
    return found


def unpacked(packed: Mapping[str, str]) -> dict[int, str]:
    """Types by tag; of several types the strictest."""
    found: dict[int, str] = {}
    for kind in sorted(packed, reverse=True):
        for start in range(0, len(packed[kind]), 8):
            found[int(packed[kind][start : start + 8], 16)] = kind[0]
    return found


@cache
def defined(sop_class: str) -> dict[int, str]:
    """What the IOD of a SOP class defines at its top, with the type."""
    found: dict[int, str] = {}
    for module in maps()["iods"][maps()["sop_classes"][sop_class]]:
        for tag, kind in unpacked(maps()["modules"].get(module, {})).items():
            found[tag] = min(kind, found.get(tag, "9"))
    return found


@cache
def inside(sequence: int) -> dict[int, str]:
    return unpacked(maps()["sequences"].get(f"{sequence:08X}", {}))


def sop_classes(profile: str) -> list[str]:
    """The kinds of files that a profile publishes, an ordinary one first."""
    held = tuple(each for each in HELD if profile != "research" or each != REPORT)
    known = sorted(maps()["sop_classes"], key=lambda each: (each not in (CT, MG), each))
    return [each for each in known if each.startswith(STORAGE + "66.") or not each.startswith(held)]


@cache
def places(profile: str) -> dict[tuple[int, str], list[Place]]:
    """Where attributes of each type may stand in files that are published, shallow ones first."""
    found: dict[tuple[int, str], list[Place]] = {}
    level = [((each, ()), defined(each)) for each in sop_classes(profile)]
    seen: Counter[int] = Counter()
    while level:
        deeper: list[tuple[Place, dict[int, str]]] = []
        for (sop_class, path), tags in level:
            for tag, kind in tags.items():
                found.setdefault((tag, kind), []).append((sop_class, path))
                # A sequence is entered from a few places, because not every one is kept.
                if vr_of(tag) == "SQ" and tag not in path and seen[tag] < ENTERED:
                    seen[tag] += 1
                    deeper.append(((sop_class, (*path, tag)), inside(tag)))
        level = deeper
    return found


def vr_of(tag: int) -> str:
    try:
        return dictionary_VR(tag).split(" ")[0]
    except KeyError:
        return ""


def planted(tag: int, variant: int, *, kept: bool = False) -> Any:
    """A value that would tell whose it is, of the attribute's VR; one of two."""
    vr, word = vr_of(tag), WORDS[variant]
    if vr == "SQ":
        return Sequence([item(tag, variant)])
    if vr == "CS":
        return "CHEST" if kept else word
    values: dict[str, Any] = {
        "DA": DAYS[variant], "DT": DAYS[variant] + "101112", "TM": f"10111{variant}",
        "UI": f"{dicom_files.PREFIX}.77.{variant + 1}", "PN": f"{word}^{word}",
        "AS": ("095Y", "097Y")[variant], "DS": ("12.5", "13.5")[variant], "IS": str(12 + variant),
        "AE": word, "UR": f"https://{word}.example/", "AT": (0x00100010, 0x00100020)[variant],
        "FL": 12.5 + variant, "FD": 12.5 + variant,
    }  # fmt: skip
    if vr in values:
        return values[vr]
    if vr in ("OB", "OW", "OF", "OD", "OL", "OV", "UN", ""):
        return (word * 8).encode()
    return 12 + variant if vr in ("US", "SS", "UL", "SL", "SV", "UV") else f"CHEST {word}"


def item(sequence: int, variant: int) -> Dataset:
    """An item with every attribute that the sequence defines, a private one and a name."""
    data = Dataset()
    if sequence in CONTENT_ITEMS:
        data = node("TEXT", ("121071", "DCM", "Finding"), TextValue=f"CHEST {WORDS[variant]}")
    for tag in inside(sequence) if sequence not in CONTENT_ITEMS else ():
        if vr_of(tag) not in ("SQ", "") or tag in CONTENT_ITEMS:
            data.add(element(tag, planted(tag, variant)))
    data.private_block(0x0099, WORDS[variant], create=True).add_new(1, "LO", WORDS[variant])
    data.add(element(0x00101001, planted(0x00101001, variant)))
    return data


def element(tag: int, value: Any, vr: str = "") -> DataElement:
    return DataElement(tag, vr or vr_of(tag) or "UN", value, validation_mode=pydicom.config.IGNORE)


def file_with(place: Place, *added: DataElement) -> bytes:
    """A small file whose element stands at a place, in sequences with nothing else in them."""
    sop_class, path = place
    top = Dataset()
    top.SOPClassUID, top.SOPInstanceUID = sop_class, f"{dicom_files.PREFIX}.1"
    top.StudyInstanceUID, top.PatientID = f"{dicom_files.PREFIX}.2", dicom_files.NUMBER
    top.PatientName = dicom_files.NAME
    top.Modality = "MG"
    if sop_class.startswith(REPORT):
        top.update(report(number("12")))
        top.SOPClassUID = sop_class
        top.Modality = "MG"
    where = top
    for sequence in path:
        inner = Dataset()
        # Something that stays, so that the sequence does whatever becomes of the element.
        for tag in inside(sequence):
            if tag in KEPT_ANYWHERE:
                inner.add(element(tag, planted(tag, 0)))
        where.add(element(sequence, Sequence([inner])))
        where = inner
    for each in added:
        where.add(each)
    return dicom_files.written(top)


def found_at(file: bytes, place: Place, tag: int) -> tuple[bool, DataElement | None]:
    """Whether the sequences around are there, and the element if it is."""
    where = pydicom.dcmread(BytesIO(file))
    for sequence in place[1]:
        if sequence not in where or not where[sequence].value:
            return False, None
        where = where[sequence].value[0]
    return True, where.get(tag)


def says(data: Any) -> bool:
    """Whether something written holds one of the planted words, in plain or in 16-bit letters."""
    return any(word.encode() in bytes(data) for word in WORDS)


class Judge:
    """One profile's cleaner, and what is expected of each word of the page."""

    def __init__(self, profile: Profile, decoder: Decoder) -> None:
        self.profile = profile
        self.cleaner = DicomCleaner(HeaderCleaner(Plan(self.profile), Pseudonyms(KEY)), decoder)

    def clean(self, file: bytes) -> bytes:
        return b"".join(bytes(each) for each in self.cleaner.clean(file, "0" * 64).chunks)

    def pair(self, place: Place, tag: int, *, kept: bool = False) -> list[Any]:
        """What became of the two planted values: elements, None, or no surroundings at all."""
        found: list[Any] = []
        for variant in (0, 1):
            before = file_with(place, element(tag, planted(tag, variant, kept=kept)))
            there, planted_one = found_at(before, place, tag)
            assert there and planted_one is not None, "it was not planted"
            after = self.clean(before)
            there, left = found_at(after, place, tag)
            if not there and place[1]:
                return []
            if not kept:
                assert not says(after), f"the planted word is in the output, {place}"
            found.append(left)
        return found

    def holds(self, cell: Cell, tag: int, place: Place) -> bool:
        """Whether the cell could be looked at there; fails where it is not as the page says."""
        try:
            pair = self.pair(place, tag, kept=cell.word == "keep")
        except Quarantined as held:
            if held.reason == "head-volume":
                return False  # some devices show heads only, and nothing of theirs is published
            raise
        if not pair:
            return False
        one, other = pair
        where = f"{cell} at {place}: {one!r}"
        if cell.word == "remove":
            assert one is None and other is None, where
            return True
        assert one is not None and other is not None, where
        before = [element(tag, planted(tag, each, kept=cell.word == "keep")) for each in (0, 1)]
        first, second = one.value, other.value
        word = cell.word
        if word == OBSERVERS:
            word = "clean items" if place[0].startswith(REPORT) else "empty"
        if word == "empty":
            assert one.is_empty and other.is_empty, where
        elif word == "dummy":
            assert not one.is_empty and first == second, where
            assert first not in (before[0].value, before[1].value), where
        elif word == "constant":
            assert first == second == self.profile.document["constants"][cell.keyword], where
        elif word == "keep":
            assert (first, second) == (before[0].value, before[1].value), where
        elif word == "new UID":
            assert first.startswith("2.25.") and second.startswith("2.25."), where
            assert first != second, where
        elif word == "pseudonym":
            assert first and not any(word in str(first) for word in (*WORDS, "HWANGBO")), where
            # One patient a file: what stands in its fields becomes the number's pseudonym.
            theirs = cell.keyword == "PatientName" or (cell.keyword == "PatientID" and place[1])
            assert (first == second) == bool(theirs), where
        elif word == "date":
            self.moved(vr_of(tag), (str(first), str(second)), before, where)
        elif word == "clean text":
            assert str(first).upper() == str(second).upper() == "CHEST", where
        elif word == "age":
            assert (first, second) == ("090Y", "090Y"), where
            young = file_with(place, element(tag, "042Y"))
            kept = found_at(self.clean(young), place, tag)[1]
            assert kept is not None and kept.value == "042Y", where
        elif word in ("clean items", "clean nodes"):
            assert len(first) == 1, where
            assert not any(each.tag.is_private for each in first[0]), where
            assert 0x00101001 not in first[0], where
        else:
            pytest.fail(f"no expectation for {cell.word!r}")
        return True

    def moved(self, vr: str, after: tuple[str, str], before: list[DataElement], where: str) -> None:
        if vr == "TM":
            assert after == (before[0].value, before[1].value), where
            return
        days = [datetime.datetime.strptime(each[:8], "%Y%m%d") for each in after]
        assert (days[1] - days[0]).days == 14, where
        assert after[0][:8] != DAYS[0], where
        assert after[0][8:] == str(before[0].value)[8:], where


def in_tree(tag: int, place: Place) -> bool:
    """Whether it stands in a report's tree: test_structured_reports.py looks at those."""
    top = place[1][0] if place[1] else tag
    return place[0].startswith(REPORT) and top in inside(0x0040A730)


def number_of(cell: Cell) -> int:
    return int(cell.tag[1:5] + cell.tag[6:10], 16)


def plain(profile: str) -> list[Cell]:
    """The cells of one profile that name one attribute of the data set."""
    return [
        cell
        for cell in cells()
        if cell.profile == profile and re.fullmatch(r"\([0-9A-F]{4},[0-9A-F]{4}\)", cell.tag)
        and number_of(cell) >> 16 > 4
    ]  # fmt: skip


@pytest.mark.parametrize("name", shipped())
def test_each_cell_of_the_page_is_what_the_cleaner_does(name: str, decoder: Decoder) -> None:
    judge, where = Judge(load(name), decoder), places(name)
    wrong, seen = [], 0
    for cell in plain(name):
        tag = number_of(cell)
        for kind in (cell.kind,) if cell.kind else ("1", "2", "3"):
            looked_at = 0
            for place in where.get((tag, kind), ()):
                if in_tree(tag, place):
                    continue
                try:
                    looked_at += judge.holds(cell, tag, place)
                except (AssertionError, Quarantined) as error:
                    wrong.append(f"{cell.keyword} {place} {str(error).splitlines()[0]}")
                    looked_at += 1
                if looked_at == LOOKED_AT:
                    break
            seen += looked_at > 0
            closed = cell.word in ("remove", "remove (no IOD)", "file held")
            if cell.kind and not looked_at and not closed:
                wrong.append(f"{cell}: it can stand nowhere")
    assert not wrong, "\n".join(wrong)
    # Of 656 rows these can stand somewhere; a cell that says it keeps something must be among them.
    assert seen > 270, seen


@pytest.mark.parametrize("name", shipped())
def test_what_no_iod_defines_goes_wherever_it_stands(name: str, decoder: Decoder) -> None:
    judge = Judge(load(name), decoder)
    rows = {cell.tag: cell for cell in plain(name)}
    # In a report, some attributes are the value of a node of another kind.
    published = [each for each in sop_classes(name) if not each.startswith(REPORT)]
    assert len(rows) == 648
    tags = {number_of(cell) for cell in rows.values()}
    # The page: every file gets the patient's pseudonym, and the profile's constants.
    constants = {each.keyword for each in rows.values() if each.word == "constant"}
    in_every_file = {tag_for_keyword(each) for each in {"PatientName", "PatientID", *constants}}
    seen: set[int] = set()
    for place in (*((each, ()) for each in published), *((CT, (each,)) for each in SEQUENCES)):
        stands = inside(place[1][-1]) if place[1] else defined(place[0])
        strange = sorted(tags - stands.keys())
        before = file_with(place, *(element(tag, planted(tag, 0)) for tag in strange))
        assert says(before)
        try:
            after = judge.clean(before)
        except Quarantined as held:
            assert held.reason == "head-volume", place
            continue
        assert not says(after), place
        left = [
            f"{tag:08X}"
            for tag in strange
            if tag not in in_every_file and found_at(after, place, tag)[1] is not None
        ]
        assert not left, (place, left)
        seen.update(strange)
    assert seen == tags


@pytest.mark.parametrize("name", shipped())
def test_a_file_that_the_page_calls_held_is_held(name: str, decoder: Decoder) -> None:
    judge = Judge(load(name), decoder)
    open_to = {tag for tag, _kind in places(name)}
    published = set(sop_classes(name))
    held = 0
    for cell in plain(name):
        tag = number_of(cell)
        if cell.word != "file held" or cell.kind:
            continue
        assert tag not in open_to, f"{cell}: stands in files that are published"
        held += 1
    assert held > 10
    for sop_class in maps()["sop_classes"]:
        if sop_class not in published:
            with pytest.raises(Quarantined):
                judge.clean(file_with((sop_class, ()), element(0x00081030, "CHEST")))


@pytest.mark.parametrize("name", shipped())
def test_groups_private_elements_and_file_meta_are_as_the_page_says(
    name: str, decoder: Decoder
) -> None:
    judge = Judge(load(name), decoder)
    words = {cell.tag: cell.word for cell in cells() if cell.profile == name}
    assert words["(50XX,XXXX)"] == words["(60XX,3000)"] == words["(60XX,4000)"] == "remove"
    assert words["private"] == "remove" and words["(0002,0003)"] == "new UID"
    for group in (*range(0x5000, 0x5020, 2), *range(0x6000, 0x6020, 2)):
        for low, vr in ((0x0022, "LO"), (0x3000, "OB"), (0x4000, "LT"), (0x1500, "LO")):
            tag = group << 16 | low
            value = (WORDS[0] * 4).encode() if vr == "OB" else WORDS[0]
            before = file_with((CT, ()), element(tag, value, vr))
            assert says(before)
            after = judge.clean(before)
            assert not says(after) and tag not in pydicom.dcmread(BytesIO(after)), hex(tag)
    for path in ((), (0x00081140,), (0x00082218,)):
        for creator in ("SIEMENS CSA HEADER", "NOBODY KNOWN", WORDS[1]):
            for group in (0x0009, 0x0019, 0x0029, 0x7FE1):
                block = Dataset()
                made = block.private_block(group, creator, create=True)
                for low, vr in ((1, "LO"), (2, "UN"), (3, "DS"), (4, "OB")):
                    value = {"DS": "12", "UN": b"QVARTZOB", "OB": b"QVARTZOB"}.get(vr, WORDS[0])
                    made.add_new(low, vr, value)
                before = pydicom.dcmread(BytesIO(file_with((CT, path), element(0x00081150, CT))))
                where = before
                for sequence in path:
                    where = where[sequence].value[0]
                where.update(block)
                after = judge.clean(dicom_files.written(before))
                left = pydicom.dcmread(BytesIO(after))
                assert not says(after) and not any(each.tag.is_private for each in left.iterall())
    for element_number in (0x1000, 0x1001):  # a command's elements in front of a data set's
        file = file_with((CT, ()), element(0x00081030, "CHEST"))
        before = dicom_files.before(
            file, (0x0008, 0x0016), dicom_files.raw(0, element_number, b"UI", b"1.2.77.88.99\0")
        )
        try:
            after = judge.clean(before)
        except Quarantined:
            continue
        assert b"1.2.77.88.99" not in after
    after = judge.clean(file_with((CT, ()), element(0x00081030, "CHEST")))
    meta = pydicom.dcmread(BytesIO(after)).file_meta
    assert meta.MediaStorageSOPInstanceUID.startswith("2.25.")


def column(option: str) -> dict[int, str]:
    """The rows of the standard's table that an option changes, with its letter."""
    path = Path(deid.dicom.__file__).with_name("table_e1_1.csv")
    with path.open(newline="", encoding="utf-8") as handle:
        return {
            int(row["tag"], 16): row[option]
            for row in csv.DictReader(handle)
            if row.get(option) and re.fullmatch("[0-9A-F]{8}", row["tag"]) and row["tag"] > "0008"
        }


@pytest.mark.parametrize(
    "option",
    [
        "retain_uids", "retain_device", "retain_institution", "retain_patient_characteristics",
        "retain_full_dates", "retain_modified_dates", "clean_descriptors",
        "clean_structured_content", "clean_graphics",
    ],
)  # fmt: skip
def test_each_option_alone_does_what_its_column_says(option: str, decoder: Decoder) -> None:
    """K: the value stands. C: dates are moved, words cleaned, sequences cleaned or emptied."""
    judge = Judge(from_document({"options": [option]}), decoder)
    where, wrong, seen = places("basic"), [], 0
    for tag, letter in column(option).items():
        letter = "C" if option == "retain_modified_dates" else letter
        if tag in STRICTER:
            continue
        for kind in "123":
            looked_at = 0
            for place in where.get((tag, kind), ()):
                if looked_at == LOOKED_AT:
                    break
                try:
                    pair = judge.pair(place, tag, kept=letter == "K")
                except Quarantined as held:
                    assert held.reason == "head-volume", place
                    continue
                looked_at += bool(pair)
                if not pair:
                    continue
                if not _as_column(option, letter, tag, pair):
                    wrong.append(f"{tag:08X} {vr_of(tag)} {letter} {place} {pair}")
            seen += looked_at > 0
    assert not wrong, "\n".join(wrong)
    assert seen


def _as_column(option: str, letter: str, tag: int, pair: list[Any]) -> bool:
    one, other = pair
    vr = vr_of(tag)
    if one is None or other is None:
        return letter == "C" and vr not in ("DA", "DT", "TM", "LO", "SH", "ST", "LT", "UT", "UC")
    if letter == "K" and vr != "SQ":
        expected = "090Y" if vr == "AS" else element(tag, planted(tag, 0, kept=True)).value
        return bool(one.value == expected)
    if vr == "SQ":
        # What is inside follows its own rows.
        return not any(each.tag.is_private for each in one.value[:1] for each in each)
    if letter == "C" and vr in ("DA", "DT"):
        days = [datetime.datetime.strptime(str(each.value)[:8], "%Y%m%d") for each in pair if each]
        return len(days) == 2 and (days[1] - days[0]).days == 14 and one.value[:8] != DAYS[0]
    if letter == "C" and vr == "TM":
        return bool(one.value == planted(tag, 0))
    if letter == "C" and vr in ("LO", "SH", "ST", "LT", "UT", "UC"):
        return bool(str(one.value) == str(other.value) == "CHEST")
    return bool(one.is_empty)


SAFE, UNSAFE = "QVARTZ SCANNER 01", "QVARTZ SCANNER 02"
NUMBERS: Mapping[str, Any] = {
    "DS": "12.5", "IS": "12", "US": 912, "SS": -912, "UL": [70001, 70002], "SL": -70001,
    "FL": 12.5, "FD": [12.5, 13.5, 14.5], "SV": -(1 << 40), "UV": 1 << 40,
}  # fmt: skip
OWN = "77123456"
# Under a number's VR, and yet the patient's: their number, and letters.
TOLD: Mapping[str, Any] = {
    "DS": OWN, "IS": OWN, "UL": int(OWN), "SL": int(OWN), "FD": float(OWN), "SV": int(OWN),
    "UV": int.from_bytes(b"QVARTZOB", "little"),
    "US": [int.from_bytes(WORDS[0][at : at + 2].encode(), "little") for at in range(0, 8, 2)],
    "SS": [int.from_bytes(WORDS[1][at : at + 2].encode(), "little") for at in range(0, 8, 2)],
    "FL": float(OWN),
}  # fmt: skip
WORDED = {"LO": WORDS[0], "UN": b"QVARTZOB", "OB": b"QVARTZOB", "UT": WORDS[0], "DA": "20190807",
          "PN": WORDS[0], "UI": f"{dicom_files.PREFIX}.77", "AT": 0x00100010}  # fmt: skip


@pytest.mark.parametrize("block_at", [0x10, 0x43])
def test_of_private_blocks_the_option_alone_keeps_the_named_numbers_and_nothing_else(
    decoder: Decoder, block_at: int
) -> None:
    every = {vr: number for number, vr in enumerate([*NUMBERS, *WORDED], start=1)}
    judge = Judge(
        from_document(
            {
                "options": ["retain_safe_private"],
                "safe_private": {SAFE: [f"0019xx{number:02X}" for number in every.values()]},
            }
        ),
        decoder,
    )

    def left(values: Mapping[str, Any], creator: str = SAFE, path: tuple[int, ...] = ()) -> Any:
        """What of a block with one element a VR, and one more, the cleaned file holds."""
        top = pydicom.dcmread(BytesIO(file_with((CT, path), element(0x00081150, CT))))
        top.PatientID = OWN
        where = top[path[0]].value[0] if path else top
        where.add_new(0x00190000 | block_at, "LO", creator)
        for vr, value in values.items():
            where.add(element(0x00190000 | block_at << 8 | every[vr], value, vr))
        where.add(element(0x00190000 | block_at << 8 | 0xFE, 12, "US"))
        where.add(element(0x00100020, OWN))
        where.add(element(0x00101080, WORDS[0]))
        after = judge.clean(dicom_files.written(top))
        assert OWN.encode() not in after and b"QVARTZOB" not in after
        read = pydicom.dcmread(BytesIO(after))
        codes = [each.CodeValue for each in read.DeidentificationMethodCodeSequence]
        assert codes == ["113100", "113111"]
        return {
            each.VR: each.value for each in read.iterall() if each.tag.is_private
            and each.tag.element > 0xFF
        }  # fmt: skip

    assert left(NUMBERS) == NUMBERS
    assert left(TOLD) == {} and left(WORDED) == {}
    assert left(NUMBERS, UNSAFE) == {}
    assert left(NUMBERS, path=(0x00081140,)) == {}


def test_the_page_says_which_rows_no_option_brings_back() -> None:
    listed = PAGE.read_text("utf-8").split("Gone whatever an option would keep: ")[1]
    keywords = listed.split(".\n")[0].split(", ")
    assert sorted(keywords) == sorted(keyword_for_tag(tag) for tag in STRICTER)
