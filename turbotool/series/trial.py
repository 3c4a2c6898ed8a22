"""Trying patches one after the other, each whatever became of those before it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from turbotool.series import merge, needs
from turbotool.series.classify import FileReport, classify
from turbotool.series.patchfile import Patch
from turbotool.series.worktree import commit_overlay, work_tree
from turbotool.system.git import BASE_REF, Git
from turbotool.system.session import Session


@dataclass(frozen=True)
class Trial:
    """How one patch fared: clean, merged (3-way), conflict, upstream or absent; the files tell where a conflict is.

    A patch is absent, and left out, where upstream does not have the paths that it is about; `missing` are those.
    """

    name: str
    state: str
    detail: str = ""
    files: tuple[FileReport, ...] = ()
    missing: tuple[str, ...] = ()


def try_patches(
    session: Session, tree: Git, patches: Sequence[Patch], *, base: str = BASE_REF, keep_as: str = ""
) -> list[Trial]:
    """Try every patch in one pass on `base` in a scratch work tree; the caller holds the lock.

    After a patch that fails the rest is tried as if it had been repaired, with its own lines wherever it clashes.
    With `keep_as` that ref keeps the commits, and with them every blob from which later merges start.
    """
    trials: list[Trial] = []
    with work_tree(session.layout, tree, "check", base) as scratch, session.out.progress("checking") as step:
        there = needs.paths(scratch, "HEAD")
        commit_overlay(session.layout, scratch)
        for done, patch in enumerate(patches):
            step(done, len(patches), patch.name)
            trials.append(_try(scratch, patch, there))
        if keep_as:
            tree.run("update-ref", keep_as, scratch.text("rev-parse", "HEAD"))
    return trials


def _try(scratch: Git, patch: Patch, there: Collection[str]) -> Trial:
    if missed := needs.missing(patch, there):
        return Trial(patch.name, merge.ABSENT, needs.lacks(missed), missing=missed)
    outcome = merge.apply_patch(scratch, patch)
    if outcome.state != merge.CONFLICT:
        return Trial(patch.name, outcome.state, outcome.detail)
    files = classify(scratch, patch, outcome.failing)
    merge.assume_repaired(scratch, patch)
    failing = sum(not file.applies for file in files)
    return Trial(patch.name, outcome.state, outcome.detail or f"{failing} of {len(files)} files fail", files)
