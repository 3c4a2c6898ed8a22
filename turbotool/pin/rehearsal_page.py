"""Rehearsals side by side, as a Markdown page: what each patch meets on each upstream, and where it clashes."""

from __future__ import annotations

from collections.abc import Sequence

from turbotool.pin.rehearse import STATES, Rehearsal
from turbotool.series import merge
from turbotool.series.trial import Trial
from turbotool.upstream.lock import short

INTRO = """\
What the series of this checkout meets on other upstreams, without any edit by hand. clean: every line of the patch
stands as it expects. merged: a 3-way merge places it. upstream: its change is there already. absent: upstream does not
have what it is about, so that it is left out. conflict: the hunks below need a person. A patch after one in conflict is
tried as if that one had been repaired.
"""


def page(rehearsals: Sequence[Rehearsal], command: str, date: str) -> str:
    """The page. `command` makes it again; `date` is the day on which it was made."""
    lines = ["# Rehearsals", "", INTRO, f"Made on {date} by", "", "```sh", command, "```", ""]
    pin = rehearsals[0].old_base if rehearsals else ""
    lines += [
        f"The series is written for llama.cpp `{short(pin)}`. Seconds include fetching, unless cached.",
        "",
    ]
    lines += _totals(rehearsals) + _matrix(rehearsals) + _clashes(rehearsals)
    return "\n".join(lines).rstrip("\n") + "\n"


def _totals(rehearsals: Sequence[Rehearsal]) -> list[str]:
    lines = [f"| upstream | llama.cpp | {' | '.join(STATES)} | seconds |", f"|---|---|{'---:|' * (len(STATES) + 1)}"]
    for done in rehearsals:
        counts = " | ".join(str(sum(trial.state == state for trial in done.trials)) for state in STATES)
        seconds = f"{done.seconds:.0f}{' (cached)' if done.onto.cached else ''}"
        commit = done.onto.upstream.short
        lines.append(f"| {done.ref} | `{commit}` | {counts} | {seconds} |")
    return [*lines, ""]


def _matrix(rehearsals: Sequence[Rehearsal]) -> list[str]:
    lines = [f"| patch | {' | '.join(done.ref for done in rehearsals)} |", f"|---|{'---|' * len(rehearsals)}"]
    for row in zip(*(done.trials for done in rehearsals), strict=True):
        states = " | ".join(f"**{trial.state}**" if trial.state == merge.CONFLICT else trial.state for trial in row)
        lines.append(f"| `{row[0].name.removesuffix('.patch')}` | {states} |")
    return [*lines, ""]


def _clashes(rehearsals: Sequence[Rehearsal]) -> list[str]:
    lines = []
    for done in rehearsals:
        if done.absent:
            lines += [f"## Left out on {done.ref}", ""]
            lines += [
                f"- `{trial.name.removesuffix('.patch')}`: upstream has no `{'`, no `'.join(trial.missing)}`"
                for trial in done.trials
                if trial.missing
            ] + [""]
        failed = [trial for trial in done.trials if trial.state == merge.CONFLICT]
        if failed:
            lines += [f"## Conflicts on {done.ref}", ""]
            lines += [f"- `{trial.name.removesuffix('.patch')}`: {_where(trial)}" for trial in failed] + [""]
    return lines


def _where(trial: Trial) -> str:
    """Each file that fails, with what became of it or the lines of its hunks that clash."""
    said = []
    for file in trial.files:
        hunks = [str(hunk.line) for hunk in file.hunks if hunk.conflict]
        if hunks and file.state in ("file gone", "file moved"):
            said.append(f"`{file.path}` ({file.state})")
        elif hunks:
            said.append(f"`{file.path}` hunk{'s' if len(hunks) > 1 else ''} {', '.join(hunks)}")
    return "; ".join(said) or trial.detail
