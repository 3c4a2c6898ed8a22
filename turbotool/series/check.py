"""Check the series in one pass: how each patch fares, and what is wrong with the series itself."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.errors import HashMismatch, PatchConflict, SeriesError, TurbotoolError
from turbotool.layout import Layout
from turbotool.series import files as series
from turbotool.series.files import Problem
from turbotool.series.trial import Trial, try_patches
from turbotool.system.git import Git
from turbotool.system.locks import work_lock
from turbotool.system.output import Output
from turbotool.upstream.lock import read_lock
from turbotool.upstream.tree import ensure_vendored


@dataclass(frozen=True)
class Checked:
    """All trials in series order and all problems."""

    trials: tuple[Trial, ...]
    problems: tuple[Problem, ...]

    def error(self) -> TurbotoolError | None:
        """The gravest finding: a conflict before a bad series before a series that is not the locked one."""
        conflicts = [trial.name for trial in self.trials if trial.state == "conflict"]
        bad = [problem for problem in self.problems if problem.name != "lock.toml"]
        if conflicts:
            hint = "turbotool patch apply --relock stops at the first one and leaves a work tree to repair it in"
            message = f"{len(conflicts)} of {len(self.trials)} patches do not apply: {', '.join(conflicts)}"
            return PatchConflict(message, hint=hint, report=self.as_json())
        if bad:
            message = f"the series has {len(bad)} problems; the first: {bad[0].name}: {bad[0].message}"
            return SeriesError(message, hint="correct them, then turbotool patch check")
        if self.problems:
            message = "the series is not the locked one: " + "; ".join(item.message for item in self.problems)
            return HashMismatch(message, hint="turbotool patch apply --relock, if the change is meant")
        return None

    def as_json(self) -> dict[str, object]:
        ok = not self.problems and all(trial.state != "conflict" for trial in self.trials)
        problems = [{"name": item.name, "message": item.message} for item in self.problems]
        return {"ok": ok, "patches": [trial.as_json() for trial in self.trials], "problems": problems}


def check_series(layout: Layout, out: Output) -> Checked:
    """Try every patch on the locked base without touching the vendored tree, whatever edits it holds.

    Raises SeriesError when `patches/series` itself cannot be read, and what `ensure_vendored` raises.
    """
    with work_lock(layout, out, "check the series") as keep:
        ensure_vendored(layout, out, keep_edits=True)
        patches, problems = series.problems(layout, read_lock(layout).series)
        trials = {trial.name: trial for trial in try_patches(layout, out, Git(layout.tree, keep), patches)}
        every = (trials.get(name, Trial(name, "conflict", "missing or malformed")) for name in series.names(layout))
        return Checked(tuple(every), tuple(problems))
