"""Apply the series: one commit for the overlay and one a patch, made in a scratch work tree, swapped in at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from turbotool.errors import HashMismatch, PatchConflict
from turbotool.layout import Layout
from turbotool.series import conflict, merge, needs, repair
from turbotool.series import files as series
from turbotool.series.classify import classify
from turbotool.series.patchfile import Patch
from turbotool.series.worktree import commit_overlay, work_tree
from turbotool.system.git import APPLIED_REFS, BASE_REF, Git
from turbotool.system.locks import work_lock
from turbotool.system.session import Session
from turbotool.upstream import journal
from turbotool.upstream.lock import read_lock, write_series
from turbotool.upstream.tree import ensure_vendored


@dataclass(frozen=True)
class Applied:
    """The patched tree: git's tree id, its commit, whether it was there already, and how many patches it has."""

    tree: str
    head: str
    cached: bool
    patches: int


def ensure_applied(session: Session, *, relock: bool = False, force: bool = False) -> Applied:
    """Make `layout.tree` the locked upstream with the series applied; nothing happens when it already is.

    `relock` writes the series as it is on disk, and its tree, to the lock. `force` drops somebody's edits.
    Raises PatchConflict (with its report), SeriesError, HashMismatch, DirtyTree and what `ensure_vendored` raises.
    """
    with work_lock(session, "apply the series") as held:
        ensure_vendored(held, force=force)
        locked = read_lock(held.layout).series
        here = series.current(held.layout, locked.tree)
        if not relock:
            series.check_locked(held.layout, locked, here)
        tree, ref = Git(held.layout.tree, held.keep), f"{APPLIED_REFS}/{series.combined(here)}"
        refs = tree.refs()
        head = refs.get(ref)
        cached = head is not None and refs["HEAD"] == head
        if head is None:
            head = _apply(held, tree)
        result = tree.tree_of(head)
        if result != locked.tree and not relock:
            raise HashMismatch(
                f"the applied series gives git tree {result}, locked is {locked.tree} ({held.layout.lock_file})",
                hint="turbotool patch apply --relock, if the change is meant",
            )
        if not cached:
            adopt(held.layout, tree, head, ref)
        if relock and (new := series.current(held.layout, result)) != locked:
            write_series(held.layout, new)
        return Applied(result, head, cached, len(here.patches))


def adopt(layout: Layout, tree: Git, head: str, ref: str) -> None:
    """Move the vendored tree to `head` and remember it as ours under `ref`; older results are forgotten."""
    # The ref comes first: a run that is killed in between must find HEAD on a commit that it knows as ours.
    tree.run("update-ref", ref, head)
    journal.move(layout, tree, head)
    for name in tree.refs():
        if name.startswith(APPLIED_REFS) and name != ref:
            tree.run("update-ref", "-d", name)


def _apply(session: Session, tree: Git) -> str:
    patches, there = series.load(session.layout), needs.paths(tree, BASE_REF)
    if not conflict.written_for(session.layout).is_file():  # in an attempt to move the pin they are left out
        needs.require(session.layout, patches, there)
    session.out.say(f"applying the overlay and {len(patches)} patches")
    with work_tree(session.layout, tree, "apply") as scratch:
        commit_overlay(session.layout, scratch)
        if any(needs.missing(patch, there) for patch in patches) or not _apply_exactly(scratch, patches):
            apply_rest(session, tree, scratch, patches, 1)
        return scratch.text("rev-parse", "HEAD")


def _apply_exactly(scratch: Git, patches: Sequence[Patch]) -> bool:
    """The usual case, in one git process: each patch finds the very blobs that it was written for."""
    before = scratch.text("rev-parse", "HEAD")
    if not patches:
        return True
    if scratch.run(*merge.AM, *(patch.path for patch in patches), check=False).returncode == 0:
        raw = scratch.text("log", "--reverse", "--format=", "--raw", "--no-abbrev", "--no-renames", f"{before}..HEAD")
        found = sorted(line.split()[2] for line in raw.splitlines() if line)
        if found == sorted(file.blob for patch in patches for file in patch.files):
            return True
    scratch.run("am", "--abort", check=False)
    merge.reset(scratch, before)
    return False


def apply_rest(
    session: Session, tree: Git, scratch: Git, patches: Sequence[Patch], first: int
) -> list[merge.MergeOutcome]:
    """Apply the patches from the one at position `first` (from 1). Raises PatchConflict at the first that fails.

    A patch about something that upstream does not have is left out, and named.

    `scratch` is then kept, as the place to repair it in, and `repair` remembers where it stands.
    """
    outcomes = []
    there = needs.paths(tree, BASE_REF)
    for position in range(first, len(patches) + 1):
        patch = patches[position - 1]
        if missed := needs.missing(patch, there):
            session.out.warn(f"{patch.name} is left out: {needs.lacks(missed)}")
            outcomes.append(merge.MergeOutcome(merge.ABSENT, needs.lacks(missed)))
            continue
        outcome = merge.apply_patch(scratch, patch)
        if outcome.state == merge.CONFLICT:
            raise _stopped(session.layout, tree, scratch, patches, position, outcome)
        if outcome.state == merge.UPSTREAM:
            session.out.warn(f"{patch.name} can be dropped: {outcome.detail}; upstream has it")
        outcomes.append(outcome)
    return outcomes


def _stopped(
    layout: Layout, tree: Git, scratch: Git, patches: Sequence[Patch], position: int, outcome: merge.MergeOutcome
) -> PatchConflict:
    files = classify(scratch, patches[position - 1], outcome.failing)
    place, begun = repair.keep(layout, tree, scratch, position)
    return conflict.stop(layout, tree, patches, position, files, place, begun=begun)
