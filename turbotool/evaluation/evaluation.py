"""An evaluation that was made: everything that reports are made of."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.evaluation.judge.choice import Choice, Tolerance
from turbotool.evaluation.judge.verdict import Comparison, Perplexity
from turbotool.evaluation.measure.probe import Probe
from turbotool.evaluation.measure.work import EvalLedger
from turbotool.evaluation.sweep import Sweep
from turbotool.system.machine import Machine


@dataclass(frozen=True)
class Evaluation:
    """Everything that reports are made of."""

    sweep: Sweep
    ledger: EvalLedger
    comparisons: tuple[Comparison, ...]
    perplexity: tuple[Perplexity, ...]
    probes: tuple[Probe, ...]
    choice: Choice
    tolerance: Tolerance
    machine: Machine
    command: str
    plan: str | None = None
