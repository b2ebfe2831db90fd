"""Numbers that are words, words that are numbers: what a value may hold besides what it says."""

from __future__ import annotations

import struct

import pytest

from deid.dicom import stream, text, values
from deid.dicom.clean import DicomCleaner
from deid.dicom.header import HeaderCleaner
from deid.dicom.plan import Plan, Rule
from deid.dicom.stream import Element
from deid.profile import Profile
from deid.vault import Pseudonyms
from synthetic import dicom_files
from tests.deid.conftest import KEY

NONE: frozenset[str] = frozenset()
LETTERS = b"QWOZNIAKQWOZNIAKQWOZNIAK"
WHOLE = "1.2.840.10008.5.1.4.1.1."


def uid(found: str) -> str:
    return "UID"


@pytest.mark.parametrize(
    "written",
    [
        "1977. 3. 15.", "1977년 3월 15일", "3/15", "15/3", "97F", "F/97", "97/F", "age 97",
        "aged: 97", "Age=097", "99 male", "M 97", "나이 97", "만 97 세", "97 ans", "y/o 97",
        "97 yrs",
        "7 7 0 3 1 5 2 3", "K I M M I N J I", "K.I.M. M.I.N", "b1977", "\u0663\u0664",
    ],
)  # fmt: skip
def test_what_a_description_loses(written: str) -> None:
    kept = text.clean(written, NONE, uid)
    assert not any(character.isdigit() for character in kept), kept
    assert "K" not in kept and "M" not in kept.upper().replace("MALE", "")


@pytest.mark.parametrize(
    "written",
    ["T2 TSE 3.5", "b1000", "b800", "1/2", "L4-5", "MLO 2", "42 years", "089Y", "F 42", "3.15"],
)
def test_what_a_description_keeps(written: str) -> None:
    assert text.clean(written, NONE, uid) == written


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b"19550607", False), (b"01098765432", False), (b"5506071234567", False),
        (b"007712345", False), (b"7400000000", True), (b"370000000", True), (b"0.35", True),
        (b"127.744123", True), (b"1.5\\19550607", False), (b"1234", True), (b"20001", True),
    ],
)  # fmt: skip
def test_which_numbers_are_a_persons(written: bytes, kept: bool) -> None:
    assert values.is_number(written, "DS", NONE) is kept


def test_the_day_of_birth_is_the_patients_own(cleaner: DicomCleaner) -> None:
    data = dicom_files.base()
    data.PatientBirthDate = "19670229"  # no day of the calendar, and theirs all the same
    data.KVP = "19670229"
    assert b"19670229" not in b"".join(cleaner.clean(dicom_files.written(data), "0").chunks)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b"7712345.0", False), (b"7.712345e6", False), (b"771.2345", False), (b"-7712345.5", False),
        (b"7712345e-3", False), (b"19550607.0", False), (b"1.9550607E7", False),
        (b"550607.12345", False), (b"0.7712345", False),
        (b"771.2346", True), (b"7400000000.0", True), (b"1e400", True), (b"123456.5", True),
    ],
)  # fmt: skip
def test_no_measure_is_the_patients_number_in_disguise(written: bytes, kept: bool) -> None:
    assert values.is_number(written, "DS", OWN) is kept


OWN = frozenset({"7712345", "bak", "min", "550607"})


@pytest.mark.parametrize(
    ("vr", "form", "number", "kept"),
    [
        ("FD", "<d", 19550607.0, False), ("FD", "<d", 7712345.0, False),
        ("FL", "<f", 7712345, False),
        ("UL", "<I", 7712345, False), ("UL", "<I", 19550607, False), ("SL", "<i", 550607, False),
        ("FD", "<d", 7712345.5, True), ("UL", "<I", 7712346, True), ("SL", "<i", -7, True),
        ("FD", "<d", float("nan"), True), ("FD", "<d", float("inf"), True),
    ],
)  # fmt: skip
def test_no_binary_number_is_the_patients(vr: str, form: str, number: float, kept: bool) -> None:
    tag = {"FD": 0x00189073, "FL": 0x00089459, "UL": 0x00186016, "SL": 0x00186020}[vr]
    assert values.is_binary(tag, struct.pack(form, number), vr, OWN) is kept


