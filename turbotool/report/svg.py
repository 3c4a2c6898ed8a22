"""Pictures as SVG that reads on white and on black: no background, colours of middle brightness."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:  # the command line imports this module to print its help
    from markupsafe import Markup
    from matplotlib.axes import Axes

Drawing = NewType("Drawing", str)  # an <svg> element that draw_svg drew

INK = "#808080"
# each with a contrast of at least 3 to white and to black, neighbours apart in hue
COLOURS = ("#808080", "#3b82f6", "#2f9e68", "#d97706", "#d6455d", "#9b5de5", "#0e94a0", "#a0711c")
WIDTH = 5.8  # inches


def draw_svg(name: str, height: float, draw: Callable[[Axes], None]) -> Drawing:
    """One picture; letters as outlines and a fixed salt, so that the same figures give the same bytes everywhere."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": f"turbotool {name}", "text.color": INK}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        ink_axes(axes)
        sink = io.StringIO()
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    return Drawing(sink.getvalue()[sink.getvalue().index("<svg") :])


def inline(drawing: Drawing) -> Markup:
    """A picture as a part of a page, its letters and axes in the colour of the page's own."""
    from markupsafe import Markup

    return Markup(drawing.replace(INK, "currentColor"))  # noqa: S704 (our own, by its type)


def ink_axes(axes: Axes) -> None:
    axes.tick_params(colors=INK, which="both")
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for spine in axes.spines.values():
        spine.set_color(INK)
