"""Masking fills the boxes and changes not one sample outside of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deid.pixels.interface import Box, Together, check_image, joined, without_contained
from deid.pixels.redact import redact

boxes = st.builds(
    Box,
    st.just("text"),
    st.integers(-20, 40),
    st.integers(-20, 40),
    st.integers(1, 60),
    st.integers(1, 60),
)
shapes = st.sampled_from([((30, 24), 0), ((30, 24, 3), 0), ((4, 30, 24), 1), ((4, 30, 24, 3), 1)])
types = st.sampled_from(["u1", "<u2", ">u2", "i2", "u4", "f4"])


@given(st.lists(boxes, max_size=5), shapes, types, st.integers(0, 2**32 - 1))
def test_samples_outside_the_boxes_are_bit_identical_and_inside_are_the_fill(
    marks: list[Box], shape: tuple[tuple[int, ...], int], kind: str, seed: int
):
    size, rows_axis = shape
    picture = np.random.default_rng(seed).integers(0, 255, size).astype(kind)
    before = picture.copy()
    masked = redact(picture, marks, fill=7, rows_axis=rows_axis)
    inside = np.zeros((30, 24), dtype=bool)
    for row in range(30):
        for column in range(24):
            inside[row, column] = any(
                box.x <= column < box.x + box.width and box.y <= row < box.y + box.height
                for box in marks
            )
    over_picture = (slice(None), inside) if rows_axis else (inside,)
    outside = (slice(None), ~inside) if rows_axis else (~inside,)
    assert (masked[over_picture] == 7).all()
    assert masked[outside].tobytes() == picture[outside].tobytes()
    assert picture.tobytes() == before.tobytes()
    assert masked.dtype == picture.dtype


@pytest.mark.parametrize(("kind", "fill"), [("u1", 256), ("u1", -1), ("i2", 40000), ("u1", 0.5)])
def test_a_fill_that_the_samples_cannot_hold_is_refused(kind: str, fill: float):
    with pytest.raises(ValueError, match="fill"):
        redact(np.zeros((4, 4), dtype=kind), [], fill=fill)


def test_a_box_may_grow_and_never_shrink():
    box = Box("face", 10, 10, 20, 10)
    assert box.grown(1.5, 1.2) == Box("face", 5, 9, 30, 12)
    for ratios in ((0.9, 1), (1, 0.9)):
        with pytest.raises(ValueError, match="grow"):
            box.grown(*ratios)


def test_a_contained_box_is_dropped_only_for_one_of_its_own_kind():
    large, small = Box("text", 0, 0, 10, 10), Box("text", 2, 2, 3, 3)
    face = Box("face", 2, 2, 3, 3)
    assert without_contained([small, large, face]) == [large, face]


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_what_is_no_8_bit_picture_is_refused_rather_than_found_clean(picture: np.ndarray):
    with pytest.raises(ValueError, match="picture"):
        check_image(picture)


def test_detectors_together_find_what_each_of_them_finds():
    class Fixed:
        def __init__(self, box: Box) -> None:
            self.box = box

        def detect(self, image: np.ndarray) -> list[Box]:
            return [self.box]

    one, other = Box("text", 0, 0, 5, 5), Box("face", 8, 8, 5, 5)
    found = Together((Fixed(one), Fixed(other))).detect(np.zeros((20, 20), np.uint8))
    assert set(found) == {one, other}


def test_one_box_takes_the_place_of_several_around_one_line() -> None:
    looks = [
        Box("text", 0, 240, 192, 48, 0.7),
        Box("text", 0, 268, 184, 44, 0.9),
        Box("text", 0, 264, 164, 48, 0.8),
    ]
    elsewhere = [Box("text", 400, 240, 50, 20), Box("face", 0, 240, 192, 48)]
    across = [Box("text", 300, 0, 20, 200), Box("text", 250, 100, 200, 20)]
    one = Box("text", 0, 240, 192, 72, 0.9)
    assert set(joined([*looks, *elsewhere, *across])) == {one, *elsewhere, *across}


def test_joining_masks_all_that_was_masked_and_little_more() -> None:
    rng = np.random.default_rng(5)
    for _each in range(30):
        boxes = [
            Box(
                "text",
                *(int(n) for n in rng.integers(0, 150, 2)),
                *map(int, rng.integers(5, 90, 2)),
            )
            for _box in range(12)
        ]
        before, after = np.zeros((240, 240), bool), np.zeros((240, 240), bool)
        for mask, some in ((before, boxes), (after, joined(boxes))):
            for box in some:
                mask[box.y : box.bottom, box.x : box.right] = True
        assert not (before & ~after).any()
        assert after.sum() <= 1.25 * before.sum()
