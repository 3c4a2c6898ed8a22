"""The plots of a calibration: what the channels of K look like before and after, and the gain of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean
from typing import TYPE_CHECKING

from turbotool.calibration.statistics import Statistics
from turbotool.report.svg import COLOURS, INK, Drawing, draw_svg, ink_axes

if TYPE_CHECKING:  # the command line imports this module to print its help
    from matplotlib.axes import Axes
    from numpy import ndarray

COLOURMAP = "cividis"  # the same order for those who see no colours
MARGIN, LAYER_HEIGHT = 1.3, 0.07  # inches
LEAST_HEIGHT, HEIGHT = 2.4, 3.2
LEAST, MOST = 0.01, 100.0  # times the mean of a head: what is beyond has the last colour
FEW, MANY = 10, 90  # percent of the heads
LOWEST = 1e-4  # percent of a head's energy that is drawn
BEFORE, AFTER = COLOURS[3], COLOURS[1]


def heat_map(found: Statistics, *, after: bool) -> Drawing:
    """The energy of each channel (columns, head after head) in each layer (rows), over the mean of its head."""
    name = f"heat {'after' if after else 'before'}"
    height = max(LEAST_HEIGHT, MARGIN + LAYER_HEIGHT * len(found.layers))
    return draw_svg(name, height, lambda axes: _heat(axes, found, after=after))


def _heat(axes: Axes, found: Statistics, *, after: bool) -> None:
    import numpy
    from matplotlib.colors import LogNorm

    rows = [[share * len(head) for head in layer.shares(after=after) for share in head] for layer in found.layers]
    energy = numpy.full((len(rows), max(map(len, rows))), numpy.nan)
    for number, row in enumerate(rows):
        energy[number, : len(row)] = row
    image = axes.imshow(
        numpy.clip(energy, LEAST, MOST), norm=LogNorm(LEAST, MOST), cmap=COLOURMAP, aspect="auto", interpolation="none"
    )
    width = found.layers[0].head_size
    for edge in range(width, energy.shape[1], width):
        axes.axvline(edge - 0.5, color=INK, linewidth=0.6)
    shown = sorted({0, len(rows) // 2, len(rows) - 1})
    axes.set_yticks(shown, [str(found.layers[number].layer) for number in shown])
    axes.set_xlabel("channel, head after head")
    axes.set_ylabel("layer")
    bar = axes.figure.colorbar(image, ax=axes, label="energy over the mean of the head")
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ink_axes(bar.ax)


def sorted_shares(found: Statistics) -> Drawing:
    """What part of a head's energy its channels have, largest first: median of all heads, and 10 to 90 % of them."""
    return draw_svg("shares", HEIGHT, lambda axes: _shares(axes, found))


def _shares(axes: Axes, found: Statistics) -> None:
    import numpy

    for after, colour, label in ((False, BEFORE, "as it comes"), (True, AFTER, "as it is stored")):
        heads = _sorted_heads(found, after=after)
        low, middle, high = numpy.nanpercentile(heads, [FEW, 50, MANY], axis=0)
        ranks = numpy.arange(1, heads.shape[1] + 1)
        axes.fill_between(ranks, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(ranks, middle, color=colour, linewidth=1.8, label=label)
        axes.plot(ranks, numpy.nanmax(heads, axis=0), color=colour, linewidth=0.8, linestyle=":")
    axes.axhline(100 / heads.shape[1], color=INK, linewidth=0.8, linestyle="--")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("channels of a head, the largest first")
    axes.set_ylabel("share of its energy (%)")
    axes.grid(color=INK, alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)


def _sorted_heads(found: Statistics, *, after: bool) -> ndarray:
    """A row for each head, in percent; short heads are filled up with nan."""
    import numpy

    heads = [head for layer in found.layers for head in layer.shares(after=after)]
    rows = numpy.full((len(heads), max(map(len, heads))), numpy.nan)
    for row, head in zip(rows, heads, strict=True):
        row[: len(head)] = sorted((max(100 * share, LOWEST) for share in head), reverse=True)
    return rows


def gain_by_layer(found: Statistics) -> Drawing:
    """The predicted gain of each layer: mean over heads, whiskers from the least to the most."""
    return draw_svg("gain", HEIGHT, lambda axes: _gains(axes, found))


def _gains(axes: Axes, found: Statistics) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    layers = [layer.layer for layer in found.layers]
    means, below, above = zip(*(_whisker(layer.gain) for layer in found.layers), strict=True)
    axes.errorbar(layers, means, [below, above], fmt="o", color=AFTER, markersize=4, elinewidth=0.8, capsize=2)
    axes.axhline(1, color=INK, linewidth=0.8, linestyle="--")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if high > 5 * low else MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("layer")
    axes.set_ylabel("predicted gain")
    axes.grid(color=INK, alpha=0.25, linewidth=0.6)


def _whisker(gains: Sequence[float]) -> tuple[float, float, float]:
    mean = geometric_mean(gains)
    return mean, max(0.0, mean - min(gains)), max(0.0, max(gains) - mean)
