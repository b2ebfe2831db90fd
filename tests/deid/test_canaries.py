"""No planted secret survives, wherever it was hidden; each is first shown to be there."""

from __future__ import annotations

import hashlib

import numpy as np
import pydicom
import pytest

from deid.dicom.clean import DicomCleaner
from deid.quarantine import Quarantined
from deid.verify import contents
from tests.deid import canaries


@pytest.mark.parametrize("canary", canaries.PLACES, ids=lambda canary: canary.name)
def test_a_secret_does_not_survive(canary: canaries.Canary, cleaner: DicomCleaner) -> None:
    file = canary.build()
    shown = canaries.inflated(file) if canary.name == "deflated" else file
    for secret in canary.secrets:
        assert secret in shown, "the builder must plant its secret"
    try:
        result = cleaner.clean(file, hashlib.sha256(file).hexdigest())
    except Quarantined:
        assert canary.may_hold, "an ordinary file must be cleaned, not held"
        return
    output = b"".join(result.chunks)
    for _place, content in contents(output):
        for secret in canary.secrets:
            assert secret not in content
            assert secret.lower() not in content.lower()


def test_there_are_many_places() -> None:
    assert len(canaries.PLACES) >= 150
    assert len({canary.name for canary in canaries.PLACES}) == len(canaries.PLACES)


def test_unused_bits_of_each_word_are_cleared(cleaner: DicomCleaner) -> None:
    file = canaries.unused_high_bits()
    before = pydicom.dcmread(__import__("io").BytesIO(file)).PixelData
    assert (np.frombuffer(before, "<u2") >> 12).any()
    output = b"".join(cleaner.clean(file, "0").chunks)
    after = pydicom.dcmread(__import__("io").BytesIO(output)).PixelData
    words = np.frombuffer(after, "<u2")
    assert not (words >> 12).any()
    assert np.array_equal(words, np.frombuffer(before, "<u2") & 0xFFF)
