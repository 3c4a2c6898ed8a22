"""A sweep in progress: what is known, what is left, and how long that will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from turbotool.errors import BinaryFailed, ConfigurationMismatch, TurbotoolError
from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.store import Store
from turbotool.evaluation.sweep import EvalJob, Sweep
from turbotool.kv.cachetype import CachePair
from turbotool.system.output import Progress


@dataclass
class EvalLedger:
    """What is known so far: measurements, and why others failed."""

    measured: dict[EvalJob, Measured] = field(default_factory=dict)
    failures: dict[EvalJob, TurbotoolError] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        return len(self.measured) + len(self.failures)


class EvalForecast:
    """Expected seconds of a run: what runs with the same cache took, or else all runs; unknown before the first."""

    def __init__(self) -> None:
        self._took: dict[CachePair, list[float]] = {}

    def learn(self, configuration: Configuration, seconds: float) -> None:
        self._took.setdefault(configuration.pair, []).append(seconds)

    def total(self, jobs: Sequence[EvalJob]) -> float | None:
        """The expected duration of all of them, one after the other; None if nothing ran yet."""
        every = [seconds for took in self._took.values() for seconds in took]
        if not every:
            return None
        return sum(fmean(self._took.get(job.configuration.pair, every)) for job in jobs)


@dataclass
class Work:
    """A sweep in progress; `queue` are the runs that are left, of which `at_once` run at the same time."""

    sweep: Sweep
    store: Store
    ledger: EvalLedger
    forecast: EvalForecast
    queue: list[EvalJob]
    at_once: int = 1
    step: Progress = lambda done, total, what="", left=None: None

    @property
    def total(self) -> int:
        return self.ledger.ended + len(self.queue)

    def tell(self, what: str) -> None:
        """Move the progress bar."""
        left = self.forecast.total(self.queue)
        self.step(self.ledger.ended, self.total, what, None if left is None else left / self.at_once)

    def settle(self, job: EvalJob, measured: Measured) -> None:
        """Keep a measurement, or why it is none of what is measured."""
        if unlike := self.unlike(job, measured):
            self.ledger.failures[job] = ConfigurationMismatch(
                unlike, hint="name one calibration for all of them: --calibration FILE"
            )
        else:
            self.keep(job, measured)

    def unlike(self, job: EvalJob, measured: Measured) -> str:
        """How a run was calibrated otherwise than others of its configuration; empty if it was not."""
        mine = hashes(measured)
        for other, found in self.ledger.measured.items():
            theirs = hashes(found) if other.configuration == job.configuration else mine
            if mine != theirs:
                told = ("none" if not one else ", ".join(one) for one in (mine, theirs))
                return "{}: the hash of its calibration is {}, and {} on {}".format(job, *told, other.corpus.name)
        return ""

    def keep(self, job: EvalJob, measured: Measured) -> None:
        """Commit a measurement at once."""
        self.store.keep(self.sweep.key(job), f"{self.sweep.model.path.name}: {job}", measured)
        self.describe(job)
        self.ledger.measured[job] = measured
        self.forecast.learn(job.configuration, measured.seconds)

    def describe(self, job: EvalJob) -> None:
        """Note what the store has under a key, for those who look for this model.

        Neither f16 against itself nor a control over a single chunk is a loss to be chosen by.
        """
        if not job.repeat and not job.ubatch:
            self.store.describe(self.sweep.key(job), self.sweep.origin(job), job.configuration)


def hashes(measured: Measured) -> tuple[str, ...]:
    """Of the calibrations that were in force."""
    return tuple(one.hash or "" for one in measured.effective.in_force)


def verdict(ledger: EvalLedger, log: Path | None) -> TurbotoolError | None:
    """The error that the command ends with: None if everything was measured, whatever came out."""
    if not ledger.failures:
        return None
    named = "; ".join(f"{job}: {error.message.partition(chr(10))[0]}" for job, error in ledger.failures.items())
    message = f"{len(ledger.failures)} of {ledger.ended} runs could not be measured: {named}"
    hint = f"read {log}" if log else None
    if any(isinstance(error, ConfigurationMismatch) for error in ledger.failures.values()):
        return ConfigurationMismatch(message, hint=hint)
    return BinaryFailed(message, how="failed cells", hint=hint)
