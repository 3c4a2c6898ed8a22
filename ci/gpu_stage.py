"""One stage of a proof: a command with a time limit, what it printed, and what is made of that.

Needs only the standard library: it also runs on a machine where nothing is installed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHORTEST = 5.0  # seconds; with less left a stage is not begun
GRACE = 5.0  # seconds from asking a stage to end to ending it
TAIL_LINES = 40
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
PASSED, FAILED, TIMED_OUT, SKIPPED, NOT_RUN = "passed", "failed", "timed out", "skipped", "not run"


@dataclass(frozen=True)
class Printed:
    """What a command printed on each stream, without colours."""

    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return [*self.stdout.splitlines(), *self.stderr.splitlines()]


@dataclass(frozen=True)
class Found:
    """Figures in what was printed. `fault` says why the stage does not pass although the command succeeds.

    `skipped` says why there was nothing to test, which is neither.
    """

    figures: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""
    skipped: str = ""


@dataclass(frozen=True)
class Stage:
    """A command. It may take `limit` seconds, and earlier stages leave it `least`; `needs` are files without which it
    cannot run, and `blocked` says why else it cannot.
    """

    name: str
    command: tuple[str, ...]
    limit: float
    least: float
    read: Callable[[Printed], Found] = lambda printed: Found()
    needs: tuple[Path, ...] = ()
    blocked: str = ""


@dataclass(frozen=True)
class Result:
    """How a stage went: one row of the document. `exit_code` is negative for a signal, None if the command did not end
    by itself; seconds are wall time.
    """

    name: str
    status: str
    reason: str
    command: str
    seconds: float
    limit_seconds: float
    exit_code: int | None
    figures: Mapping[str, Any]
    tail: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.status in (PASSED, SKIPPED)


def run_stages(
    stages: Sequence[Stage], seconds: float, logs: Path, *, cwd: Path, env: Mapping[str, str]
) -> Iterator[Result]:
    """Run the stages in `seconds` altogether and yield each result; none keeps a later one from running."""
    end = time.monotonic() + seconds
    for number, stage in enumerate(stages):
        reserved = sum(later.least for later in stages[number + 1 :])
        left = end - time.monotonic() - reserved
        yield run_stage(stage, min(stage.limit, max(left, stage.least, 0)), end, logs, cwd=cwd, env=env)


def run_stage(stage: Stage, allowed: float, end: float, logs: Path, *, cwd: Path, env: Mapping[str, str]) -> Result:
    """Run one stage for at most `allowed` seconds and not beyond `end` of the monotonic clock; it logs to `logs`."""
    allowed = min(allowed, end - time.monotonic())
    if lacking := [path for path in stage.needs if not path.exists()]:
        return _not_run(stage, allowed, f"there is no {', '.join(path.name for path in lacking)}")
    if stage.blocked:
        return _not_run(stage, allowed, stage.blocked)
    if allowed < min(SHORTEST, stage.limit):
        return _not_run(stage, allowed, "no time is left")
    started = time.monotonic()
    code, printed = _execute(stage, allowed, logs, cwd, env)
    found = stage.read(printed)
    status, reason = _verdict(code, found, allowed)
    tail = () if status == PASSED else tuple(printed.lines[-TAIL_LINES:])
    seconds = round(time.monotonic() - started, 2)
    return Result(
        stage.name, status, reason, shlex.join(stage.command), seconds, round(allowed, 1), code, found.figures, tail
    )


def _not_run(stage: Stage, allowed: float, why: str) -> Result:
    limit = round(max(allowed, 0.0), 1)
    return Result(stage.name, NOT_RUN, why, shlex.join(stage.command), 0.0, limit, None, {}, ())


def _verdict(code: int | None, found: Found, allowed: float) -> tuple[str, str]:
    if code is None:
        return TIMED_OUT, f"it did not end within {allowed:.0f} s"
    if code != 0:
        return FAILED, "; ".join(filter(None, (f"exit code {code}", found.fault)))
    if found.fault:
        return FAILED, found.fault
    return (SKIPPED, found.skipped) if found.skipped else (PASSED, "")


def _execute(stage: Stage, allowed: float, logs: Path, cwd: Path, env: Mapping[str, str]) -> tuple[int | None, Printed]:
    """The exit code, None if the time was up, and what was printed until then."""
    out, err = logs / f"{stage.name}.stdout", logs / f"{stage.name}.stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        try:
            # a session of its own, so that compilers and servers below it end with it
            child = subprocess.Popen(
                stage.command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        except OSError as error:
            return 127, Printed("", f"{stage.command[0]}: {error.strerror}")
        code: int | None = None
        try:
            code = child.wait(allowed)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end(child)
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in (out, err))
    return code, Printed(*(COLOURS.sub("", text) for text in texts))


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what is left of the child's process group: first asked, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