@pytest.mark.parametrize("encoding", ["cp949", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("spare", [b"", b"\0\1" * 8])
def test_numbers_do_not_hold_the_patients_name_in_hangul(encoding: str, spare: bytes) -> None:
    name = "박도리".encode(encoding)
    value = name + bytes(len(name) % 2) + spare
    assert not values.is_binary(0x00603020, value, "OW", frozenset({"박도리"}))
    assert values.is_binary(0x00603020, value, "OW", frozenset({"박도인"}))


@pytest.mark.parametrize(
    ("uid", "kept"),
    [
        (b"1.2.840.7712345.1", False), (b"7712345", False), (b"1.2.840.19550607.1", True),
        (b"1.2.840.113619.1", True), (b"1.2.840.77123451.1", True),
    ],
)  # fmt: skip
def test_a_uid_that_is_kept_holds_no_number_of_the_patient(
    uid: bytes, kept: bool, cleaner: DicomCleaner
) -> None:
    data = dicom_files.base()
    data.PatientID, data.ManufacturerDeviceClassUID = "7712345", uid.decode()
    made = b"".join(cleaner.clean(dicom_files.written(data), "0").chunks)
    assert (uid in made) is kept


def test_a_long_number_is_known_in_a_short_float() -> None:
    own = frozenset({"88123457"})
    assert not values.is_binary(0x00089459, struct.pack("<f", 88123457.0), "FL", own)


@pytest.mark.parametrize(
    ("written", "vr", "left"),
    [
        (b"631117", "TM", b""), (b"771234.5", "TM", b""), (b"126117", "TM", b""),
        (b"235960.123", "TM", b"235960.123"), (b"10:11:12", "TM", b"10:11:12"),
        (b"23", "TM", b"23"), (b"77121314", "DA", b""), (b"7712", "DT", b""),
        (b"18991231", "DA", b"18991231"), (b"2031", "DT", b"2031"),
        (b"20200101631117.771234", "DT", b""),
        (b"20200101101112.5+0900", "DT", b"20200101101112.5+0900"),
        (b"2020010110", "DT", b"2020010110"),
    ],
)  # fmt: skip
def test_a_time_is_one_of_a_day_and_a_day_one_of_our_times(
    written: bytes, vr: str, left: bytes
) -> None:
    assert values.date(written, vr, 0) == left


def test_the_first_figures_of_a_registers_number_are_the_patients_own(
    cleaner: DicomCleaner,
) -> None:
    data = dicom_files.base()
    data.PatientBirthDate, data.SeriesNumber = "19631117", "631117"
    assert b"631117" not in b"".join(cleaner.clean(dicom_files.written(data), "0").chunks)


@pytest.mark.parametrize("written", ["BAK-712", "771-2345", "T-BAK", "77.12345"])
def test_a_code_holds_no_part_of_the_patients_name(written: str) -> None:
    assert values.code_value(written.encode(), NONE) == written.encode()
    assert values.code_value(written.encode(), OWN) == b""


def test_a_unit_is_not_the_name_that_it_sounds_like() -> None:
    assert values.code_value(b"ml/min", OWN) == b"ml/min"


@pytest.mark.parametrize("written", ["T2 T771 T234 T5 chest", "771mm 234mm 5mm chest"])
def test_numbers_do_not_spell_the_patients_own(written: str) -> None:
    assert text.clean(written, NONE, uid) == written
    assert text.clean(written, OWN, uid) == "chest"


@pytest.mark.parametrize("written", ["KIMMINJI", "Kim^Minj", "19770315", "01098765432", "QWOZ"])
def test_a_code_is_no_name_and_no_number_of_a_person(written: str) -> None:
    assert values.code_value(written.encode(), NONE) == b""


@pytest.mark.parametrize(
    "written", ["R-10242", "113100", "mm", "T-04000", "C50.9", "{ratio}", "T2"]
)
def test_a_code_is_kept(written: str) -> None:
    assert values.code_value(written.encode(), NONE) == written.encode()


def planted(rules: dict[int, Rule], plan: Plan, above: tuple[int, ...] = ()) -> list[Element]:
    """Letters in every number of a data set, down to five sequences deep."""
    found = []
    for tag, rule in sorted(rules.items()):
        vr = rule.vr.split(" or ")[0]
        if vr == "SQ" and rule.action == "items" and len(above) < 5 and tag not in above:
            inside = planted(plan.inside(tag), plan, (*above, tag))
            found.append(Element(tag, "SQ", items=[inside]))
        elif vr in values.BINARY_SIZES and tag not in stream_pixels():
            found.append(Element(tag, vr, LETTERS))
        elif vr in ("DS", "IS"):
            found.append(Element(tag, vr, b"01098765432"))
    return found


def stream_pixels() -> tuple[int, ...]:
    return (0x7FE00008, 0x7FE00009, 0x7FE00010)


@pytest.mark.parametrize("end", ["1.1.2", "2", "4.1", "6.1", "128", "481.3", "66.4", "77.1.6"])
def test_no_number_of_any_depth_holds_letters(end: str, profile: Profile) -> None:
    plan = Plan(profile)
    elements = [
        element for element in planted(plan.top(WHOLE + end), plan) if element.tag != 0x00080016
    ]
    elements.append(Element(0x00100020, "LO", b"ZZ77"))
    elements.sort(key=lambda element: element.tag)
    cleaner = HeaderCleaner(plan, Pseudonyms(KEY))
    file = stream.DicomFile({}, stream.EXPLICIT, elements)
    made = cleaner.clean(file, WHOLE + end, cleaner.identity(file, lambda: "0"))
    assert _bytes(elements).count(b"QWOZ") > 20
    left = _bytes(made.elements)
    assert b"QWOZNIAK" not in left
    assert b"01098765432" not in left


def _bytes(elements: list[Element]) -> bytes:
    parts = []
    for element in elements:
        if element.items is not None:
            parts.extend(_bytes(item) for item in element.items)
        else:
            parts.append(bytes(element.value))
    return b"|".join(parts)


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00186020, "SL", struct.pack("<i", -300)),
        (0x00280009, "AT", struct.pack("<HH", 0x0018, 0x1063)),
        (0x00280009, "AT", struct.pack("<HH", 0x0019, 0x100C)),
        (0x00089459, "FL", struct.pack("<f", 12.14)),
        (0x00189074, "FD", struct.pack("<d", -273.15)),
    ],
)
def test_ordinary_numbers_stay(tag: int, vr: str, value: bytes) -> None:
    assert values.is_binary(tag, value, vr, NONE)
