"""Text in pixels is masked in stored values, whatever the picture is stored as."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw

from deid.dicom import display
from deid.dicom.clean import DicomCleaner, Result
from synthetic import dicom_files
from synthetic.lettering import open_font
from synthetic.phantom import draw_anatomy, draw_phantom

SHAPE = (256, 384)
NOTE = "HONG GILDONG 12345678"


def letters() -> np.ndarray:
    """A mask of the note's strokes."""
    drawn = np.zeros(SHAPE, np.uint8)
    cv2.putText(drawn, NOTE, (30, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    return drawn > 127


def background(bits: int, seed: int = 5) -> np.ndarray:
    """A smooth picture that uses the lower part of its bits."""
    noise = np.random.default_rng(seed).normal(0, 1, SHAPE)
    smooth = cv2.GaussianBlur(noise, (0, 0), 12)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return (smooth * (1 << (bits - 2))).astype("<u2" if bits > 8 else "u1")


def file_of(frames: np.ndarray, **attributes: object) -> bytes:
    data = dicom_files.base(dicom_files.SC, "OT")
    data.Rows, data.Columns = SHAPE
    bits = frames.dtype.itemsize * 8
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit = bits - 1
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    data.HighBit = data.BitsStored - 1
    data.PixelData = frames.tobytes()
    return dicom_files.written(data)


def covered(result: Result, where: np.ndarray) -> float:
    """The share of stroke pixels inside boxes; each box must be of one value in every frame."""
    after = pydicom.dcmread(io.BytesIO(b"".join(result.chunks))).pixel_array
    frames = after if len(after) != where.shape[0] else after[np.newaxis]
    inside = np.zeros(SHAPE, bool)
    for _kind, x, y, width, height, _score in result.boxes:
        inside[y : y + height, x : x + width] = True
        boxes = frames[:, y : y + height, x : x + width]
        assert (boxes == boxes[:, :1, :1]).all()
    return float(inside[where].mean())


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("level", ["maximum of 16 bits", "maximum of the image"])
def test_text_in_a_grey_picture(photometric: str, level: str, cleaner: DicomCleaner) -> None:
    where, picture = letters(), background(12)
    top = 65535 if level == "maximum of 16 bits" else int(picture.max())
    picture[where] = top if photometric == "MONOCHROME2" else (top if top > 5000 else 0)
    result = cleaner.clean(file_of(picture, PhotometricInterpretation=photometric), "0")
    assert covered(result, where) > 0.98


def test_text_in_colour_and_palette(cleaner: DicomCleaner) -> None:
    where = letters()
    colour = np.stack([background(8, seed) for seed in (1, 2, 3)], axis=2)
    colour[where] = (255, 255, 0)
    file = file_of(
        colour, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB"
    )
    result = cleaner.clean(file, "0")
    assert covered(result, where) > 0.98
    after = pydicom.dcmread(io.BytesIO(b"".join(result.chunks))).pixel_array
    assert (after[where] == 0).all(axis=1).mean() > 0.98

    ramp = (np.arange(256, dtype="<u2") * 257)[::-1]  # index 0 is white, 255 black
    indexes = (255 - background(8)).astype("u1")
    indexes[where] = 0
    descriptor = [256, 0, 16]
    tables: dict[str, object] = {}
    for name in ("Red", "Green", "Blue"):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = descriptor
        tables[f"{name}PaletteColorLookupTableData"] = ramp.tobytes()
    file = file_of(indexes, PhotometricInterpretation="PALETTE COLOR", **tables)
    assert covered(cleaner.clean(file, "0"), where) > 0.98


def test_text_in_one_frame_of_many(cleaner: DicomCleaner) -> None:
    where = letters()
    frames = np.stack([background(8, seed) for seed in range(9)])
    frames[3][where] = 255
    data = dicom_files.base("1.2.840.10008.5.1.4.1.1.7.2", "OT")
    data.Rows, data.Columns, data.NumberOfFrames = *SHAPE, 9
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.PixelData = frames.tobytes()
    output = b"".join(cleaner.clean(dicom_files.written(data), "0").chunks)
    after = pydicom.dcmread(io.BytesIO(output)).pixel_array
    assert (after[3][where] == 255).mean() < 0.02


@pytest.mark.parametrize("level", [1, 3, 40])
def test_text_that_only_a_narrow_window_shows(level: int, cleaner: DicomCleaner) -> None:
    """A few values above a background of thousands: invisible in 256 greys of the whole range."""
    where, picture = letters(), background(14)
    picture[:, :] += 200
    picture[:120] = 0
    picture[where] = level
    assert covered(cleaner.clean(file_of(picture, BitsStored=14), "0"), where) > 0.98


@pytest.mark.parametrize("ink", [60, 255])
@pytest.mark.parametrize("kind", ["u", "i"])
def test_text_in_the_low_bytes_of_an_ordinary_picture(
    ink: int, kind: str, cleaner: DicomCleaner
) -> None:
    """Up to 255 of 65535 on a ground that steps by 256: no window shows it as writing."""
    where = letters()
    noisy = background(10) + np.random.default_rng(4).integers(0, 12, SHAPE)
    picture = (noisy.clip(0, 126).astype("<u2") << 8) | np.where(where, ink, 0).astype("<u2")
    result = cleaner.clean(file_of(picture, PixelRepresentation=int(kind == "i")), "0")
    assert covered(result, where) > 0.98


def test_low_bytes_of_ordinary_pictures_are_not_looked_at() -> None:
    noisy = np.random.default_rng(1).normal(1040, 20, SHAPE).round()
    for bits in ("<u2", "<i2"):
        picture = noisy.astype(bits)
        for shift in (0, 2, 4):
            assert display.low_byte(picture << shift) is None
        assert display.low_byte(picture << 8) is None
        assert display.low_byte((picture & 255) * 257) is None
    assert display.low_byte(noisy.astype(np.float32)) is None


def test_text_inside_the_window_of_a_noisy_picture(cleaner: DicomCleaner) -> None:
    where = letters()
    picture = np.random.default_rng(1).normal(1040, 6, SHAPE).round().astype("<u2")
    picture[-60:, :100] = 4000
    picture[where] += 40
    assert covered(cleaner.clean(file_of(picture, BitsStored=12), "0"), where) > 0.98


def test_phantoms_without_text_stay_nearly_whole(cleaner: DicomCleaner) -> None:
    """Skin before noise looks like a line of strokes, by ranks."""
    rng = np.random.default_rng(3)
    shares = []
    for number in range(24):
        view, side = ("CC", "MLO")[number // 2 % 2], "RL"[number % 2]
        phantom = draw_phantom(rng, draw_anatomy(rng), laterality=side, view=view, lesions=1)
        rows, columns = phantom.pixels.shape
        file = file_of(phantom.pixels.astype("<u2"), BitsStored=16, Rows=rows, Columns=columns)
        boxes = cleaner.clean(file, "0").boxes
        shares.append(sum(box[3] * box[4] for box in boxes) / (rows * columns))
    assert np.mean(shares) <= 0.01


@pytest.mark.parametrize("across", [False, True])
def test_the_ragged_edge_of_a_flat_part_is_no_writing(across: bool, cleaner: DicomCleaner) -> None:
    """Collimated: beside a part that is all 0, noise comes down to 0 and 1."""
    rng = np.random.default_rng(3)
    shape = (480, 640)
    slope = np.clip(np.arange(shape[1]) - 200, 0, None) * 0.4
    picture = np.clip(np.round(slope + rng.normal(0, 4, shape) * (slope > 0)), 0, 4000)
    picture = np.ascontiguousarray((picture.T if across else picture).astype("<u2"))

    def masked() -> int:
        rows, columns = picture.shape
        file = file_of(picture, BitsStored=12, Rows=rows, Columns=columns)
        return sum(box[3] * box[4] for box in cleaner.clean(file, "0").boxes)

    assert masked() <= 0.01 * picture.size
    # Writing in the flat part, as faint as can be, is still seen.
    drawn = Image.new("L", picture.shape[::-1])
    ImageDraw.Draw(drawn).text((20, 60), "KIM MINJI", font=open_font("KIM MINJI", 18), fill=255)
    ink = np.asarray(drawn) > 127
    picture[ink] = 2
    assert masked() >= ink.sum()


@pytest.mark.parametrize("size", [60, 110])
def test_letters_as_tall_as_organs(size: int, cleaner: DicomCleaner) -> None:
    font = open_font("KIM 19", size)
    drawn = Image.new("L", SHAPE[::-1])
    ImageDraw.Draw(drawn).text((10, 60), "KIM 19", font=font, fill=255)
    where, picture = np.asarray(drawn) > 127, background(12)
    picture[where] = picture.max()
    assert covered(cleaner.clean(file_of(picture, BitsStored=12), "0"), where) > 0.95


def test_text_of_one_palette_colour_told_by_its_numbers(cleaner: DicomCleaner) -> None:
    where = letters()
    indexes = np.full(SHAPE, 100, "u1")
    indexes[where] = 160
    ramp = (np.arange(256, dtype="<u2") * 257).copy()
    ramp[160] = ramp[100]
    tables: dict[str, object] = {}
    for name in ("Red", "Green", "Blue"):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tables[f"{name}PaletteColorLookupTableData"] = ramp.tobytes()
    file = file_of(indexes, PhotometricInterpretation="PALETTE COLOR", **tables)
    assert covered(cleaner.clean(file, "0"), where) > 0.98


@pytest.mark.parametrize("count", [8, 20])
def test_text_that_is_neither_brightest_nor_darkest_of_its_frames(
    count: int, cleaner: DicomCleaner
) -> None:
    where = letters()
    frames = np.zeros((count, *SHAPE), "u1")
    frames[1] = 255
    frames[7][where] = 120
    data = dicom_files.base("1.2.840.10008.5.1.4.1.1.7.2", "OT")
    data.Rows, data.Columns, data.NumberOfFrames = *SHAPE, count
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.PixelData = frames.tobytes()
    result = cleaner.clean(dicom_files.written(data), "0")
    after = pydicom.dcmread(io.BytesIO(b"".join(result.chunks))).pixel_array
    assert (after[7][where] == 120).mean() < 0.02
    # Of many frames some were looked at together only: a person has to see the file.
    assert bool(result.review) is (count > 8)


def test_an_annotation_of_no_that_lies(cleaner: DicomCleaner) -> None:
    where, picture = letters(), background(8)
    picture[where] = 255
    result = cleaner.clean(file_of(picture, BurnedInAnnotation="NO"), "0")
    assert covered(result, where) > 0.98


def test_a_picture_without_text_is_not_touched(cleaner: DicomCleaner) -> None:
    picture = background(12)
    result = cleaner.clean(file_of(picture, BitsStored=12), "0")
    assert result.boxes == []
    after = pydicom.dcmread(io.BytesIO(b"".join(result.chunks))).pixel_array
    assert np.array_equal(after, picture)
