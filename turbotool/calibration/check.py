"""What a calibration does to the quality of a cache: mean KLD from f16 without and with it, on text held back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.errors import ConfigurationMismatch
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import AUTO, Calibration, calibration
from turbotool.programs.divergence import Divergence
from turbotool.programs.perplexity import Text, base_bytes, compare, write_base
from turbotool.programs.runner import Run, Runner
from turbotool.system.files import need_space

BETTER, WORSE, UNRESOLVED = "better", "worse", "not resolved"
RESOLVED = 1.96  # standard errors between two means that are not the same, in 95 of 100 cases
RUNS = ("base logits", "without", "with the calibration")


@dataclass(frozen=True)
class Served:
    """How a calibration comes into a run: what the program is told, and how its log names the source.

    `model` is the file that is run: the copy that holds the calibration, or the model itself.
    """

    model: Path
    calibration: Calibration
    source: str


def serve_file(model: Path, file: Path) -> Served:
    return Served(model, calibration(str(file)), file.name)


def serve_copy(copy: Path) -> Served:
    return Served(copy, AUTO, f"embedded in {copy.name}")


@dataclass(frozen=True)
class KldCheck:
    """Divergence from an f16 cache of one pair of types on `chunks` chunks of `ctx` tokens, without and with."""

    pair: CachePair
    ctx: int
    chunks: int
    before: Divergence
    after: Divergence

    @property
    def ratio(self) -> float:
        """Mean KLD with the calibration over that without; nan where there is none."""
        before, after = self.before.mean.value, self.after.mean.value
        return after / before if before > 0 else math.nan

    @property
    def ratio_error(self) -> float:
        """Its standard error, as if the two runs knew nothing of each other: they share a text, so it is less."""
        parts = (self.before.mean, self.after.mean)
        if not all(one.value > 0 for one in parts):
            return math.nan
        return self.ratio * math.hypot(*(one.error / one.value for one in parts))

    @property
    def verdict(self) -> str:
        """Better or worse if the two means are further apart than their errors explain."""
        before, after = self.before.mean, self.after.mean
        least = RESOLVED * math.hypot(before.error, after.error)
        difference = after.value - before.value
        if not abs(difference) > least:  # nan, too
            return UNRESOLVED
        return WORSE if difference > 0 else BETTER


def check(
    runner: Runner, model: Model, text: Text, pair: CachePair, served: Served, step: Callable[[int], None]
) -> KldCheck:
    """Measure both; base logits lie beside the text meanwhile. `step` is told how many of the RUNS are done.

    Raises what a run raises, CorpusError for a text without a chunk, and ConfigurationMismatch unless the calibration
    was in force in one run and not in the others.
    """
    logits = text.path.with_suffix(".logits")
    step(0)
    base = write_base(runner, model, text, F16, logits)
    step(1)
    before, _ = compare(runner, model, text, pair, logits)
    step(2)
    copy = replace(model, path=served.model)
    after, run = compare(runner, copy, text, pair, logits, calibration=served.calibration)
    require_source(run, served.source)
    step(3)
    logits.unlink()
    return KldCheck(pair, text.ctx, base.chunks, before, after)


def need_base_space(folder: Path, model: Model, ctx: int, chunks: int) -> None:
    """Raise NoSpace unless the base logits have room."""
    if model.n_vocab:
        need_space(folder, base_bytes(model.n_vocab, ctx, chunks), f"{chunks} chunks of base logits")


def require_source(run: Run, wanted: str) -> None:
    """Raise ConfigurationMismatch unless every cache of a run was calibrated with what was asked for."""
    found = [one.source for one in run.effective.in_force]
    if set(found) != {wanted}:
        told = " and ".join(one or "nothing" for one in found) or "none"
        raise ConfigurationMismatch(
            f"{run.name} was asked for a cache with the calibration {wanted}, and reports {told}",
            hint=f"see {run.done.log}" if run.done.log else "look at the log of this run",
        )
