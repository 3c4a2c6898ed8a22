"""The attention alone: ns for each cell and KV head, by cache and shape, two builds in turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from turbotool.bench.figures import Spread, spread, spread_of
from turbotool.bench.plan import AGAINST, OURS
from turbotool.errors import UsageMistake
from turbotool.kv.cachetype import F16
from turbotool.programs.attentionspeed import (
    PROGRAM,
    AttentionSettings,
    AttentionShape,
    AttentionTiming,
    time_attention,
)
from turbotool.programs.binaries import Binaries
from turbotool.programs.choose import choose_binaries, named_binaries
from turbotool.programs.runner import Runner
from turbotool.system.files import fresh_file
from turbotool.system.machine import Machine, read_machine, usable_cpus
from turbotool.system.session import Session

CPU = "cpu"


@dataclass(frozen=True)
class AttentionCell:
    """A cache and a shape on a build, over all rounds. Ratios are of times within a round: below 1 this is faster.

    `ns` and `read` are medians of a round, for each cell and KV head, `least` the least of all repetitions.
    """

    build: str
    cache: str
    shape: AttentionShape
    ns: Spread
    least: float
    read: float
    ratio_f16: Spread | None
    ratio_against: Spread | None


@dataclass(frozen=True)
class AttentionBench:
    """What was measured on what."""

    settings: AttentionSettings
    rounds: int
    machine: Machine
    binaries: Mapping[str, Binaries]
    log: Path
    cells: tuple[AttentionCell, ...]


Key = tuple[str, str, AttentionShape]  # build, cache, shape
Round = Mapping[Key, AttentionTiming]


def run_attention(
    session: Session,
    settings: AttentionSettings,
    *,
    rounds: int,
    bin_dir: Path | None = None,
    against: Path | None = None,
) -> AttentionBench:
    """Time the CPU build, made if needed, or the programs in `bin_dir`; beside it those of another build in `against`.

    Every second round has the builds in the other order. Raises UsageMistake for a shape that cannot be, ToolMissing,
    BinaryFailed, and what building raises.
    """
    _require_cells(settings)
    named = named_binaries(bin_dir, CPU, (PROGRAM,)) if bin_dir else None
    other = named_binaries(against, CPU, (PROGRAM,)) if against else None
    ours = named or choose_binaries(session, CPU, None)
    ours.require(PROGRAM)
    binaries = {OURS: ours, AGAINST: other} if other else {OURS: ours}
    work = session.layout.builds / "bench" / "attention"
    log = fresh_file(work / "bench.log")
    runners = {name: Runner(found, work, usable_cpus(), log, timed=True) for name, found in binaries.items()}
    measured = []
    for number in range(rounds):
        session.out.say(f"round {number + 1} of {rounds}")
        measured.append(_round(runners, settings, list(runners)[:: 1 if number % 2 == 0 else -1]))
    return AttentionBench(settings, rounds, read_machine(), binaries, log, _cells(measured))


def _require_cells(settings: AttentionSettings) -> None:
    if min(settings.depths) < max(settings.tokens):
        raise UsageMistake(f"{max(settings.tokens)} tokens cannot ask a cache of {min(settings.depths)}")


def _round(runners: Mapping[str, Runner], settings: AttentionSettings, builds: Iterable[str]) -> Round:
    return {
        (build, timing.types, timing.shape): timing
        for build in builds
        for timing in time_attention(runners[build], settings)
    }


def _cells(measured: Sequence[Round]) -> tuple[AttentionCell, ...]:
    """Shapes and caches as they were asked for, of each shape ours first."""
    shapes = list(dict.fromkeys(shape for _, _, shape in measured[0]))
    ordered = sorted(measured[0], key=lambda key: (shapes.index(key[2]), key[0] != OURS))
    return tuple(_cell(measured, key) for key in ordered)


def _cell(measured: Sequence[Round], key: Key) -> AttentionCell:
    build, cache, shape = key
    own = [one[key] for one in measured]
    return AttentionCell(
        build,
        cache,
        shape,
        spread_of(timing.ns_median for timing in own),
        min(timing.ns_min for timing in own),
        median(timing.read_ns_median for timing in own),
        _ratio(measured, key, (build, F16.short, shape)) if cache != F16.short else None,
        _ratio(measured, key, (AGAINST, cache, shape)) if build == OURS else None,
    )


def _ratio(measured: Sequence[Round], key: Key, other: Key) -> Spread | None:
    return spread(one[key].ns_median / one[other].ns_median for one in measured if other in one)
