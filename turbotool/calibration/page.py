"""A calibration as one HTML file that needs nothing else: no network, no script, readable in light and in dark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from turbotool.calibration import plot
from turbotool.calibration.calibration import CalibratedModel
from turbotool.calibration.table import GAIN, check_about, check_rows, gain_rows, measured, verdict
from turbotool.report.html import render
from turbotool.report.svg import Drawing, inline
from turbotool.system.extras import require_library
from turbotool.system.files import write_file

if TYPE_CHECKING:  # the command line imports this module to print its help
    from markupsafe import Markup

PAGE_NAME = "calibration.html"
OTHERWISE = ", or leave the page out with --no-plot"


@dataclass(frozen=True)
class ChannelPlots:
    """The plots of one side."""

    name: str
    figures: tuple[tuple[Markup, str], ...]


def require_page_libraries() -> None:
    """Raise ToolMissing unless pages and plots can be made."""
    require_library("matplotlib>=3.8", "eval", "the plots of a calibration need", OTHERWISE)
    require_library("jinja2>=3.1", "eval", "the page of a calibration needs", OTHERWISE)


def write_page(folder: Path, made: CalibratedModel) -> Path:
    """Write the page to a folder; it names no folder of the machine. Raises NoSpace."""
    path = folder / PAGE_NAME
    write_file(path, page(made).encode())
    return path


def page(made: CalibratedModel) -> str:
    """The whole file."""
    found = made.statistics
    return render(
        __package__,
        "calibration.html.j2",
        title=f"Calibrated KV cache of {made.model.path.name}",
        measured=measured(made),
        check=check_rows(made.check) if made.check else None,
        check_about=check_about(made.check) if made.check else "",
        verdict=verdict(made.check) if made.check else "",
        sides=tuple(_sides(made)),
        gain_about=GAIN,
        gain_plot=inline(plot.gain_by_layer(found)),
        gains=gain_rows(found, len(found.layers)),
        facts=[("what", "value"), *facts(made)],
        command=made.command,
    )


def _sides(made: CalibratedModel) -> Iterator[ChannelPlots]:
    found = made.statistics
    for side in found.sides:
        drawings: tuple[tuple[Drawing, str], ...] = (
            (plot.heat_map(found, side, after=False), "As it comes."),
            (plot.heat_map(found, side, after=True), "As it is stored."),
            (
                plot.sorted_shares(found, side),
                "Median over heads, 10 to 90 % of them (shaded), and the most that any has (dotted). "
                "A head whose channels were all alike would lie on the dashed line.",
            ),
        )
        yield ChannelPlots(side.upper(), tuple((inline(drawing), caption) for drawing, caption in drawings))


def facts(made: CalibratedModel) -> list[tuple[str, str]]:
    """What was measured on what."""
    found = made.statistics
    return [
        ("model", f"{made.model.path.name}, fingerprint {found.model}"),
        *(("text", path.name) for path in made.texts),
        ("hash of what was measured", found.text),
        ("sequences", f"{made.measured} of {made.ctx} tokens, {found.n_tokens} tokens in all"),
        ("figures are for", f"a context of {found.n_positions} tokens"),
        ("file", f"{made.target.path.name}{', a copy of the model' if made.target.embeds else ''}"),
    ]
