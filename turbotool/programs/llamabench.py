"""One llama-bench process: what it is asked, and the records that it prints with `-o jsonl`.

Upstream's `tools/llama-bench/llama-bench.cpp`. A test at depth d first fills the cache with d tokens, then measures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turbotool.errors import BinaryFailed, ConfigurationMismatch
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import OPTION, UNCALIBRATED, Calibration, cache_name
from turbotool.kv.effective import Calibrated, parse_effective, uncalibrated
from turbotool.kv.rotation import Knobs
from turbotool.programs.runner import TIMEOUT, Runner, failure, last_lines
from turbotool.system.lines import whole_lines

PROGRAM = "llama-bench"
PREFILL = "pp"
DECODE = "tg"
FLASH_ON = 1
# Upstream rotates quantized caches unless told not to, our build only when told to: without it in both, a cell of one
# computes what the same cell of the other computes.
KNOBS = Knobs(disable=True)
NS = 1e9  # nanoseconds of a second
MS = 1e3


@dataclass(frozen=True)
class Phase:
    """What is timed: `pp` processes a prompt of `tokens` at once, `tg` generates `tokens` one after the other."""

    kind: str
    tokens: int

    def __str__(self) -> str:
        return f"{self.kind}{self.tokens}"

    @property
    def counts(self) -> tuple[int, int]:
        """llama-bench's n_prompt and n_gen."""
        return (self.tokens, 0) if self.kind == PREFILL else (0, self.tokens)


@dataclass(frozen=True)
class BenchPoint:
    """The conditions of one process: the cache, the tokens that it already holds, the threads, and the calibration."""

    pair: CachePair
    depth: int
    threads: int
    calibration: Calibration = UNCALIBRATED

    @property
    def cache(self) -> str:
        return cache_name(self.pair, self.calibration)

    def __str__(self) -> str:
        return f"{self.cache} at depth {self.depth} with {threads_of(self.threads)}"


@dataclass(frozen=True)
class BenchRecord:
    """One line of `-o jsonl`: the parameters as llama-bench read them, and the time of each repetition in ns."""

    commit: str
    gpu: str
    model: str
    k: str
    v: str
    threads: int
    depth: int
    flash: int
    n_prompt: int
    n_gen: int
    ns: tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """One timed phase: how many tokens, in how many nanoseconds."""

    tokens: int
    ns: int

    @property
    def seconds(self) -> float:
        return self.ns / NS

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def ms_per_token(self) -> float:
        return MS * self.seconds / self.tokens


@dataclass(frozen=True)
class Timing:
    """What one process measured, the commit and the GPU that it reports, and its own duration in seconds."""

    samples: Mapping[Phase, Sample]
    commit: str
    gpu: str
    seconds: float


