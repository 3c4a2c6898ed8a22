"""What a benchmark runs: every cache at every depth and thread count on every build, and in which order.

Speed on a shared machine drifts. Rounds let the drift fall on all cells, and what is compared with each other runs
close together, so that a ratio taken within a round sees little of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from turbotool.errors import ConfigurationMismatch, UnknownCacheType
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import (
    UNCALIBRATED,
    Calibration,
    calibrations_of,
    can_gain,
    left_alone,
    refuse_programs,
)
from turbotool.kv.effective import Calibrated
from turbotool.programs import llamabench
from turbotool.programs.binaries import TREE_DIGITS, Binaries
from turbotool.programs.llamabench import DECODE, PREFILL, BenchPoint, Phase, Timing
from turbotool.programs.runner import Runner

OURS = "ours"
AGAINST = "against"
# what the first run of a build times if the user leaves one of the two phases out
WARM_PREFILL = Phase(PREFILL, 128)
WARM_DECODE = Phase(DECODE, 8)
T = TypeVar("T")


@dataclass(frozen=True)
class BenchSettings:
    """What is measured: caches, depths in tokens, threads, what is timed, how often, and with which calibrations."""

    pairs: tuple[CachePair, ...]
    depths: tuple[int, ...]
    threads: tuple[int, ...]
    phases: tuple[Phase, ...]
    rounds: int
    calibrations: tuple[Calibration, ...] = (UNCALIBRATED,)

    @property
    def caches(self) -> tuple[tuple[CachePair, Calibration], ...]:
        """Every pair of types with every calibration, where K is quantized."""
        return tuple(
            (pair, calibration) for pair in self.pairs for calibration in calibrations_of(pair, self.calibrations)
        )

    @property
    def types(self) -> tuple[str, ...]:
        """Every cache type that is named, once."""
        return tuple(dict.fromkeys(name for pair in self.pairs for name in (pair.k, pair.v)))

    def phase(self, kind: str) -> Phase | None:
        return next((phase for phase in self.phases if phase.kind == kind), None)


@dataclass(frozen=True)
class Build:
    """A build that is measured: the cache types that it lacks, and its first run, which does not count.

    `calibrated` is how it calibrates the caches, None if it knows nothing of calibrations.
    """

    name: str
    runner: Runner
    lacks: tuple[str, ...]
    warm: Timing
    calibrated: Mapping[tuple[CachePair, Calibration], tuple[Calibrated, ...]] | None = None


@dataclass(frozen=True)
class BenchJob:
    """One point on one build."""

    build: str
    point: BenchPoint

    def __str__(self) -> str:
        return f"{self.build} {self.point}"


@dataclass(frozen=True)
class Skipped:
    """A cache that a build cannot have, and why."""

    build: str
    pair: CachePair
    reason: str


@dataclass(frozen=True)
class BenchPlan:
    """Everything that a round runs."""

    model: Model
    settings: BenchSettings
    builds: tuple[Build, ...]
    jobs: tuple[BenchJob, ...]
    skipped: tuple[Skipped, ...]

    def build(self, name: str) -> Build:
        return next(build for build in self.builds if build.name == name)


def examine(name: str, runner: Runner, model: Model, settings: BenchSettings) -> Build:
    """Ask a build what it knows, let it run once, with an f16 cache, and calibrate every other one.

    Raises UnknownCacheType when ours lacks a type, ConfigurationMismatch when it lacks calibrations that are asked for
    or a build does not report the tree that it should come from, and what a run raises.
    """
    lacks = tuple(cache_type for cache_type in settings.types if not llamabench.takes(runner, cache_type))
    if name == OURS and lacks:
        raise UnknownCacheType(
            f"the llama-bench in {runner.binaries.bin_dir} does not take {' and '.join(lacks)}",
            hint="leave it out of --kv, or run `turbotool build` and leave out --bin-dir",
        )
    phases = (settings.phase(PREFILL) or WARM_PREFILL, settings.phase(DECODE) or WARM_DECODE)
    warm = llamabench.measure(runner, model, BenchPoint(F16, 0, max(settings.threads)), phases)
    _require_tree(runner.binaries, warm.commit)
    return Build(name, runner, lacks, warm, _calibrated(name, runner, model, settings, lacks))


def _calibrated(
    name: str, runner: Runner, model: Model, settings: BenchSettings, lacks: Sequence[str]
) -> dict[tuple[CachePair, Calibration], tuple[Calibrated, ...]] | None:
    """How a build calibrates the caches that it can have; None if it knows nothing of it, which ours has to."""
    if not llamabench.calibrates(runner):
        if name == OURS:
            refuse_programs(llamabench.PROGRAM, runner.binaries.bin_dir, settings.pairs, settings.calibrations)
        return None
    there = [(pair, asked) for pair, asked in settings.caches if can_gain(pair) and not {pair.k, pair.v} & {*lacks}]
    return {(pair, asked): llamabench.calibrated(runner, model, pair, asked) for pair, asked in there}


def _require_tree(binaries: Binaries, commit: str) -> None:
    if binaries.tree[:TREE_DIGITS] not in commit:
        raise ConfigurationMismatch(
            f"the llama-bench in {binaries.bin_dir} reports commit {commit}, not tree {binaries.tree[:TREE_DIGITS]}",
            hint="turbotool build",
        )


def make_plan(model: Model, settings: BenchSettings, builds: Sequence[Build]) -> BenchPlan:
    """Every cache on every build that knows its types."""
    points = [
        BenchPoint(pair, depth, threads, calibration)
        for threads in settings.threads
        for depth in settings.depths
        for pair, calibration in settings.caches
    ]
    jobs = tuple(BenchJob(build.name, point) for point in points for build in builds if not _lacking(build, point.pair))
    skipped = tuple(
        Skipped(build.name, pair, f"its llama-bench does not take {' and '.join(lacking)}")
        for build in builds
        for pair in settings.pairs
        if (lacking := _lacking(build, pair))
    )
    return BenchPlan(model, settings, tuple(builds), jobs, skipped)


def left_out(plan: BenchPlan) -> list[str]:
    """Lines for builds that cannot run every cache, or run them uncalibrated, and for caches that stay so."""
    lines = left_alone(plan.settings.pairs, plan.settings.calibrations)
    for build in plan.builds:
        skipped = [item for item in plan.skipped if item.build == build.name]
        if skipped:
            caches = ", ".join(item.pair.short for item in skipped)
            lines.append(
                f"left out on {build.name}, whose llama-bench does not take {', '.join(build.lacks)}: {caches}"
            )
        if build.calibrated is None and any(not one.is_off for one in plan.settings.calibrations):
            lines.append(f"{build.name} knows nothing of calibrated caches: its own are not")
    return lines


def _lacking(build: Build, pair: CachePair) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys((pair.k, pair.v)) if name in build.lacks)


def order(jobs: Sequence[BenchJob], number: int) -> tuple[BenchJob, ...]:
    """The jobs in the order of round `number` (from 0): shuffled, every second round the reverse of the one before.

    Shuffled are the blocks of equal depth and threads, the caches in them and the builds of a cache: jobs that are
    compared with each other stay together. The reverse gives each pair the opposite order.
    """
    generator = random.Random(number // 2)  # noqa: S311 (an order that can be repeated, not a secret)

    def shuffled(groups: Iterable[T]) -> list[T]:
        listed = list(groups)
        generator.shuffle(listed)
        return listed

    blocks = shuffled(_grouped(jobs, lambda job: (job.point.depth, job.point.threads)))
    caches = [cache for block in blocks for cache in shuffled(_grouped(block, lambda job: job.point))]
    ordered = tuple(job for cache in caches for job in shuffled(cache))
    return ordered if number % 2 == 0 else ordered[::-1]


def _grouped(jobs: Sequence[BenchJob], key: Callable[[BenchJob], Hashable]) -> Iterator[list[BenchJob]]:
    return (list(group) for _, group in groupby(jobs, key))
