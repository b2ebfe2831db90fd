"""Curves are drawn whatever a job reports in them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from portal.pages.charts import Curve, chart


@pytest.mark.parametrize("level", [0.0, 1e17, 1e30, -1e30])
def test_a_flat_curve_of_any_number_that_may_be_reported_is_drawn(level: float) -> None:
    drawn = ElementTree.fromstring(chart(Curve("loss", [(1, level), (2, level)])))
    points = next(drawn.iter("polyline")).attrib["points"].split()
    assert len({point.split(",")[1] for point in points}) == 1
