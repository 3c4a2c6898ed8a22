"""The figures of a benchmark: medians over rounds, and ratios that are taken within a round before their median is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from turbotool.bench.plan import AGAINST, OURS, BenchJob, BenchPlan
from turbotool.bench.rounds import BenchLedger
from turbotool.errors import first_line
from turbotool.kv.cachetype import F16
from turbotool.kv.calibration import UNCALIBRATED
from turbotool.programs.llamabench import DECODE, Phase, Sample

MS = 1e3
NS_PER_MS = 1e6


@dataclass(frozen=True)
class Spread:
    """A quantity that was measured in several rounds."""

    median: float
    minimum: float
    maximum: float


def spread_of(values: Iterable[float]) -> Spread:
    """Of one value or more."""
    listed = list(values)
    return Spread(median(listed), min(listed), max(listed))


def spread(values: Iterable[float]) -> Spread | None:
    """None if there is no value."""
    listed = list(values)
    return spread_of(listed) if listed else None


@dataclass(frozen=True)
class BenchCell:
    """One phase of one job.

    `samples` and `speed` are in tokens/s, `cached_token` is what each token in the cache adds to the time of a decoded
    one, in ns. `ratio_f16` is this speed over that of the f16 cache on the same build at the same depth and threads;
    `ratio_against` is our speed over that of the other build in the same cell. Above 1 this cell is the faster one.
    None is what was not measured or has nothing to be compared with.
    """

    job: BenchJob
    phase: Phase
    samples: tuple[float, ...] = ()
    speed: Spread | None = None
    cached_token: Spread | None = None
    ratio_f16: Spread | None = None
    ratio_against: Spread | None = None
    failure: str | None = None

    @property
    def ms_per_token(self) -> float | None:
        """The median of a decoded token; None for prefill, whose tokens are not processed one by one."""
        return MS / self.speed.median if self.speed and self.phase.kind == DECODE else None


def make_cells(plan: BenchPlan, ledger: BenchLedger) -> tuple[BenchCell, ...]:
    """Every phase of every job, prefill first, in the plan's order."""
    return tuple(_cell(ledger, job, phase) for phase in plan.settings.phases for job in plan.jobs)


def _cell(ledger: BenchLedger, job: BenchJob, phase: Phase) -> BenchCell:
    mine = ledger.samples.get((job, phase), {})
    failure = ledger.failures.get(job)
    speeds = [mine[number].tokens_per_second for number in sorted(mine)]

    def compared(other: BenchJob, quantity: Callable[[Sample, Sample], float]) -> Spread | None:
        theirs = ledger.samples.get((other, phase), {})
        return spread(quantity(mine[number], theirs[number]) for number in mine.keys() & theirs.keys())

    cell = BenchCell(
        job, phase, tuple(speeds), spread(speeds), failure=first_line(failure.error.message) if failure else None
    )
    cell = replace(cell, ratio_f16=compared(_at(job, pair=F16, calibration=UNCALIBRATED), speedup))
    if job.build == OURS:
        cell = replace(cell, ratio_against=compared(replace(job, build=AGAINST), speedup))
    if phase.kind == DECODE and job.point.depth:
        added = partial(added_ns, depth=job.point.depth)
        cell = replace(cell, cached_token=compared(_at(job, depth=0), added))
    return cell


def _at(job: BenchJob, **changes: object) -> BenchJob:
    return replace(job, point=replace(job.point, **changes))  # type: ignore[arg-type]


def speedup(mine: Sample, other: Sample) -> float:
    """How many times faster mine is."""
    return mine.tokens_per_second / other.tokens_per_second


def added_ns(deep: Sample, empty: Sample, depth: int) -> float:
    """What each of `depth` cached tokens adds to the time of a decoded one, in ns."""
    return (deep.ms_per_token - empty.ms_per_token) * NS_PER_MS / depth
