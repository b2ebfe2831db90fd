"""Masked pixels in every transfer syntax and of every kind: outside the boxes nothing changes."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from pydicom.pixels.decoders.base import get_decoder

from deid import spill
from deid.dicom import frames as frames_module
from deid.dicom.clean import DicomCleaner, Result
from synthetic import compressed
from synthetic.compressed import COMPRESSED, JPEG, KINDS, NATIVE, Kind

SYNTAXES = {**NATIVE, **COMPRESSED}
EXPLICIT = NATIVE["explicit"]
# What each syntax may become when pixels are masked; uncompressed is right where encoding fails.
FAMILY = {
    **dict.fromkeys((*NATIVE.values(), *JPEG.values()), EXPLICIT),
    COMPRESSED["RLE"]: COMPRESSED["RLE"],
    COMPRESSED["JPEG-LS"]: COMPRESSED["JPEG-LS"],
    COMPRESSED["JPEG-LS near"]: COMPRESSED["JPEG-LS"],
    COMPRESSED["JPEG 2000 lossless"]: COMPRESSED["JPEG 2000 lossless"],
    COMPRESSED["JPEG 2000"]: COMPRESSED["JPEG 2000 lossless"],
}


def written() -> list[tuple[str, str]]:
    """Every kind in every syntax that can hold it."""
    found = []
    for kind in KINDS:
        for name, syntax in SYNTAXES.items():
            try:
                compressed.file(KINDS[kind], syntax)
            except ValueError:
                continue
            found.append((kind, name))
    return found


CASES = written()


def opened(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def stored(dataset: pydicom.Dataset, kind: Kind) -> np.ndarray:
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    values = decoder.as_array(dataset, as_rgb=False)[0]
    return values if kind.frames > 1 else values[np.newaxis]


def outside(result: Result, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.ones(shape, bool)
    for _kind, x, y, width, height, _score in result.boxes:
        mask[:, y : y + height, x : x + width] = False
    return mask


def test_every_syntax_and_every_kind_is_among_the_cases() -> None:
    assert {name for _kind, name in CASES} == set(SYNTAXES)
    assert {kind for kind, _name in CASES} == set(KINDS)
    assert len(CASES) > 150


@pytest.mark.parametrize(("name", "syntax"), CASES)
def test_what_is_masked_and_nothing_else_changes(
    name: str, syntax: str, cleaner: DicomCleaner
) -> None:
    kind = KINDS[name]
    data = compressed.file(kind, SYNTAXES[syntax])
    result = cleaner.clean(data, "0")
    before, after = opened(data), opened(b"".join(result.chunks))
    old, new = stored(before, kind), stored(after, kind)
    assert (new.shape, new.dtype) == (old.shape, old.dtype.newbyteorder("<"))
    free = outside(result, old.shape)
    assert result.boxes and np.array_equal(old[free], new[free])
    # The writing is gone: each box is of one value.
    for _kind, x, y, width, height, _score in result.boxes:
        box = new[:, y : y + height, x : x + width]
        assert (box == box[:, :1, :1]).all()
    assert not free[:, :, : old.shape[2]][-1][compressed.strokes()[:, : old.shape[2]] > 0].any()

    made = after.file_meta.TransferSyntaxUID
    assert made in (FAMILY[SYNTAXES[syntax]], EXPLICIT)
    assert after.get("NumberOfFrames") == before.get("NumberOfFrames")
    assert after.PhotometricInterpretation == kind.photometric.replace("_FULL_422", "_FULL")
    assert after.get("PlanarConfiguration") == (0 if kind.samples > 1 else None)
    assert (after.BitsStored, after.PixelRepresentation) == (
        before.BitsStored, before.PixelRepresentation,
    )  # fmt: skip
    for keyword in ("LossyImageCompression", "LossyImageCompressionMethod"):
        assert after.get(keyword) == before.get(keyword), keyword
    assert "ExtendedOffsetTable" not in after and "ExtendedOffsetTableLengths" not in after


def test_each_family_is_encoded_again(cleaner: DicomCleaner) -> None:
    for syntax, family in FAMILY.items():
        name = "YBR" if syntax == COMPRESSED["JPEG 2000"] else "8 bits"
        result = cleaner.clean(compressed.file(KINDS[name], syntax), "0")
        assert result.boxes
        assert opened(b"".join(result.chunks)).file_meta.TransferSyntaxUID == family, syntax


BATCHED = [
    (kind, syntax)
    for kind, syntax in CASES
    if KINDS[kind].frames > 1
    and syntax in ("explicit", "RLE", "JPEG baseline", "JPEG 2000 lossless")
]


@pytest.mark.parametrize(("name", "syntax"), BATCHED)
def test_frames_in_batches_become_what_they_become_at_once(
    name: str, syntax: str, cleaner: DicomCleaner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file too large for one request is cleaned like a small one, byte by byte."""
    data = compressed.file(KINDS[name], SYNTAXES[syntax])
    at_once = cleaner.clean(data, "0")
    monkeypatch.setattr(frames_module, "BATCH_BYTES", 1)
    monkeypatch.setattr(spill, "LARGE", 1000)
    in_batches = cleaner.clean(data, "0")
    assert b"".join(in_batches.chunks) == b"".join(at_once.chunks)
    assert in_batches.boxes == at_once.boxes
    assert in_batches.review == at_once.review


def test_an_extended_offset_table_goes_with_the_offsets_that_it_gives(
    cleaner: DicomCleaner,
) -> None:
    data = opened(compressed.file(KINDS["frames"], COMPRESSED["RLE"]))
    from pydicom.encaps import encapsulate_extended, generate_frames

    coded = list(generate_frames(data.PixelData, number_of_frames=3))
    value, offsets, lengths = encapsulate_extended(coded)
    data.PixelData = value
    data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = offsets, lengths
    target = io.BytesIO()
    data.save_as(target)
    after = opened(b"".join(cleaner.clean(target.getvalue(), "0").chunks))
    assert "ExtendedOffsetTable" not in after and "ExtendedOffsetTableLengths" not in after
    assert stored(after, KINDS["frames"]).shape[0] == 3


@pytest.mark.parametrize("table", [True, False])
def test_frames_of_several_fragments_are_told_apart(table: bool) -> None:
    ends = b"\xff\xd9"
    fragments = [b"aa", b"b" + ends, b"cc", b"dddd", b"e" + ends + b"\0"]
    offsets = np.array([0, 8 + 2 + 8 + 3], "<u4").tobytes() if table else b""
    found = frames_module.of_fragments([offsets, *fragments], 2)
    assert found == [fragments[:2], fragments[2:]]
    assert frames_module.of_fragments([offsets, *fragments], 3) is None
