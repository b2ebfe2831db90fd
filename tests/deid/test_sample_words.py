"""Letters as grey values: invisible in the picture, plain to whoever reads its bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from deid.dicom.clean import DicomCleaner
from deid.dicom.sample_words import spells_own
from deid.quarantine import Quarantined
from synthetic import dicom_files
from synthetic.photos import package_photo

SIDE = 64


def picture(kind: str, text: bytes) -> tuple[bytes, dict[str, object]]:
    """A noisy picture with a letter in each sample, or in one colour, from its 700th pixel on."""
    letters = np.frombuffer(text, np.uint8)
    place = slice(700, 700 + len(letters))
    noise = np.random.default_rng(3).normal(128, 20, (SIDE * SIDE, 3)).clip(0, 255)
    if kind == "colour":
        colours = noise.astype(np.uint8)
        colours[place, 1] = letters
        return colours.tobytes(), {
            "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0,
            "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7,
        }  # fmt: skip
    grey = noise[:, 0].astype(np.uint8 if kind == "8 bits" else "<u2")
    bits = grey.dtype.itemsize * 8
    if kind == "high byte":
        grey = grey << 8
    grey[place] = letters.astype(grey.dtype) << (8 if kind == "high byte" else 0)
    return grey.tobytes(), {"BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1}


def file_of(kind: str, text: bytes) -> bytes:
    data = dicom_files.base(dicom_files.SC, "OT")
    data.PixelData, attributes = picture(kind, text)
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    return dicom_files.written(data)


@pytest.mark.parametrize("kind", ["8 bits", "low byte", "high byte", "colour"])
@pytest.mark.parametrize("text", [b"HWANGBO^MYUNGHEE", b"Myunghee Hwangbo", b"7712345K"])
def test_a_file_whose_samples_hold_words_is_held(
    kind: str, text: bytes, cleaner: DicomCleaner
) -> None:
    with pytest.raises(Quarantined, match="words-in-samples"):
        cleaner.clean(file_of(kind, text), "0")
    assert cleaner.clean(file_of(kind, b""), "0")


def test_a_word_across_two_pieces_is_found() -> None:
    data = bytearray((8 << 20) + 4096)
    data[(8 << 20) - 9 : (8 << 20) + 7] = b"HWANGBO MYUNGHEE"
    assert spells_own(bytes(data), [b"HWANGBO", b"MYUNGHEE"])


def test_ramps_plains_and_short_words_of_the_patient_are_no_names() -> None:
    own = [b"12345678", b"11111111", b"KIM", b"1357913579"]
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 1).tobytes()
    assert not spells_own(ramp + bytes([0x31]) * 5000 + b"\0KIM\0", own)
    assert spells_own(b"\0\0" + b"KIM^12345678" + b"\0\0", own)


@pytest.mark.filterwarnings("ignore")
def test_pictures_without_words_are_not_held() -> None:
    own = [b"HWANGBO", b"MYUNGHEE", b"KIM", b"MINSU", b"77123456", b"19620307"]
    seen = 0
    for name in ("astronaut.png", "brick.png", "chelsea.png", "coffee.png", "rocket.jpg"):
        photo = package_photo(name)
        planes = [photo] if photo.ndim == 2 else [photo, *np.moveaxis(photo, 2, 0)]
        for plane in planes:
            held = np.ascontiguousarray(plane).tobytes()
            each = 3 if plane.ndim == 3 else 1
            assert not spells_own(held, own, each), name
            seen += 1
    for path in sorted(Path(get_testdata_file("CT_small.dcm")).parent.glob("*.dcm")):
        try:
            data = pydicom.dcmread(path)
            held, each = data.pixel_array.tobytes(), int(data.SamplesPerPixel)
        except Exception:  # pydicom's broken examples
            continue
        assert not spells_own(held, own, each), path
        seen += 1
    assert seen > 50