def threads_of(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def parse_records(output: str) -> tuple[BenchRecord, ...]:
    """The records in what llama-bench printed; a line that was cut, or that lacks a field, is none."""
    lines = (line for line in whole_lines(output) if line.startswith("{"))
    return tuple(record for line in lines if (record := _record(line)))


def _record(line: str) -> BenchRecord | None:
    try:
        fields = json.loads(line)
        return BenchRecord(
            commit=_of(str, fields["build_commit"]),
            gpu=_of(str, fields["gpu_info"]),
            model=_of(str, fields["model_filename"]),
            k=_of(str, fields["type_k"]),
            v=_of(str, fields["type_v"]),
            threads=_of(int, fields["n_threads"]),
            depth=_of(int, fields["n_depth"]),
            flash=_of(int, fields["flash_attn"]),
            n_prompt=_of(int, fields["n_prompt"]),
            n_gen=_of(int, fields["n_gen"]),
            ns=tuple(_time(value) for value in _of(list, fields["samples_ns"])),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _of(kind: type, value: Any) -> Any:
    """The value, if it has that type. Older versions write true where newer ones write 1."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return int(value) if isinstance(value, bool) else value


def _time(value: Any) -> int:
    if isinstance(value, int) and 0 < value < 1 << 63:
        return value
    raise ValueError(f"{value!r} is no duration")


def arguments(model: Path, point: BenchPoint, phases: Sequence[Phase]) -> list[str | Path]:
    """The words after the program's name: one repetition of each phase at the point, flash attention on."""
    prompt, generated = (max(phase.counts[side] for phase in phases) for side in (0, 1))
    shape = ["-d", str(point.depth), "-p", str(prompt), "-n", str(generated), "-r", "1"]
    return ["-m", model, "-t", str(point.threads), "-fa", "on", *point.pair.flags, *shape, "-o", "jsonl"]


def differences(record: BenchRecord, model: Path, point: BenchPoint, commit: str) -> list[str]:
    """What a record reports otherwise than it was asked."""
    compared = (
        ("commit", record.commit, commit),
        ("model", record.model, str(model)),
        ("K cache type", record.k, point.pair.k),
        ("V cache type", record.v, point.pair.v),
        ("number of threads", record.threads, point.threads),
        ("depth", record.depth, point.depth),
        ("flash attention", record.flash, FLASH_ON),
        ("number of repetitions", len(record.ns), 1),
    )
    return [f"{name} is {has}, requested {wanted}" for name, has, wanted in compared if has != wanted]


def measure(
    runner: Runner,
    model: Model,
    point: BenchPoint,
    phases: Sequence[Phase],
    *,
    commit: str = "",
    timeout: float = TIMEOUT,
) -> Timing:
    """Run llama-bench once at the point, and refuse what it measured unless it is what was asked.

    `timeout` is in seconds; `commit` is the one that the program must report, if known. Raises BinaryFailed,
    ConfigurationMismatch, ToolFailed when the time is up.
    """
    env = {**KNOBS.environment, **point.calibration.environment}
    done = runner.good(PROGRAM, arguments(model.path, point, phases), env=env, timeout=timeout)
    records = {(record.n_prompt, record.n_gen): record for record in parse_records(done.output)}
    missing = [str(phase) for phase in phases if phase.counts not in records]
    if missing:
        raise BinaryFailed(
            f"{PROGRAM} ended well but reported no {' and no '.join(missing)}\n{last_lines(done.output)}",
            how="no result",
            hint=f"see {done.log}" if done.log else None,
        )
    asked = {phase: records[phase.counts] for phase in phases}
    first = asked[phases[0]]
    require(asked.values(), model.path, point, commit or first.commit)
    samples = {phase: Sample(phase.tokens, record.ns[0]) for phase, record in asked.items()}
    return Timing(samples, first.commit, first.gpu, done.seconds)


def require(records: Iterable[BenchRecord], model: Path, point: BenchPoint, commit: str) -> None:
    """Raise ConfigurationMismatch unless what ran is what was requested."""
    found = dict.fromkeys(text for record in records for text in differences(record, model, point, commit))
    if found:
        raise ConfigurationMismatch(
            f"requested {point}, but {PROGRAM} reports: " + "; ".join(found),
            hint="the result is refused; is it the llama-bench of this build?",
        )


def calibrated(runner: Runner, model: Model, pair: CachePair, calibration: Calibration) -> tuple[Calibrated, ...]:
    """How llama-bench calibrates a cache when it is asked to; what has to be measured for that is kept from then on.

    A run of one token that tells what it does, which one whose speed is measured must not. Raises BinaryFailed, and
    ConfigurationMismatch if it does something else.
    """
    words: list[str | Path] = ["-m", model.path, "-t", str(runner.threads), "-fa", "on", *pair.flags]
    env = {**KNOBS.environment, **calibration.environment}
    done = runner.good(PROGRAM, [*words, "-p", "1", "-n", "0", "-r", "1", "--no-warmup", "-v"], env=env)
    found = parse_effective(done.output).calibrations
    if unlike := uncalibrated(pair, found, calibration):
        raise ConfigurationMismatch(f"{pair.short}: {unlike[0]}", hint=f"see {done.log}" if done.log else None)
    return found


def calibrates(runner: Runner) -> bool:
    """Whether this llama-bench knows of calibrations."""
    return OPTION in runner.plain(PROGRAM, ["-ctk", "f16", "-h"], timeout=60).output


def takes(runner: Runner, cache_type: str) -> bool:
    """Whether this llama-bench knows a cache type: it reads the words in order, and the help comes after the type."""
    done = runner.plain(PROGRAM, ["-ctk", cache_type, "-h"], timeout=60)
    if done.returncode != 0 and "invalid parameter" not in done.output:
        raise failure(PROGRAM, done)
    return done.returncode == 0
