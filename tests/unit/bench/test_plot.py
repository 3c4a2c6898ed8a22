"""The plot of a benchmark: readable on any page, nothing cut off, the same bytes for the same figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from colours import contrast

from turbotool.bench import plot
from turbotool.bench.figures import BenchCell, Spread
from turbotool.bench.plan import AGAINST, OURS, BenchJob
from turbotool.kv.cachetype import CachePair
from turbotool.programs.llamabench import BenchPoint, Phase
from turbotool.report import svg

TYPES = ("f16", "q8_0", "q4_0", "turbo4", "turbo3", "turbo2")


@pytest.mark.parametrize("colour", [svg.INK, *svg.COLOURS])
@pytest.mark.parametrize("background", ["#ffffff", "#0d1117"])
def test_every_colour_of_the_plot_stands_out_on_light_and_on_dark(colour: str, background: str) -> None:
    assert contrast(colour, background) >= 3


def cells_at(depths: Sequence[int], caches: Sequence[str], threads: Sequence[int] = (1,)) -> list[BenchCell]:
    """Cells of two builds, each with a speed of its own."""
    points = [
        BenchPoint(CachePair.parse(name), depth, count) for name in caches for depth in depths for count in threads
    ]
    jobs = [BenchJob(build, point) for build in (OURS, AGAINST) for point in points]
    phases = (Phase("pp", 8), Phase("tg", 4))
    return [
        BenchCell(job, phase, speed=Spread(50.0 + number, 40.0, 70.0 + number))
        for phase in phases
        for number, job in enumerate(jobs)
    ]


def test_the_plot_is_the_same_for_the_same_figures_and_has_no_background() -> None:
    pytest.importorskip("matplotlib")
    cells = cells_at((0, 512), ("f16", "turbo4", "q8_0/turbo4"), (1, 2))
    picture = plot.draw(cells, "a $title$ of a model_file")
    assert picture == plot.draw(cells, "a $title$ of a model_file")
    root = ElementTree.fromstring(picture)  # noqa: S314 (our own file)
    assert len([group for group in root.iter() if re.fullmatch(r"axes_\d+", group.get("id", ""))]) == 4
    painted = re.findall(r"fill: (#[0-9a-f]{6})", picture.decode())
    assert painted
    assert set(painted) <= {svg.INK, *svg.COLOURS}


def test_a_benchmark_of_which_every_cell_failed_has_an_empty_plot() -> None:
    pytest.importorskip("matplotlib")
    cells = [BenchCell(cell.job, cell.phase, failure="crashed") for cell in cells_at((0,), ("f16",))]
    assert ElementTree.fromstring(plot.draw(cells, "x")).tag.endswith("svg")  # noqa: S314 (our own file)


@pytest.mark.parametrize("depths", [(0,), (512,), (0, 512), (100, 16384)])
@pytest.mark.parametrize(
    "caches", [("f16",), ("f16", "q8_0", "turbo4"), tuple(f"{k}/{v}" for k in TYPES for v in TYPES)]
)
def test_every_whisker_lies_inside_its_panel_near_its_depth(depths: Sequence[int], caches: Sequence[str]) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots()
    cells = [cell for cell in cells_at(depths, caches) if cell.phase.kind == "tg"]
    names = dict.fromkeys(cell.job.point.cache for cell in cells)
    plot.panel(axes, cells, {name: number for number, name in enumerate(names)})
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert bottom == 0
    assert top > 70 + 2 * len(depths) * len(caches) - 1
    assert len(axes.containers) == 2 * len(caches)
    for line, _, _ in axes.containers:
        for depth, x in zip(depths, line.get_xdata(), strict=True):
            assert left < x < right
            assert len(depths) == 1 or abs(x - depth) < 0.05 * (right - left)


@pytest.mark.parametrize(
    ("depths", "labelled"),
    [([0], [0]), ([], []), ([0, 512, 4096], [0, 512, 4096]), ([0, 64, 256, 4096], [0, 4096]), ([5, 6, 7], [5, 6, 7])],
)
def test_labels_of_depths_do_not_touch(depths: list[int], labelled: list[int]) -> None:
    assert plot.ticks(depths) == labelled
