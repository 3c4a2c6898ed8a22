"""The plots of an evaluation as SVG that reads on white and on black: no background, colours of middle brightness."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from turbotool.evaluation.report.table import CellRow
from turbotool.kv.rotation import ROTATIONS
from turbotool.report.svg import COLOURS, INK, Drawing, draw_svg

if TYPE_CHECKING:  # the command line imports this module to print its help
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

ROW_HEIGHT = 0.46
MARGIN = 0.9
HEIGHT = 3.6
COLOURMAP = "cividis"  # the same order for those who see no colours
DARK = 0.179  # relative luminance (WCAG 2) below which white letters stand out more than black ones
LINEAR = 0.04045  # of an sRGB value: up to here its luminance is proportional
SMALLEST_KLD = 1e-6  # what llama-perplexity can print
ROTATION_MARKERS = {"off": "o", "k": "<", "v": ">", "kv": "D"}
DODGE = 0.035  # bits from rotation to rotation, so that no whisker hides another
ZONE = "#d6455d"
SHORT, LONG = 4.0, 200.0  # of a logarithmic axis: between these highest over lowest it has 1, 2, 5 of each power of ten
LINE = 20  # letters of a reason that a field of the heat map has room for


@dataclass(frozen=True)
class PlotPoint:
    """A cell that was measured and is finite, as plots need it."""

    row: CellRow
    kld: float
    kld_error: float
    ratio: float
    ratio_error: float

    @property
    def label(self) -> str:
        configuration = self.row.job.configuration
        suffix = "" if configuration.rotation == "off" else f" {configuration.rotation}"
        return configuration.cache + suffix


def points(rows: Sequence[CellRow]) -> list[PlotPoint]:
    """Those rows that have finite figures."""
    found = [(row, row.measured.divergence) for row in rows if row.measured and row.measured.is_finite]
    return [
        PlotPoint(row, one.mean.value, one.mean.error, one.ln_ratio.value, _or_zero(one.ln_ratio.error))
        for row, one in found
    ]


def _or_zero(error: float) -> float:
    return error if math.isfinite(error) else 0.0


def _log(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis, as many as have room: 0.01, 0.02, 0.05, or only powers of ten."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_view_interval()
    between = LogLocator(subs=(1.0, 2.0, 5.0) if high < LONG * low else (1.0,))
    axis.set_major_locator(MaxNLocator(4) if high < SHORT * low else between)
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def heat_map(rows: Sequence[CellRow]) -> Drawing:
    """Mean KLD in nats of every cache (rows) and rotation (columns); a cell without a figure says why."""
    pairs = list(dict.fromkeys(row.job.configuration.cache for row in rows))
    sides = [side for side in ROTATIONS if any(row.job.configuration.rotation == side for row in rows)]
    return draw_svg("heat", MARGIN + ROW_HEIGHT * len(pairs), lambda axes: _heat(axes, rows, pairs, sides))


def _heat(axes: Axes, rows: Sequence[CellRow], pairs: list[str], sides: list[str]) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    klds = {id(point.row): max(point.kld, SMALLEST_KLD) for point in points(rows)}
    values = list(klds.values()) or [SMALLEST_KLD]
    norm = LogNorm(min(values), max(*values, 1.01 * min(values)))
    for row in rows:
        configuration = row.job.configuration
        x, y = sides.index(configuration.rotation), pairs.index(configuration.cache)
        kld = klds.get(id(row))
        colour = colormaps[COLOURMAP](norm(kld)) if kld is not None else None
        if colour is not None:
            axes.fill([x - 0.48, x + 0.48, x + 0.48, x - 0.48], [y - 0.46, y - 0.46, y + 0.46, y + 0.46], color=colour)
        reason = "\n".join(wrap(row.failure or "", LINE, max_lines=3, placeholder=" …"))
        text = reason if kld is None else f"{kld:.5f}" if kld > SMALLEST_KLD else "0"
        look: dict[str, Any] = {"color": _letters(colour), "size": 8 if kld is None else 10}
        axes.text(x, y, text, ha="center", va="center", parse_math=False, **look)  # a failure may say anything
    axes.set_xticks(range(len(sides)), sides)
    axes.set_yticks(range(len(pairs)), pairs)
    axes.set_xlim(-0.55, len(sides) - 0.45)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.set_xlabel("rotated sides")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _letters(colour: Any) -> str:
    if colour is None:
        return INK
    red, green, blue = (part / 12.92 if part <= LINEAR else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3])
    return "#ffffff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < DARK else "#000000"


def pareto(rows: Sequence[PlotPoint]) -> list[PlotPoint]:
    """The cells that no other one beats in both bits per value and KLD, cheapest first."""
    front: list[PlotPoint] = []
    for point in sorted(rows, key=lambda one: (one.row.bits, one.kld)):
        if not front or point.kld < front[-1].kld:
            front.append(point)
    return front


def kld_over_bits(rows: Sequence[CellRow]) -> Drawing:
    """Mean KLD over bits per value, with its standard error, and the front of the cells that nothing beats."""
    return draw_svg("bits", HEIGHT, lambda axes: _bits(axes, points(rows)))


def _bits(axes: Axes, found: Sequence[PlotPoint]) -> None:
    places = {side: DODGE * (number - 1.5) for number, side in enumerate(ROTATIONS)}
    front = pareto(found)
    axes.plot([one.row.bits for one in front], [one.kld for one in front], color=INK, linewidth=1, linestyle="--")
    _scatter(
        axes,
        found,
        lambda one: (one.row.bits + places[one.row.job.configuration.rotation], one.kld),
        lambda one: (0.0, one.kld_error),
    )
    if any(one.kld > 0 for one in found):
        axes.set_yscale("log", nonpositive="mask")
        _log(axes.yaxis)
    axes.set_xlabel("bits per value (both sides averaged)")
    axes.set_ylabel("mean KLD (nats)")
    axes.margins(x=0.08, y=0.12)


def ppl_over_kld(rows: Sequence[CellRow]) -> Drawing:
    """ln(PPL / PPL of f16) over mean KLD; below 0, a cache scores better than f16, which no quantization can mean."""
    return draw_svg("ppl", HEIGHT, lambda axes: _ppl(axes, points(rows)))


def _ppl(axes: Axes, found: Sequence[PlotPoint]) -> None:
    _scatter(axes, found, lambda one: (one.kld, one.ratio), lambda one: (one.kld_error, one.ratio_error))
    if any(one.kld > 0 for one in found):
        axes.set_xscale("log", nonpositive="mask")
        _log(axes.xaxis)
    axes.margins(x=0.1, y=0.12)
    low, high = axes.get_ylim()
    low = min(low, -0.15 * (high - low))
    axes.set_ylim(low, high)
    axes.axhspan(low, 0, color=ZONE, alpha=0.12, linewidth=0)
    axes.axhline(0, color=ZONE, linewidth=1)
    axes.text(0.99, 0.02, "better than f16: unreliable", transform=axes.transAxes, ha="right", color=ZONE, size=8)
    axes.set_xlabel("mean KLD (nats)")
    axes.set_ylabel("ln(PPL / PPL of f16)")


def _scatter(
    axes: Axes,
    found: Sequence[PlotPoint],
    at: Callable[[PlotPoint], tuple[float, float]],
    errors: Callable[[PlotPoint], tuple[float, float]],
) -> None:
    """Cells with whiskers of one standard error: a colour for each cache, a marker for each rotation."""
    from matplotlib.lines import Line2D

    colours = _colours(found)
    for one in found:
        (x, y), (dx, dy) = at(one), errors(one)
        configuration = one.row.job.configuration
        style: dict[str, Any] = {"elinewidth": 0.8, "capsize": 2, "markersize": 5.5, "color": colours[_pair(one)]}
        axes.errorbar(
            [x], [y], yerr=[dy], xerr=[dx] if dx else None, fmt=ROTATION_MARKERS[configuration.rotation], **style
        )
    axes.grid(color=INK, alpha=0.25, linewidth=0.6)
    shown = dict.fromkeys(one.row.job.configuration.rotation for one in found)
    handles = [
        Line2D([], [], color=colour, marker="s", linestyle="none", label=pair) for pair, colour in colours.items()
    ]
    handles += [
        Line2D([], [], color=INK, marker=ROTATION_MARKERS[side], linestyle="none", label=side) for side in shown
    ]
    if handles:
        axes.legend(handles=handles, frameon=False, labelcolor=INK, fontsize=8)


def _pair(one: PlotPoint) -> str:
    return one.row.job.configuration.cache


def _colours(found: Sequence[PlotPoint]) -> dict[str, str]:
    """A colour for each cache; the first of the palette is that of the axes."""
    pairs = dict.fromkeys(map(_pair, found))
    return {pair: COLOURS[1 + number % (len(COLOURS) - 1)] for number, pair in enumerate(pairs)}


def points_by_position(rows: Sequence[CellRow]) -> list[PlotPoint]:
    """Those that are told by position, f16 left out: it differs from itself nowhere."""
    return [one for one in points(rows) if one.row.measured and one.row.measured.divergence.positions and one.kld > 0]


def kld_by_position(rows: Sequence[CellRow]) -> Drawing:
    """Mean KLD over the position in a chunk, both logarithmic, with its standard error; a line for each cell."""
    return draw_svg("positions", HEIGHT, lambda axes: _positions(axes, points_by_position(rows)))


def _positions(axes: Axes, found: Sequence[PlotPoint]) -> None:
    colours = _colours(found)
    first = 0
    for one in found:
        assert one.row.measured  # noqa: S101 (points are measured)
        told = [part for part in one.row.measured.divergence.positions if part.tokens]
        first = (told[-1].end + 1) // 2
        axes.errorbar(
            [(part.begin + part.end) / 2 for part in told],
            [max(part.kld.value, SMALLEST_KLD) for part in told],
            yerr=[part.kld.error for part in told],
            color=colours[_pair(one)],
            marker=ROTATION_MARKERS[one.row.job.configuration.rotation],
            markersize=4,
            linewidth=1,
            elinewidth=0.8,
            label=one.label,
        )
    axes.axvline(first, color=INK, linewidth=1, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", nonpositive="mask")
    _log(axes.yaxis)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axes.grid(color=INK, alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    axes.set_xlabel("position in the chunk")
    axes.set_ylabel("mean KLD (nats)")


def distribution(rows: Sequence[CellRow]) -> Drawing:
    """KLD of single tokens for each cell: thick from 10 to 90 %, thin from 1 to 99 %, median and maximum."""
    found = points(rows)
    return draw_svg("tokens", MARGIN + 0.6 * ROW_HEIGHT * len(found), lambda axes: _tokens(axes, found))


def _tokens(axes: Axes, found: Sequence[PlotPoint]) -> None:
    colours = _colours(found)
    for y, one in enumerate(found):
        assert one.row.measured  # noqa: S101 (points are measured)
        at = one.row.measured.divergence.kld.at
        colour = colours[_pair(one)]
        ends = {percent: max(at(percent), SMALLEST_KLD) for percent in (1.0, 10.0, 50.0, 90.0, 99.0, 100.0)}
        axes.plot([ends[1.0], ends[99.0]], [y, y], color=colour, linewidth=1)
        axes.plot([ends[10.0], ends[90.0]], [y, y], color=colour, linewidth=6, solid_capstyle="butt")
        axes.plot([ends[50.0]], [y], color=INK, marker="|", markersize=11, markeredgewidth=2)
        axes.plot([ends[100.0]], [y], color=colour, marker="x", markersize=5)
    axes.set_xscale("log")
    _log(axes.xaxis)
    axes.set_yticks(range(len(found)), [one.label for one in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlabel("KLD of a token (nats)")
    axes.grid(color=INK, alpha=0.25, linewidth=0.6, axis="x")
