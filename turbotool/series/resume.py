"""The ways on from a patch that does not apply: continue with the repaired files, skip the patch, or abort."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from turbotool.errors import DirtyTree, DocumentError, SeriesError
from turbotool.layout import Layout
from turbotool.series import files as series
from turbotool.series import merge, repair
from turbotool.series.apply import apply_rest
from turbotool.series.export import Exported, export
from turbotool.series.patchfile import Patch
from turbotool.series.repair import Repair
from turbotool.system.git import Git
from turbotool.system.locks import work_lock
from turbotool.system.output import Output
from turbotool.system.session import Session
from turbotool.upstream import journal

NOTHING = "no patch is waiting to be repaired"


def resume(session: Session, *, skip: bool = False) -> Exported:
    """Commit what was repaired, or leave the patch out with `skip`, apply the rest and export the whole series.

    Raises PatchConflict when a later patch needs repair, DirtyTree while conflict markers are left, SeriesError when
    there is nothing to continue or the series was changed in the meantime, DocumentError when the record is damaged.
    """
    with work_lock(session, "continue the series") as held:
        journal.recover(held)
        found = _found(held.layout)
        place = found.folder(held.layout)
        patches = series.load(held.layout)
        tree, scratch = Git(held.layout.tree, held.keep), Git(place, held.keep)
        if found.waiting:
            found = _decide(scratch, patches[found.position - 1], found, held.out, skip=skip)
            repair.save(held.layout, found)
        else:  # a run was killed on its way from here
            merge.reset(scratch, found.head)
        apply_rest(held, tree, scratch, patches, found.position)
        done = export(held, source=place)
        repair.forget(tree, place)
        return done


def _found(layout: Layout) -> Repair:
    found = repair.find(layout)
    if found is None:
        raise SeriesError(NOTHING, hint="turbotool patch check")
    if found.series != series.series_hash(layout):
        raise SeriesError(
            f"{layout.patches} was changed since the repair in {found.folder(layout)} began",
            hint="turbotool patch abort, then begin again; or put the patches back",
        )
    last = len(series.names(layout)) + (not found.waiting)
    if not 1 <= found.position <= last:
        raise DocumentError(
            f"the record of the repair in {found.folder(layout)} is damaged: patch {found.position} of {last}",
            hint=repair.ABORT,
        )
    return found


def _decide(scratch: Git, patch: Patch, found: Repair, out: Output, *, skip: bool) -> Repair:
    if skip:
        merge.reset(scratch, found.head)
        out.say(f"left out {patch.name}")
    else:
        _take(scratch, patch, found)
    return replace(found, position=found.position + 1, head=scratch.text("rev-parse", "HEAD"), waiting=False)


def _take(scratch: Git, patch: Patch, found: Repair) -> None:
    """Commit what a person left in the work tree. A commit of their own counts as the patch."""
    changed = scratch.names("diff", "--name-only", "--no-renames", "-z", "HEAD")
    if marks := merge.leftovers(scratch.folder, changed):
        raise DirtyTree(
            f"conflict markers are left in {scratch.folder}:\n" + "\n".join(f"  {mark}" for mark in marks[:20]),
            hint="edit these lines, then turbotool patch continue",
        )
    scratch.run("add", "--all")
    if scratch.run("diff", "--cached", "--quiet", "HEAD", check=False).returncode != 0:
        merge.commit(scratch, patch)
    elif scratch.text("rev-parse", "HEAD") == found.head:
        raise SeriesError(
            f"nothing is changed in {scratch.folder}, so that {patch.name} would be empty", hint="turbotool patch skip"
        )


def abort(session: Session) -> Path:
    """Remove the place of the repair; the series, the lock and the vendored tree stay as they are.

    It does not read the record, and so works when that is damaged. Raises SeriesError when there is nothing to remove.
    """
    with work_lock(session, "abort a repair") as held:
        journal.recover(held)
        place = repair.find_place(held.layout)
        if place is None:
            raise SeriesError(NOTHING, hint="turbotool patch check")
        repair.forget(Git(held.layout.tree, held.keep), place)
        return place
