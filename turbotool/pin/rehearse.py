"""Rehearse: try the series on another upstream, in the cache, and say what a bump would meet."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

from turbotool.errors import PatchConflict
from turbotool.layout import Layout
from turbotool.pin import candidates
from turbotool.pin.reference import Reference
from turbotool.series import conflict, merge
from turbotool.series import files as series
from turbotool.series.classify import FileReport
from turbotool.series.patchfile import Patch
from turbotool.series.trial import Trial, try_patches
from turbotool.system.documents import plain
from turbotool.system.git import Git
from turbotool.system.locks import work_lock
from turbotool.system.session import Session
from turbotool.upstream import journal
from turbotool.upstream.lock import read_lock

SERIES_REFS = "refs/turbotool/series"


@dataclass(frozen=True)
class ClashingPatch:
    """A patch that needs repair: which it is, why it exists, what of it fails, and who comes after."""

    patch: str
    position: int
    of: int
    subject: str
    reason: str
    drop_when: str
    old_base: str
    new_base: str
    files: tuple[FileReport, ...]
    later: tuple[conflict.LaterPatch, ...]


@dataclass(frozen=True)
class Rehearsal:
    """How each patch fared on `onto`; `seconds` is the time of everything, fetching included unless `cached`."""

    onto: candidates.Pristine
    ref: str
    old_base: str
    trials: tuple[Trial, ...]
    patches: tuple[Patch, ...]
    seconds: float

    @property
    def droppable(self) -> tuple[str, ...]:
        return tuple(trial.name for trial in self.trials if trial.state == merge.UPSTREAM)

    @property
    def absent(self) -> tuple[str, ...]:
        """The patches about something that this upstream does not have."""
        return tuple(trial.name for trial in self.trials if trial.state == merge.ABSENT)

    def error(self) -> PatchConflict | None:
        """The error with its report if some patches conflict, else None."""
        names = [trial.name for trial in self.trials if trial.state == merge.CONFLICT]
        if not names:
            return None
        message = f"{len(names)} of {len(self.trials)} patches need repair on {self.ref}: {', '.join(names)}"
        hint = f"turbotool vendor bump {shlex.quote(self.ref)} stops at the first one, in a work tree to repair it in"
        return PatchConflict(message, hint=hint, report={"conflicts": plain(self.conflicts())})

    def conflicts(self) -> tuple[ClashingPatch, ...]:
        """Each patch that needs repair."""
        return tuple(
            ClashingPatch(
                patch=trial.name,
                position=at,
                of=len(self.trials),
                subject=patch.subject,
                reason=patch.reason,
                drop_when=patch.trailers.get("Drop-when", ""),
                old_base=self.old_base,
                new_base=self.onto.upstream.known_as,
                files=trial.files,
                later=tuple(conflict.later(self.patches, at)),
            )
            for at, (trial, patch) in enumerate(zip(self.trials, self.patches, strict=True), 1)
            if trial.state == merge.CONFLICT
        )


def rehearse(session: Session, reference: Reference) -> Rehearsal:
    """Try each patch on the upstream that `reference` names. The lock and the vendored tree are only read.

    Raises SeriesError when the series cannot be read or its overlay meets a file of upstream, and what fetching raises.
    """
    started = time.monotonic()
    patches = series.load(session.layout)
    with work_lock(candidates.store(session), "rehearse the series") as there:
        journal.recover(there)
        onto = candidates.pristine(there, reference.upstream, reference.path)
        know_series(session.layout, there, patches)
        trials = try_patches(there, Git(there.layout.tree, there.keep), patches, base=onto.base)
    locked = read_lock(session.layout).upstream
    taken = time.monotonic() - started
    return Rehearsal(onto, reference.text, locked.known_as, tuple(trials), patches, taken)


def know_series(layout: Layout, there: Session, patches: Sequence[Patch]) -> tuple[candidates.Pristine, str]:
    """Apply the series to its own upstream once, for the blobs that merges start from; returns the pin and the ref."""
    pin = candidates.pin(layout, there)
    repo, ref = (
        Git(there.layout.tree, there.keep),
        f"{SERIES_REFS}/{series.series_hash(layout)}-{pin.upstream.tree[:12]}",
    )
    if repo.resolve(ref) is None:
        there.out.say("applying the series to its own upstream first")
        try_patches(there.quietly(), repo, patches, base=pin.base, keep_as=ref)
    return pin, ref


def lines(rehearsal: Rehearsal) -> list[str]:
    """What happened, for people: one line a patch, and for each conflict what fails and why."""
    found = []
    for at, (trial, patch) in enumerate(zip(rehearsal.trials, rehearsal.patches, strict=True), 1):
        detail = f"  ({trial.detail})" if trial.detail else ""
        found.append(f"{trial.state:<9} {at:>2} of {len(rehearsal.trials)}  {trial.name}{detail}")
        if trial.state == merge.CONFLICT:
            found.append(f"          {patch.reason or 'no reason'}: {patch.subject}")
            found += conflict.lines_of(trial.files, " " * 10)
            for other in conflict.later(rehearsal.patches, at):
                found.append(f"          a later patch touches the same files: {other.patch}")
    up = rehearsal.onto.upstream
    counts = {state: sum(trial.state == state for trial in rehearsal.trials) for state in STATES}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    found.append(f"{candidates.describe(up)} ({up.short}): {said or 'no patches'}")
    if rehearsal.error():
        found.append("a patch after one in conflict was tried as if that one had been repaired")
    found += [f"can be dropped, upstream has it: {name}" for name in rehearsal.droppable]
    found += [f"left out, {trial.detail}: {trial.name}" for trial in rehearsal.trials if trial.missing]
    return found


STATES = (merge.CLEAN, merge.MERGED, merge.UPSTREAM, merge.ABSENT, merge.CONFLICT)
