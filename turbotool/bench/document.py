"""A benchmark as one JSON document, and as one that may be shown to others: it names no folder of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msgspec import UNSET, UnsetType

from turbotool.bench.figures import BenchCell, Spread, make_cells
from turbotool.bench.plan import BenchPlan, Build
from turbotool.bench.rounds import BenchLedger, verdict
from turbotool.kv.effective import Calibrated
from turbotool.programs.llamabench import KNOBS
from turbotool.report import private
from turbotool.report.document import rounded
from turbotool.system import documents
from turbotool.system.documents import ErrorFields, error_fields
from turbotool.system.machine import Machine

DIGITS = 6  # significant ones; repeated runs differ far above them
UNITS = {
    "samples, median, min, max": "tokens/s",
    "ms_per_token": "ms",
    "ns_per_cached_token": "ns that each cached token adds to a decoded one",
    "ratio_f16": "speed over that of f16 on the same build at the same depth and threads, median of ratios in a round",
    "ratio_against": "speed of ours over that of against in the same cell, median of ratios in a round",
}


@dataclass(frozen=True)
class Subject:
    """What a report is about, apart from its figures: plan, machine and the command that was typed."""

    plan: BenchPlan
    machine: Machine
    command: str


@dataclass(frozen=True, kw_only=True)
class MeasuredBuild:
    """A build that is measured: `tree` is git's id of the tree that it was built from, `commit` what it reports.

    One that knows nothing of calibrations (`calibrates`) has uncalibrated caches, whatever a cell was asked to have.
    """

    name: str
    bin_dir: str | UnsetType = UNSET
    backend: str
    tree: str | None
    commit: str
    calibrates: bool


@dataclass(frozen=True)
class BenchMachine(Machine):
    """The machine with the GPU that llama-bench reports; empty if there is none."""

    gpu: str


@dataclass(frozen=True)
class BenchSettingFields:
    """What was measured: caches, depths in tokens, threads, phases (`pp256`, `tg16`), rounds, and how many are done."""

    kv: tuple[str, ...]
    depths: tuple[int, ...]
    threads: tuple[int, ...]
    tests: tuple[str, ...]
    rounds: int
    rounds_done: int
    flash_attn: str
    environment: dict[str, str]
    calibration: tuple[str, ...]


@dataclass(frozen=True)
class BenchCellFields:
    """One phase of one cache at a depth and a number of threads; median, least and most over rounds.

    Speed in tokens/s, `ns_per_cached_token` what each token in the cache adds to the time of a decoded one. Ratios are
    taken within a round; above 1 this cell is the faster one. A figure is null where nothing was measured, or nothing
    that it can be compared with.
    """

    build: str
    k: str
    v: str
    depth: int
    threads: int
    test: str
    calibration: str
    median: float | None
    min: float | None
    max: float | None
    samples: tuple[float | None, ...]
    ms_per_token: float | None
    ns_per_cached_token: float | None
    ns_per_cached_token_min: float | None
    ns_per_cached_token_max: float | None
    ratio_f16: float | None
    ratio_f16_min: float | None
    ratio_f16_max: float | None
    ratio_against: float | None
    ratio_against_min: float | None
    ratio_against_max: float | None
    failure: str | None


@dataclass(frozen=True)
class SkippedFields:
    """A cache that a build cannot have, and why."""

    build: str
    k: str
    v: str
    reason: str


@dataclass(frozen=True)
class FailureFields:
    """A cell that failed, and in which round (from 1)."""

    build: str
    k: str
    v: str
    depth: int
    threads: int
    calibration: str
    round: int
    error: ErrorFields


@dataclass(frozen=True)
class BenchCalibration:
    """How a build calibrates a cache that it was asked to calibrate so (off, auto or a file's name), in its own words.

    They are of a run of one token: the hash is that of its context.
    """

    build: str
    k: str
    v: str
    calibration: str
    said: tuple[Calibrated, ...]


@documents.document("bench")
@dataclass(frozen=True, kw_only=True)
class BenchDocument:
    """Speed of KV caches, in the units that `units` names; `complete` if every round was run.

    `model` is its path, or its name in what is shown to others, where other folders of the machine are left out.
    """

    ok: bool
    complete: bool
    model: str
    builds: tuple[MeasuredBuild, ...]
    machine: BenchMachine
    settings: BenchSettingFields
    command: str
    units: dict[str, str]
    cells: tuple[BenchCellFields, ...]
    skipped: tuple[SkippedFields, ...]
    failures: tuple[FailureFields, ...]
    calibrations: tuple[BenchCalibration, ...]
    log: str | UnsetType = UNSET
    error: ErrorFields | UnsetType = UNSET


def document(subject: Subject, ledger: BenchLedger) -> BenchDocument:
    """The document of `turbotool bench --json`, of what was measured so far."""
    plan = subject.plan
    complete = ledger.rounds == plan.settings.rounds
    failed = verdict(plan, ledger)
    return BenchDocument(
        ok=complete and failed is None,
        complete=complete,
        model=str(plan.model.path),
        builds=tuple(map(_build, plan.builds)),
        machine=BenchMachine(**vars(subject.machine), gpu=plan.builds[0].warm.gpu),
        settings=_settings(plan, ledger),
        command=subject.command,
        units=UNITS,
        cells=tuple(map(cell_fields, make_cells(plan, ledger))),
        skipped=tuple(SkippedFields(one.build, one.pair.k, one.pair.v, one.reason) for one in plan.skipped),
        failures=_failures(ledger),
        calibrations=tuple(_calibrations(plan)),
        log=str(plan.builds[0].runner.log),
        error=error_fields(failed) if failed else UNSET,
    )


def _build(build: Build) -> MeasuredBuild:
    binaries = build.runner.binaries
    return MeasuredBuild(
        name=build.name,
        bin_dir=str(binaries.bin_dir),
        backend=binaries.backend,
        tree=binaries.tree or None,
        commit=build.warm.commit,
        calibrates=build.calibrated is not None,
    )


def _calibrations(plan: BenchPlan) -> Iterator[BenchCalibration]:
    for build in plan.builds:
        for (pair, asked), said in (build.calibrated or {}).items():
            yield BenchCalibration(build.name, pair.k, pair.v, str(asked), said)


def _settings(plan: BenchPlan, ledger: BenchLedger) -> BenchSettingFields:
    settings = plan.settings
    return BenchSettingFields(
        kv=tuple(map(str, settings.pairs)),
        depths=settings.depths,
        threads=settings.threads,
        tests=tuple(map(str, settings.phases)),
        rounds=settings.rounds,
        rounds_done=ledger.rounds,
        flash_attn="on",
        environment=dict(KNOBS.environment),
        calibration=tuple(map(str, settings.calibrations)),
    )


def cell_fields(cell: BenchCell) -> BenchCellFields:
    """A cell with its figures rounded to DIGITS significant digits."""
    point = cell.job.point
    return BenchCellFields(
        build=cell.job.build,
        k=point.pair.k,
        v=point.pair.v,
        depth=point.depth,
        threads=point.threads,
        test=str(cell.phase),
        calibration=str(point.calibration),
        **_figures(cell.speed, "median", "min", "max"),
        samples=tuple(rounded(one, DIGITS) for one in cell.samples),
        ms_per_token=rounded(cell.ms_per_token, DIGITS),
        **_named("ns_per_cached_token", cell.cached_token),
        **_named("ratio_f16", cell.ratio_f16),
        **_named("ratio_against", cell.ratio_against),
        failure=cell.failure,
    )


def _named(name: str, found: Spread | None) -> dict[str, float | None]:
    return _figures(found, name, f"{name}_min", f"{name}_max")


def _figures(found: Spread | None, *names: str) -> dict[str, float | None]:
    values = (found.median, found.minimum, found.maximum) if found else (None, None, None)
    return {name: rounded(value, DIGITS) for name, value in zip(names, values, strict=True)}


def _failures(ledger: BenchLedger) -> tuple[FailureFields, ...]:
    return tuple(
        FailureFields(
            build=job.build,
            k=job.point.pair.k,
            v=job.point.pair.v,
            depth=job.point.depth,
            threads=job.point.threads,
            calibration=str(job.point.calibration),
            round=failure.round + 1,
            error=error_fields(failure.error),
        )
        for job, failure in ledger.failures.items()
    )


def shareable(subject: Subject, ledger: BenchLedger) -> BenchDocument:
    """The document without folders of this machine, and of each message only the line that says what happened."""
    return private.shareable(document(subject, ledger), path_names(subject.plan))


def path_names(plan: BenchPlan) -> dict[str, str]:
    """What stands in place of the paths of model, calibrations, builds and work folder."""
    files = [plan.model.path, *(one.path for one in plan.settings.calibrations if one.path)]
    names = {str(path): path.name for path in files}
    for build in plan.builds:
        names |= {str(build.runner.binaries.bin_dir): build.name, str(build.runner.work): "work"}
    return names
