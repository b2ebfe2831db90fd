"""What a value became in one file is taken over in the next only where all is the same."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import pydicom
import pytest
from pydicom import Dataset

from deid.decoding import Decoder
from deid.dicom import memory
from deid.dicom.clean import DicomCleaner, Result
from deid.dicom.header import HeaderCleaner
from deid.dicom.plan import Plan
from deid.profile import Profile, from_document, load
from deid.vault import Pseudonyms
from synthetic import dicom_files

KEY = bytes(range(32))
# The same texts and numbers, which are a patient's own in some files and nobody's in others.
OWN = ("LEFT^BREAST", "PARK^JIYOUN", "황보명희", "김^철수")


def files() -> Iterator[bytes]:
    """Files whose elements are the same but for the person, the encoding, and the SOP class."""
    for name in OWN:
        for number in ("7712345K", "7712345k", "20190807", "123456"):
            for charset in (b"ISO_IR 192", b"ISO_IR 100"):
                for sop_class in (dicom_files.MG, dicom_files.CT):
                    data = dicom_files.base(sop_class)
                    data.SpecificCharacterSet = "ISO_IR 192"
                    data.PatientName, data.PatientID = name, number
                    data.StudyDescription = "Left 유방 황보명희"
                    data.SeriesDescription = "left breast 123456"
                    data.AccessionNumber = "20190807"
                    data.BodyPartExamined = data.ViewPosition = "BREAST"
                    data.ExposureTime = "123456"
                    item = Dataset()
                    item.CodeValue, item.CodingSchemeDesignator = "123456", "99PARK"
                    item.CodeMeaning = "Left breast"
                    data.ViewCodeSequence = [item]
                    file = dicom_files.written(data).replace(b"ISO_IR 192", charset)
                    # No number: a type 2 value of a CT becomes empty, elsewhere it goes.
                    kvp = dicom_files.raw(0x0018, 0x0060, b"DS", b"KIM")
                    yield dicom_files.before(file, (0x0018, 0x1150), kvp)


def cleaner_of(profile: Profile, decoder: Decoder, *, keep_map: bool = False) -> DicomCleaner:
    header = HeaderCleaner(Plan(profile), Pseudonyms(KEY), keep_map=keep_map)
    return DicomCleaner(header, decoder)


def said(result: Result) -> tuple[object, ...]:
    return (b"".join(result.chunks), result.actions, result.subject, result.mapped)


@pytest.mark.parametrize("name", ["research", "basic"])
@pytest.mark.parametrize("keep_map", [False, True], ids=["plain", "crosswalk"])
def test_a_file_becomes_the_same_whatever_came_before_it(
    name: str, keep_map: bool, decoder: Decoder
) -> None:
    document = dict(load(name).document)
    document["options"] = [option for option in document["options"] if option != "clean_pixel_data"]
    document["head_volumes"] = "allow"
    profile = from_document(document)
    every = list(files())
    alone = [said(cleaner_of(profile, decoder, keep_map=keep_map).clean(each)) for each in every]
    order = random.Random(5).choices(range(len(every)), k=3 * len(every))
    after = cleaner_of(profile, decoder, keep_map=keep_map)
    for number in order:
        assert said(after.clean(every[number])) == alone[number]


def test_equal_values_of_two_attributes_are_two(header_cleaner: DicomCleaner) -> None:
    data = dicom_files.base()
    data.PatientName = "LEFT^BREAST"
    data.BodyPartExamined = data.ViewPosition = "BREAST"
    result = header_cleaner.clean(dicom_files.written(data))
    made = pydicom.dcmread(io.BytesIO(b"".join(result.chunks)))
    # A code of the standard's own list is no patient's word.
    assert "BodyPartExamined" not in made and made.ViewPosition == "BREAST"


def test_the_memory_has_a_bound(
    decoder: Decoder, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "BYTES", 1 << 16)
    cleaner = cleaner_of(profile, decoder)
    held = cleaner.header.memory
    most = 0
    for number in range(200):
        known = held.of((str(number),))
        for place in range(20):
            rule = cleaner.header.plan.top(dicom_files.MG)[0x00080060]
            held.add(known, (place, "CS", rule, b"x" * 100), ("CS", b"x" * 100, ""))
        most = max(most, sum(map(len, held._of.values())))
    assert 0 < most <= (1 << 16) // memory.ENTRY_BYTES + 20
