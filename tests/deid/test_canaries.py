"""No planted secret survives, wherever it was hidden; each is first shown to be there."""

from __future__ import annotations

import hashlib

import numpy as np
import pydicom
import pytest

from deid.dicom.clean import DicomCleaner
from deid.layers import layers
from deid.quarantine import Quarantined
from synthetic import canaries, canaries_in_structure, dicom_files


@pytest.mark.parametrize("canary", canaries.PLACES, ids=lambda canary: canary.name)
def test_a_secret_does_not_survive(canary: canaries.Canary, cleaner: DicomCleaner) -> None:
    file = canary.build()
    shown = dicom_files.inflated(file) if canary.name == "deflated" else file
    for secret in canary.secrets:
        assert secret in shown, "the builder must plant its secret"
    try:
        result = cleaner.clean(file, hashlib.sha256(file).hexdigest())
    except Quarantined:
        assert canary.may_hold, "an ordinary file must be cleaned, not held"
        return
    output = b"".join(result.chunks)
    for _place, content in layers(output):
        for secret in canary.secrets:
            assert secret not in content
            assert secret.lower() not in content.lower()


def test_there_are_many_places() -> None:
    assert len(canaries.PLACES) >= 150
    assert len({canary.name for canary in canaries.PLACES}) == len(canaries.PLACES)


def test_nothing_of_a_file_is_said_aloud(
    cleaner: DicomCleaner, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    for build in (canaries.character_set_itself, canaries_in_structure.wrong_vr_for_a_number):
        cleaner.clean(build(), "0")
    cleaner.clean(canaries.korean_mislabelled(), "0")
    said = " ".join(str(each.message) for each in recwarn) + caplog.text
    assert dicom_files.SECRET not in said and "명희" not in said


def test_a_few_bytes_that_claim_to_be_a_huge_picture_are_held(cleaner: DicomCleaner) -> None:
    file = dicom_files.compressed(dicom_files.jpeg_frame(), dicom_files.JPEG_BASELINE)
    for element in (0x10, 0x11):
        small = dicom_files.raw(0x28, element, b"US", b"\x40\0")
        assert small in file
        file = file.replace(small, dicom_files.raw(0x28, element, b"US", b"\xff\xff"))
    with pytest.raises(Quarantined, match="too-large"):
        cleaner.clean(file, "0")


def test_unused_bits_of_each_word_are_cleared(cleaner: DicomCleaner) -> None:
    file = canaries_in_structure.unused_high_bits()
    before = pydicom.dcmread(__import__("io").BytesIO(file)).PixelData
    assert (np.frombuffer(before, "<u2") >> 12).any()
    output = b"".join(cleaner.clean(file, "0").chunks)
    after = pydicom.dcmread(__import__("io").BytesIO(output)).PixelData
    words = np.frombuffer(after, "<u2")
    assert not (words >> 12).any()
    assert np.array_equal(words, np.frombuffer(before, "<u2") & 0xFFF)
