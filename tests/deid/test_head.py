"""Volumes that show a head are held, wherever and in whatever language a device says so."""

from __future__ import annotations

import pydicom
import pytest

from deid.dicom import head, stream
from synthetic import dicom_files

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"

HEADS = [
    "HEAD", "Head^Routine", "HEAD2.0", "cHEAD_C+", "BRAIN W/WO", "t1_mprage_sag_p2_iso", "ax FLAIR",
    "Neuro^Kopf", "Schädel nativ", "SCHAEDEL-CT", "Schadel", "Gesichtsschädel", "NNH coronar",
    "Kopf-Hals Angio", "Felsenbein", "Gehirn", "Hypophyse",
    "Crâne sans IV", "TETE", "cérébral", "encéphale", "rochers", "cabeza", "cráneo simple",
    "cervello", "encefalo", "hoofd", "hersenen",
    "두부 CT", "뇌MRI", "두부CT(조영)", "안면골", "부비동", "얼굴", "두경부", "경부 CT", "측두골",
    "頭部単純", "脳MRI", "头颅平扫", "головной мозг",
    "Sinus", "PNS", "Orbits", "IAC", "TMJ both", "Temporal bone", "Neck CTA", "Pituitary",
    "WHOLEBODY", "Whole-Body Trauma", "Ganzkörper", "전신", "CT Chest and Head",
    "skull base to mid thigh", "stroke intracranial", "Circle of Willis",
]  # fmt: skip
OTHERS = [
    "CHEST", "Abdomen^Routine", "THORAX 1.0", "ABDOMEN_PELVIS W CONTRAST", "LSPINE", "C-Spine",
    "KNEE", "Femoral head necrosis", "HIP femoral neck", "head of the pancreas", "Hüftkopf",
    "Humeruskopf", "Coronary sinus", "sinus rhythm 60", "temporal resolution 50ms", "bladder neck",
    "Head first supine", "cranio-caudal", "craniocaudal 1.5", "overhead arms", "headphones on",
    "Facet joints", "Becken", "Lunge", "Leber", "poumon", "foie", "torax", "흉부 CT", "복부",
    "자궁경부", "대퇴경부", "무릎", "胸部", "腹部", "neuroforamina", "Heart perfusion", "Prostate",
    "carotid sinus", "Thorax Übersicht", "routine",
]  # fmt: skip


def volume(sop_class: str = dicom_files.CT, modality: str = "CT") -> pydicom.Dataset:
    data = dicom_files.base(sop_class, modality)
    data.SpecificCharacterSet = "ISO_IR 192"
    data.BodyPartExamined = data.StudyDescription = ""
    return data


def is_head(data: pydicom.Dataset) -> bool:
    return head.is_head(stream.parse(dicom_files.written(data)), data.SOPClassUID)


@pytest.mark.parametrize("text", HEADS)
def test_a_head_is_known_by_one_text_alone(text: str) -> None:
    for keyword in ("StudyDescription", "SeriesDescription", "ProtocolName"):
        data = volume()
        setattr(data, keyword, text)
        assert is_head(data), keyword
    data = volume(MR, "MR")
    data.RequestedProcedureDescription = text
    assert is_head(data)


@pytest.mark.parametrize("text", OTHERS)
def test_another_part_is_not_held(text: str) -> None:
    data = volume()
    data.StudyDescription = data.SeriesDescription = data.ProtocolName = text
    assert not is_head(data)


@pytest.mark.parametrize("charset", ["ISO 2022 IR 149", "ISO_IR 100", ""])
def test_a_head_in_korean_is_known_by_any_character_set(charset: str) -> None:
    data = volume()
    data.SpecificCharacterSet = charset
    file = dicom_files.written(data)
    text = "두부 조영".encode("cp949")
    empty, said = (dicom_files.raw(8, 0x1030, b"LO", value) for value in (b"", text))
    assert empty in file
    file = file.replace(empty, said)
    assert head.is_head(stream.parse(file), dicom_files.CT)


def code(value: str, scheme: str, meaning: str) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


@pytest.mark.parametrize(
    ("item", "held"),
    [
        (code("69536005", "SCT", "X"), True),
        (code("T-A0100", "SRT", "Gehirn"), True),
        (code("77777", "99LOCAL", "Brain"), True),
        (code("51185008", "SCT", "Chest"), False),
    ],
)
@pytest.mark.parametrize("keyword", ["AnatomicRegionSequence", "ProcedureCodeSequence", "frame"])
def test_codes_are_read_and_those_of_frames_too(
    item: pydicom.Dataset, held: bool, keyword: str
) -> None:
    data = volume(ENHANCED_CT)
    if keyword == "frame":
        anatomy, group = pydicom.Dataset(), pydicom.Dataset()
        anatomy.AnatomicRegionSequence = [item]
        group.FrameAnatomySequence = [anatomy]
        data.SharedFunctionalGroupsSequence = [group]
    else:
        setattr(data, keyword, [item])
    assert is_head(data) is held
    file = stream.parse(dicom_files.written(data))
    assert head.names_part(file) is (keyword != "ProcedureCodeSequence")


def test_a_picture_that_is_no_volume_is_not_held() -> None:
    data = volume(dicom_files.MG, "MG")
    data.StudyDescription = "Head"
    assert not is_head(data)


def test_a_craniofacial_volume_is_held_whatever_it_says() -> None:
    assert is_head(volume(head.CRANIOFACIAL, "DX"))


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("CHEST", True), ("TSPINE", True), ("CHEST_ABDOMEN", True), ("Thorax", True),
        ("", False), ("UNKNOWN", False), ("OTHER", False), ("HD", False), ("CSPINE", False),
    ],
)  # fmt: skip
def test_only_a_part_that_is_known_says_that_no_head_is_there(part: str, said: bool) -> None:
    data = volume(dicom_files.CT)
    data.BodyPartExamined = part
    assert head.names_part(stream.parse(dicom_files.written(data))) is said


@pytest.mark.parametrize("text", ["Neurokranium", "CTA carotis", "Angio Willis", "NCCT stroke"])
def test_what_else_shows_a_head(text: str) -> None:
    assert head.names_head(text)
