"""The list of photographed heads is coherent, and only the pictures that were marked are taken."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.deid.pixels import photographed_heads
from tests.deid.pixels.photographed_heads import (
    HALVES,
    Photographed,
    fetch,
    listed,
    missing,
    photographed,
)


def test_every_face_lies_in_its_cut_and_is_large_enough():
    for head in listed():
        left, top, right, bottom = head.cut
        x, y, width, height = head.face
        assert 0 <= left <= x and 0 <= top <= y, head.name
        assert x + width <= right and y + height <= bottom, head.name
        assert width >= 70 and 1 <= height / width <= 2.1, head.name


def test_the_halves_share_no_picture():
    pictures = [{head.sha256 for head in listed() if head.half == half} for half in HALVES]
    assert not set.intersection(*pictures)
    assert [sum(head.half == half for head in listed()) for half in HALVES] == [31, 31]
    assert len({head.name for head in listed()}) == 62


@pytest.fixture
def one_listed(monkeypatch: pytest.MonkeyPatch) -> tuple[Photographed, bytes]:
    """A list with one picture, and that picture."""
    picture = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    data = cv2.imencode(".png", picture)[1].tobytes()
    digest = hashlib.sha256(data).hexdigest()
    cut, face = (50, 20, 390, 290), (100, 40, 250, 240)
    one = Photographed("measured", "owner/name", "0" * 40, "a/b.png", digest, cut, face)
    monkeypatch.setattr(photographed_heads, "listed", lambda: (one,))
    return one, data


def test_a_picture_is_fetched_once_and_its_head_cut_out(
    one_listed: tuple[Photographed, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _one, data = one_listed
    asked: list[str] = []

    def read(address: str) -> bytes:
        asked.append(address)
        return data

    assert missing(tmp_path) == 1
    assert [fetch(read, tmp_path), fetch(read, tmp_path)] == [1, 0]
    assert asked == [f"owner/name/{'0' * 40}/a/b.png"]
    assert missing(tmp_path) == 0
    monkeypatch.setattr(photographed_heads, "FOLDER", tmp_path)
    (head,) = photographed.__wrapped__("measured")
    # 250 columns of face become 200.
    assert head.pixels.shape[:2] == (216, 272)
    assert head.face == pytest.approx((40, 16, 200, 192))


def test_another_picture_is_refused(one_listed: tuple[Photographed, bytes], tmp_path: Path):
    _one, data = one_listed
    with pytest.raises(ValueError, match="owner/name"):
        fetch(lambda _address: data + b"x", tmp_path)
    assert missing(tmp_path) == 1 and not list(tmp_path.iterdir())
