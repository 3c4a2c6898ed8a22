"""Speed over depth as an SVG that reads on white and on black: no background, and colours of middle brightness."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from turbotool.bench.figures import BenchCell
from turbotool.bench.plan import AGAINST, OURS
from turbotool.bench.table import TITLES
from turbotool.programs.llamabench import DECODE, PREFILL, threads_of
from turbotool.report.svg import COLOURS, INK

if TYPE_CHECKING:  # the command line imports this module to print its help
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vPX*"
STYLES: dict[str, dict[str, Any]] = {OURS: {"linestyle": "-"}, AGAINST: {"linestyle": "--", "markerfacecolor": "none"}}
PANEL = (5.0, 3.2)  # inches
MARGIN = 1.0  # inches for title and legend
DODGE = 0.006  # of the range of depths, from line to line
EDGE = 0.08  # of the range of depths, free on both sides
ROOM = 1.08  # of the highest value
LABEL_WIDTH = 0.09  # of the width of a panel
LEGEND_COLUMNS = 4  # a panel


def draw(cells: Sequence[BenchCell], title: str) -> bytes:
    """The SVG: decode above prefill, a panel for each number of threads, a line for each cache and build.

    A line is the median over rounds; whiskers reach from the minimum to the maximum.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    measured = [cell for cell in cells if cell.speed]
    kinds = [kind for kind in (DECODE, PREFILL) if any(cell.phase.kind == kind for cell in measured)]
    threads = sorted({cell.job.point.threads for cell in measured})
    rows, columns = max(1, len(kinds)), max(1, len(threads))
    caches = {name: number for number, name in enumerate(dict.fromkeys(c.job.point.cache for c in measured))}
    # letters as outlines and a fixed salt: the same picture everywhere, and the same bytes for the same figures
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "turbotool", "text.color": INK}):
        figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + MARGIN), layout="constrained")
        figure.suptitle(title, wrap=True, parse_math=False)  # a file may be called anything
        panels = figure.subplots(rows, columns, squeeze=False)
        for row, kind in enumerate(kinds):
            for column, count in enumerate(threads):
                shown = [cell for cell in measured if (cell.phase.kind, cell.job.point.threads) == (kind, count)]
                panel(panels[row][column], shown, caches)
        legend(figure, caches, {cell.job.build for cell in measured}, LEGEND_COLUMNS * columns)
        sink = io.BytesIO()
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    return sink.getvalue()


def look(number: int) -> dict[str, Any]:
    """Colour and marker of a cache; both tell it from its neighbours, for those who see no colours."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def panel(axes: Axes, cells: Sequence[BenchCell], caches: Mapping[str, int]) -> None:
    """The lines of one phase at one number of threads; without cells an empty panel."""
    depths = sorted({cell.job.point.depth for cell in cells}) or [0]
    width = (depths[-1] - depths[0]) or depths[-1] or 1
    lines = [(build, name) for name in caches for build in STYLES if of_line(cells, build, name)]
    # beside each other, so that no whisker hides another
    step = width * min(DODGE, EDGE / (len(lines) or 1))
    for place, (build, name) in enumerate(lines):
        shift = step * (place - (len(lines) - 1) / 2)
        line(axes, of_line(cells, build, name), shift, {**STYLES[build], **look(caches[name])})
    if cells:
        axes.set_title(f"{TITLES[cells[0].phase.kind]}, {threads_of(cells[0].job.point.threads)}", color=INK)
        axes.set_ylim(0, ROOM * max(cell.speed.maximum for cell in cells if cell.speed))
    axes.set_xlim(depths[0] - width * EDGE, depths[-1] + width * EDGE)
    axes.set_xticks(ticks(depths))
    axes.set_xlabel("depth (tokens in the cache)", color=INK)
    axes.set_ylabel("tokens/s", color=INK)
    axes.tick_params(colors=INK)
    axes.grid(color=INK, alpha=0.25, linewidth=0.6)
    for spine in axes.spines.values():
        spine.set_color(INK)


def of_line(cells: Sequence[BenchCell], build: str, cache: str) -> list[BenchCell]:
    return [cell for cell in cells if cell.job.build == build and cell.job.point.cache == cache]


def line(axes: Axes, cells: Sequence[BenchCell], shift: float, style: Mapping[str, Any]) -> None:
    """One cache on one build: medians, and whiskers from minimum to maximum."""
    points = sorted((cell.job.point.depth + shift, cell.speed) for cell in cells if cell.speed)
    depths = [depth for depth, _ in points]
    medians = [speed.median for _, speed in points]
    below = [speed.median - speed.minimum for _, speed in points]
    above = [speed.maximum - speed.median for _, speed in points]
    axes.errorbar(depths, medians, [below, above], markersize=4.5, linewidth=1.6, elinewidth=0.8, capsize=2, **style)


def ticks(depths: Sequence[int]) -> list[int]:
    """The depths whose labels do not touch: the ends, then from the right."""
    if not depths:
        return []
    shown = [depths[-1], depths[0]]
    room = (depths[-1] - depths[0]) * LABEL_WIDTH
    for depth in reversed(depths):
        if all(abs(depth - other) >= room for other in shown):
            shown.append(depth)
    return sorted(set(shown))


def legend(figure: Figure, caches: Mapping[str, int], builds: set[str], columns: int) -> None:
    """Below the panels: a colour for each cache and, if there are two builds, a style for each."""
    from matplotlib.lines import Line2D

    handles: list[Artist] = [Line2D([], [], label=name, **look(number)) for name, number in caches.items()]
    if len(builds) > 1:
        handles += [
            Line2D([], [], label=build, color=INK, marker=MARKERS[0], **style) for build, style in STYLES.items()
        ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, labelcolor=INK)
