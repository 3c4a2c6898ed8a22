"""Check the series in one pass: how each patch fares, and what is wrong with the series itself."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.errors import HashMismatch, PatchConflict, SeriesError, TurbotoolError
from turbotool.series import files as series
from turbotool.series import merge
from turbotool.series.files import Problem
from turbotool.series.trial import Trial, try_patches
from turbotool.system.documents import plain
from turbotool.system.git import Git
from turbotool.system.locks import work_lock
from turbotool.system.session import Session
from turbotool.upstream.lock import read_lock
from turbotool.upstream.tree import ensure_vendored


@dataclass(frozen=True)
class Checked:
    """All trials in series order and all problems."""

    trials: tuple[Trial, ...]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems and all(trial.state != "conflict" for trial in self.trials)

    def error(self) -> TurbotoolError | None:
        """The gravest finding: a conflict before a bad series before a series that is not the locked one."""
        conflicts = [trial.name for trial in self.trials if trial.state == "conflict"]
        bad = [problem for problem in self.problems if problem.name != "lock.toml"]
        if conflicts:
            hint = "turbotool patch apply --relock stops at the first one and leaves a work tree to repair it in"
            message = f"{len(conflicts)} of {len(self.trials)} patches do not apply: {', '.join(conflicts)}"
            return PatchConflict(
                message, hint=hint, report={"patches": plain(self.trials), "problems": plain(self.problems)}
            )
        if bad:
            message = f"the series has {len(bad)} problems; the first: {bad[0].name}: {bad[0].message}"
            return SeriesError(message, hint="correct them, then turbotool patch check")
        if self.problems:
            message = "the series is not the locked one: " + "; ".join(item.message for item in self.problems)
            return HashMismatch(message, hint="turbotool patch apply --relock, if the change is meant")
        return None


def check_series(session: Session) -> Checked:
    """Try every patch on the locked base without touching the vendored tree, whatever edits it holds.

    Raises SeriesError when `patches/series` itself cannot be read, and what `ensure_vendored` raises.
    """
    with work_lock(session, "check the series") as held:
        ensure_vendored(held, keep_edits=True)
        patches, problems = series.problems(held.layout, read_lock(held.layout).series)
        trials = {trial.name: trial for trial in try_patches(held, Git(held.layout.tree, held.keep), patches)}
        every = (
            trials.get(name, Trial(name, "conflict", "missing or malformed")) for name in series.names(held.layout)
        )
        found = tuple(every)
        problems += [Problem(trial.name, f"Needs: {trial.detail}") for trial in found if trial.state == merge.ABSENT]
        return Checked(found, tuple(problems))
