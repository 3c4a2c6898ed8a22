"""The one way to run the built programs: a clean environment, a log, a record of what really ran."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from turbotool.errors import BinaryFailed
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import UNCALIBRATED, Calibration
from turbotool.kv.effective import VERBOSE, Effective, parse_effective, require_effective
from turbotool.kv.rotation import OFF, Knobs
from turbotool.programs.binaries import Binaries
from turbotool.system.process import Completed, describe_exit, run

TIMEOUT = 900.0  # seconds; a run that needs longer hangs
SHOWN_LINES = 8
LLAMA_VARIABLES = ("LLAMA_", "GGML_")  # how names of environment variables begin
CACHE_VARIABLE = "LLAMA_CACHE"  # the folder of what programs keep, such as a calibration that they measured
KEPT = "llama-cache"  # in the work folder
THREAD_VARIABLES = ("OMP_", "GOMP_", "KMP_")


@dataclass(frozen=True)
class Run:
    """A finished run of a program with a KV cache: what was asked, what it reports, and what it printed."""

    name: str
    pair: CachePair
    knobs: Knobs
    effective: Effective
    done: Completed
    calibration: Calibration = UNCALIBRATED


def clean_environment(extra: Mapping[str, str], *, timed: bool = False) -> dict[str, str]:
    """This process's environment without the variables that configure llama.cpp, plus `extra`.

    With `timed`, for runs whose speed is measured, the variables that configure its threads are gone as well.
    """
    dropped = (*LLAMA_VARIABLES, *THREAD_VARIABLES) if timed else LLAMA_VARIABLES
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    # Threads that spin at barriers make a run ten times slower as soon as anything else wants a CPU. Where speed is not
    # measured, let them sleep; where it is, that would measure how fast they wake up.
    waiting = {} if timed else {"OMP_WAIT_POLICY": "passive"}
    return {**waiting, **kept, **extra}


def bare_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The variables without which a system itself does not work, plus `extra`."""
    kept = {name: value for name, value in os.environ.items() if name.upper() in ("SYSTEMROOT", "TEMP", "TMP")}
    return {**kept, "PATH": os.defpath, **extra}


@dataclass
class Runner:
    """Runs the programs of one build and keeps every cache run for the check that compares requested and effective.

    `timed`: speed is measured, so the threads of the programs wait as they do by default. When `stop` says so, a run
    ends with Interrupted. `kept` is where the programs keep the calibrations that they measure; those of another build
    must not be there.
    """

    binaries: Binaries
    work: Path
    threads: int
    log: Path | None = None
    runs: list[Run] = field(default_factory=list)
    timed: bool = False
    stop: Callable[[], bool] | None = None
    kept: Path | None = None

    def plain(
        self,
        name: str,
        arguments: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Completed:
        """Run a program to its end, however it ends. Raises ToolMissing, or ToolFailed on timeout."""
        command = [*self.binaries.command(name), *arguments]
        variables = self.environment(env or {})
        return run(command, cwd=self.work, env=variables, log=self.log, timeout=timeout, stop=self.stop, check=False)

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """What the programs find in their environment: whatever their defaults are, no calibration unless asked for."""
        ours = {**UNCALIBRATED.environment, CACHE_VARIABLE: str(self.kept or self.work / KEPT)}
        extra = {**ours, **dict(self.binaries.env), **extra}
        return bare_environment(extra) if self.binaries.bare else clean_environment(extra, timed=self.timed)

    def good(
        self,
        name: str,
        arguments: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Completed:
        """Run a program that must succeed. Raises BinaryFailed with the signal's name or the exit status."""
        done = self.plain(name, arguments, env=env, timeout=timeout)
        if done.returncode != 0:
            raise failure(name, done)
        return done

    def cached(
        self,
        name: str,
        model: Model,
        pair: CachePair,
        arguments: Sequence[str | Path],
        *,
        knobs: Knobs = OFF,
        calibration: Calibration = UNCALIBRATED,
        flash: str = "on",
        timeout: float = TIMEOUT,
    ) -> Run:
        """Run a program with a model and a KV cache, and refuse the result unless the requested cache is what ran.

        Raises BinaryFailed, or ConfigurationMismatch when the log reports another configuration.
        """
        words = [
            "-m",
            model.path,
            "-t",
            str(self.threads),
            "-fa",
            flash,
            "-fit",
            "off",
            *VERBOSE,
            *pair.flags,
            *arguments,
        ]
        env = {**knobs.environment, **calibration.environment}
        done = self.good(name, words, env=env, timeout=timeout)
        result = self.record(name, pair, knobs, done, calibration)
        require_effective(pair, knobs, model, result.effective, calibration)
        return result

    def record(
        self, name: str, pair: CachePair, knobs: Knobs, done: Completed, calibration: Calibration = UNCALIBRATED
    ) -> Run:
        result = Run(name, pair, knobs, parse_effective(done.output), done, calibration)
        self.runs.append(result)
        return result


def last_lines(output: str) -> str:
    """The end of what a program printed, enough to show why it stopped."""
    return "\n".join([line for line in output.splitlines() if line.strip()][-SHOWN_LINES:])


def failure(name: str, done: Completed) -> BinaryFailed:
    how = describe_exit(done.returncode)
    return BinaryFailed(
        f"{name} ended with {how}\n{last_lines(done.output)}",
        how=how,
        hint=f"see {done.log}" if done.log else None,
    )
