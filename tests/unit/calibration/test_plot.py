"""The plots of a calibration: readable on any page, the same for the same figures, whatever the layers have."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from turbotool.calibration import plot
from turbotool.calibration.statistics import LayerStatistics, Statistics
from turbotool.report import svg


def layer(number: int, heads: int, width: int) -> LayerStatistics:
    energy = tuple(float(10**channel) for channel in range(width)) * heads
    return LayerStatistics(number, heads, width, (2.0,) * heads, energy, (1.0,) * len(energy))


def found(*sizes: tuple[int, int]) -> Statistics:
    return Statistics(1, "m", "t", 512, 512, tuple(layer(number, *size) for number, size in enumerate(sizes)))


def drawn(statistics: Statistics) -> list[svg.Drawing]:
    """Every plot."""
    heat = [plot.heat_map(statistics, after=after) for after in (False, True)]
    return [plot.gain_by_layer(statistics), *heat, plot.sorted_shares(statistics)]


@pytest.mark.parametrize("statistics", [found((1, 4)), found((2, 4), (1, 8)), found(*[(2, 4)] * 80)])
def test_every_plot_is_drawn_and_the_same_again(statistics: Statistics) -> None:
    pytest.importorskip("matplotlib")
    for picture, again in zip(drawn(statistics), drawn(statistics), strict=True):
        assert picture == again
        ElementTree.fromstring(picture)  # noqa: S314 (our own file)
        assert set(re.findall(r"fill: (#[0-9a-f]{6})", picture)) <= {svg.INK, *svg.COLOURS}


def test_the_largest_channel_comes_first_and_a_shorter_head_is_filled_up() -> None:
    numpy = pytest.importorskip("numpy")
    rows = plot._sorted_heads(found((1, 2), (1, 3)), after=False)
    assert rows[0][:2] == pytest.approx([1000 / 11, 100 / 11])
    assert numpy.isnan(rows[0][2])
    assert rows[1] == pytest.approx([10000 / 111, 1000 / 111, 100 / 111])


def test_a_head_without_energy_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    nothing = LayerStatistics(0, 1, 4, (1.0,), (0.0,) * 4, (0.0,) * 4)
    for drawing in drawn(Statistics(1, "m", "t", 512, 512, (nothing,))):
        ElementTree.fromstring(drawing)  # noqa: S314 (our own file)
