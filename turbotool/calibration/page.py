"""A calibration as one HTML file that needs nothing else: no network, no script, readable in light and in dark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from turbotool.calibration import plot
from turbotool.calibration.calibration import CalibratedModel
from turbotool.calibration.statistics import Statistics
from turbotool.calibration.table import GAIN, check_about, check_rows, gain_rows, measured, verdict
from turbotool.report.html import render
from turbotool.report.svg import inline
from turbotool.system.extras import require_library
from turbotool.system.files import write_file

if TYPE_CHECKING:  # the command line imports this module to print its help
    from markupsafe import Markup

PAGE_NAME = "calibration.html"
OTHERWISE = ", or leave the page out with --no-plot"


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
        channels=_channels(found),
        gain_about=GAIN,
        gain_plot=inline(plot.gain_by_layer(found)),
        gains=gain_rows(found, len(found.layers)),
        facts=[("what", "value"), *facts(made)],
        command=made.command,
    )


def _channels(found: Statistics) -> list[tuple[Markup, str]]:
    """The plots of the channels, each with what stands below it."""
    return [
        (inline(plot.heat_map(found, after=False)), "As it comes."),
        (inline(plot.heat_map(found, after=True)), "As it is stored."),
        (
            inline(plot.sorted_shares(found)),
            "Median over heads, 10 to 90 % of them (shaded), and the most that any has (dotted). "
            "A head whose channels were all alike would lie on the dashed line.",
        ),
    ]


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
