"""What the de-identification tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deid.decoding import Decoder
from deid.dicom.clean import DicomCleaner
from deid.dicom.header import HeaderCleaner
from deid.dicom.plan import Plan
from deid.profile import Profile, from_document, load
from deid.vault import Pseudonyms

KEY = bytes(range(32))


@pytest.fixture
def key() -> bytes:
    """A key that every test of a run shares, so that pseudonyms can be compared."""
    return KEY


@pytest.fixture(scope="session")
def decoder() -> Iterator[Decoder]:
    """One decoder process for all tests."""
    process = Decoder()
    yield process
    process.close()


@pytest.fixture(scope="session")
def profile() -> Profile:
    """The default profile."""
    return load("research")


@pytest.fixture(scope="session")
def cleaner(profile: Profile, decoder: Decoder) -> DicomCleaner:
    """A cleaner by the default profile."""
    return DicomCleaner(HeaderCleaner(Plan(profile), Pseudonyms(KEY)), decoder)


@pytest.fixture(scope="session")
def header_cleaner(decoder: Decoder) -> DicomCleaner:
    """A cleaner by the default profile without the options that look at pixels."""
    document = dict(load("research").document)
    document["options"] = [
        option
        for option in document["options"]
        if not option.startswith(("clean_pix", "clean_rec"))
    ]
    plan = Plan(from_document(document))
    return DicomCleaner(HeaderCleaner(plan, Pseudonyms(KEY)), decoder)
