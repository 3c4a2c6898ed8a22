"""An evaluation that was made: everything that reports are made of."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.evaluation.judge.choice import Choice
from turbotool.evaluation.judge.contest import Criteria
from turbotool.evaluation.judge.tolerance import Tolerance
from turbotool.evaluation.judge.verdict import Comparison, Perplexity
from turbotool.evaluation.measure.probe import Probe
from turbotool.evaluation.measure.work import EvalLedger
from turbotool.evaluation.resolution import Resolution
from turbotool.evaluation.sweep import Sweep
from turbotool.system.machine import Machine


@dataclass(frozen=True)
class Evaluation:
    """Everything that reports are made of; `resolution` only of an evaluation that added chunks as it needed them."""

    sweep: Sweep
    ledger: EvalLedger
    comparisons: tuple[Comparison, ...]
    perplexity: tuple[Perplexity, ...]
    probes: tuple[Probe, ...]
    choice: Choice
    criteria: Criteria
    machine: Machine
    command: str
    plan: str | None = None
    resolution: Resolution | None = None

    @property
    def tolerance(self) -> Tolerance:
        return self.criteria.tolerance
