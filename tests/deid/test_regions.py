"""What a device says of its own screen is masked besides what the detector finds."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deid.decoding import Decoder
from deid.dicom import regions
from deid.dicom.clean import DicomCleaner, Result
from deid.dicom.header import HeaderCleaner
from deid.dicom.plan import Plan
from deid.profile import from_document, load
from deid.vault import Pseudonyms
from policies.errors import Invalid
from synthetic import dicom_files
from tests.deid.conftest import KEY

ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
SHAPE = (200, 300)


def picture() -> np.ndarray:
    """Noise in which nobody, and no detector, reads anything."""
    return np.clip(np.random.default_rng(1).normal(100, 12, SHAPE), 60, 140).astype("u1")


def file(
    *regions_of: tuple[int, int, int, int], vendor: str = "Nobody", model: str = "None"
) -> bytes:
    data = dicom_files.base(ULTRASOUND, "US")
    data.Rows, data.Columns = SHAPE
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.Manufacturer, data.ManufacturerModelName = vendor, model
    items = []
    for left, top, right, bottom in regions_of:
        item = pydicom.Dataset()
        item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
        item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
        item.RegionSpatialFormat = item.RegionDataType = 1
        items.append(item)
    if items:
        data.SequenceOfUltrasoundRegions = items
    data.PixelData = picture().tobytes()
    return dicom_files.written(data)


def cleaned(data: bytes, decoder: Decoder, **settings: object) -> tuple[Result, np.ndarray]:
    document = {**load("research").document, **({"regions": settings} if settings else {})}
    plan = Plan(from_document(document))
    result = DicomCleaner(HeaderCleaner(plan, Pseudonyms(KEY)), decoder).clean(data, "0")
    return result, pydicom.dcmread(io.BytesIO(b"".join(result.chunks))).pixel_array


def test_outside_of_the_regions_of_ultrasound_nothing_is_left(decoder: Decoder) -> None:
    _result, after = cleaned(file((20, 30, 119, 149), (150, 30, 279, 99)), decoder)
    inside = np.zeros(SHAPE, bool)
    inside[30:150, 20:120] = inside[30:100, 150:280] = True
    assert np.array_equal(after[inside], picture()[inside])
    assert (after[~inside] == picture().min()).all()


def test_a_profile_may_keep_what_is_outside(decoder: Decoder) -> None:
    _result, after = cleaned(file((20, 30, 119, 149)), decoder, ultrasound=False)
    assert np.array_equal(after, picture())


@pytest.mark.parametrize(
    "broken", [(0, 0, 0, 0), (119, 149, 20, 30), (5000, 5000, 6000, 6000), (10, 10, 15, 15)]
)
def test_regions_that_say_nothing_mask_nothing(
    broken: tuple[int, int, int, int], decoder: Decoder
) -> None:
    _result, after = cleaned(file(broken), decoder)
    assert np.array_equal(after, picture())


@pytest.mark.parametrize("vendor", ["G.E. Medical Systems", "GE Healthcare", "ge vingmed"])
def test_a_known_devices_banner_is_masked(vendor: str, decoder: Decoder) -> None:
    result, after = cleaned(file(vendor=vendor, model="LOGIQ 9"), decoder)
    assert (after[:30] == picture().min()).all()
    assert np.array_equal(after[30:], picture()[30:])
    assert result.boxes


@pytest.mark.parametrize(
    ("vendor", "model"), [("Nobody", "LOGIQ 9"), ("GE Healthcare", "Other"), ("IMAGE", "LOGIQ9")]
)
def test_another_device_is_not_masked(vendor: str, model: str, decoder: Decoder) -> None:
    assert np.array_equal(cleaned(file(vendor=vendor, model=model), decoder)[1], picture())


def test_a_profile_adds_devices_and_may_leave_the_shipped_ones_out(decoder: Decoder) -> None:
    own = {"model": ["House 1"], "rows": SHAPE[0], "boxes": [[10, 20, 30, 40]]}
    _result, after = cleaned(file(model="HOUSE-1"), decoder, device=[own])
    expected = picture()
    expected[20:60, 10:40] = expected.min()
    assert np.array_equal(after, expected)
    ge = file(vendor="GE", model="LOGIQ9")
    assert np.array_equal(cleaned(ge, decoder, shipped=False, device=[own])[1], picture())
    assert not np.array_equal(cleaned(ge, decoder, device=[own])[1], picture())


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"ultrasound": 1}, "regions.ultrasound"),
        ({"other": True}, "regions.other"),
        ({"device": [{"model": ["A"]}]}, "regions.device"),
        ({"device": [{"banner": 9}]}, "regions.device"),
        ({"device": [{"model": "A", "banner": 9}]}, "regions.device.model"),
        ({"device": [{"model": ["A"], "banner": -9}]}, "regions.device.banner"),
        ({"device": [{"model": ["A"], "boxes": [[1, 2, 3]]}]}, "regions.device.boxes"),
        ({"device": [{"model": ["A"], "banner": 9, "colour": 1}]}, "regions.device.colour"),
        ({"device": {}}, "regions.device"),
    ],
)
def test_a_wrong_layout_is_refused_by_its_name(wrong: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        from_document({**load("research").document, "regions": wrong})
    assert refused.value.field == field


def test_every_shipped_layout_names_a_maker_a_model_and_a_place() -> None:
    assert len(regions.shipped()) >= 60
    for layout in regions.shipped():
        assert layout.manufacturer and layout.model and (layout.banner or layout.boxes)
        assert layout.modality == "US" and layout.banner <= 120


BOX = st.builds(
    lambda left, top, width, height: (left, top, min(left + width, 39), min(top + height, 39)),
    *[st.integers(0, 38)] * 2,
    *[st.integers(1, 39)] * 2,
)


@settings(deadline=None)
@given(st.lists(BOX, max_size=5))
def test_boxes_outside_cover_exactly_what_no_region_does(found: list[regions.Mark]) -> None:
    inside, masked = np.zeros((40, 40), int), np.zeros((40, 40), int)
    for left, top, right, bottom in found:
        inside[top:bottom, left:right] = 1
    for x, y, width, height in regions.outside(found, 40, 40):
        masked[y : y + height, x : x + width] += 1
    if inside.mean() >= regions.LEAST_SHARE:
        assert np.array_equal(masked, 1 - inside)
    else:
        assert not masked.any()
