"""The model card draws its figures: in the page, and beside the Markdown."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import bundle
from bundle.pictures import Curve, Interval, svg
from tests.bundle.test_bundle import HOSTILE, PUBLIC, make, members_of

SVG = "{http://www.w3.org/2000/svg}"
FIGURES = [Interval("AUC by patient", 0.9, 0.8, 0.95, 0.85), Interval("Sensitivity", 0.7, 0.5, 0.8)]
CURVES = [Curve("loss", (1.0, 0.5, 0.25))]


def test_a_card_shows_its_figures_in_both_spellings(tmp_path: Path) -> None:
    good = make(tmp_path, intervals=FIGURES, curves=CURVES)
    assert bundle.verify(good, PUBLIC).held
    held = members_of(good)
    picture = held["MODEL_CARD.svg"].decode()
    assert picture in held["MODEL_CARD.html"].decode()
    assert "(MODEL_CARD.svg)" in held["MODEL_CARD.md"].decode()
    drawn = ElementTree.fromstring(picture)
    dots = [float(one.attrib["cx"]) for one in drawn.iter(f"{SVG}circle")]
    assert len(dots) == 2 and dots[0] > dots[1]  # 0.9 is further right than 0.7
    targets = [one for one in drawn.iter(f"{SVG}path") if one.attrib["class"] == "target"]
    assert len(targets) == 1
    line = next(drawn.iter(f"{SVG}polyline")).attrib["points"].split()
    heights = [float(point.split(",")[1]) for point in line]
    assert heights == sorted(heights)  # it falls: further down on the page
    assert "0.900 (0.800 to 0.950)" in next(drawn.iter(f"{SVG}desc")).text  # type: ignore[operator]


def test_without_figures_there_is_no_picture(tmp_path: Path) -> None:
    held = members_of(make(tmp_path, intervals=[Interval("x", math.nan, 0, 1)]))
    assert "MODEL_CARD.svg" not in held
    assert b"MODEL_CARD.svg" not in held["MODEL_CARD.md"]


def test_names_in_it_are_inert() -> None:
    picture = svg([Interval(HOSTILE, 0.5, 0.4, 0.6)], [Curve(HOSTILE, (0.0, 1.0))])
    names = {one.tag.removeprefix(SVG) for one in ElementTree.fromstring(picture).iter()}
    assert names == {"svg", "title", "desc", "style", "rect", "text", "path", "circle", "polyline"}
    assert "\x1b" not in picture


@pytest.mark.parametrize("level", [0.0, 1e17, 1e30, -1e30])
def test_a_flat_curve_of_any_number_that_may_be_reported_is_drawn(level: float) -> None:
    drawn = ElementTree.fromstring(svg([], [Curve("loss", (level, level, level))]))
    points = next(drawn.iter(f"{SVG}polyline")).attrib["points"].split()
    assert len({point.split(",")[1] for point in points}) == 1
