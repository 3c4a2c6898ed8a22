"""A calibration as text: the predicted gain of each layer, and what the check found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import geometric_mean

from turbotool.calibration.calibration import CalibratedModel
from turbotool.calibration.check import BETTER, RESOLVED, UNRESOLVED, WORSE, KldCheck
from turbotool.calibration.statistics import LayerStatistics, Statistics
from turbotool.report.table import aligned
from turbotool.system.process import display

MOST_ROWS = 16  # of layers on a terminal; more stand together
GAIN = "predicted gain: by how much quantization noise shrinks at equal bits; mean (least - most) over heads"


def text(made: CalibratedModel) -> str:
    """For people: gains, check, and what to type."""
    gains = aligned(gain_rows(made.statistics, MOST_ROWS), [True, True])
    parts = [f"{measured(made)}\n{GAIN}\n\n{gains}", checked(made)]
    return "\n\n".join([*parts, f"to serve with it:\n  {display(['llama-server', *made.words])}"])


def measured(made: CalibratedModel) -> str:
    found = made.statistics
    about = f"measured on {found.n_tokens} tokens, {made.measured} sequences of {made.ctx}"
    return f"{made.model.path.name}: {about}; figures for a context of {found.n_positions}"


def gain_rows(found: Statistics, most: int) -> list[list[str]]:
    """Heading, at most so many rows of layers, one of all; neighbours stand together where there are more layers."""
    size = -(-len(found.layers) // most)
    groups = [found.layers[start : start + size] for start in range(0, len(found.layers), size)]
    rows = [["layer" if size == 1 else "layers", "gain"], *([_name(group), _gain(group)] for group in groups)]
    return [*rows, ["all", _gain(found.layers)]]


def _name(layers: Sequence[LayerStatistics]) -> str:
    first, last = layers[0].layer, layers[-1].layer
    return str(first) if first == last else f"{first} - {last}"


def _gain(layers: Sequence[LayerStatistics]) -> str:
    gains = [gain for layer in layers for gain in layer.gain]
    return f"{geometric_mean(gains):.2f} ({min(gains):.2f} - {max(gains):.2f})"


def checked(made: CalibratedModel) -> str:
    """The check as a table and a verdict, or that there was none."""
    if made.check is None:
        return "not checked (--no-check): what it does to the model's answers was not measured"
    return f"{check_about(made.check)}\n{aligned(check_rows(made.check), [True, False, False])}\n{verdict(made.check)}"


def check_about(found: KldCheck) -> str:
    chunks = f"{found.chunks} chunks" if found.chunks > 1 else "1 chunk"
    return f"{found.pair.short} against f16 on {chunks} of {found.ctx} tokens that were held back"


def check_rows(found: KldCheck) -> list[list[str]]:
    rows = [["calibration", "mean KLD (nats)", "same top (%)"]]
    for name, one in (("off", found.before), ("on", found.after)):
        rows.append([name, one.mean.text(5), one.same_top.text(2)])
    return rows


def verdict(found: KldCheck) -> str:
    """A sentence."""
    said = {
        BETTER: "better",
        WORSE: "worse: this cache is better without it",
        UNRESOLVED: f"not resolved: the difference is within {RESOLVED} standard errors; more --chunks tell more",
    }[found.verdict]
    if not math.isfinite(found.ratio):
        return said
    return f"{found.ratio:.3f} ± {found.ratio_error:.3f} times the KLD: {said}"
