"""Apply the series: one commit for the overlay and one a patch, made in a scratch work tree, swapped in at the end."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from turbotool import atomic, conflict, journal, merge, repair, series
from turbotool.errors import HashMismatch, PatchConflict, SeriesError
from turbotool.git import APPLIED_REFS, BASE_REF, Git
from turbotool.layout import Layout
from turbotool.lock import read_lock, write_series
from turbotool.output import Output
from turbotool.patchfile import Patch
from turbotool.vendor import ensure_vendored

OVERLAY_MESSAGE = "Add the turbotool overlay\n"


@dataclass(frozen=True)
class Applied:
    """The patched tree: git's tree id, its commit, whether it was there already, and how many patches it has."""

    tree: str
    head: str
    cached: bool
    patches: int


def ensure_applied(layout: Layout, out: Output, *, relock: bool = False, force: bool = False) -> Applied:
    """Make `layout.tree` the locked upstream with the series applied; nothing happens when it already is.

    `relock` writes the series as it is on disk, and its tree, to the lock. `force` drops somebody's edits.
    Raises PatchConflict (with its report), SeriesError, HashMismatch, DirtyTree and what `ensure_vendored` raises.
    """
    with atomic.work_lock(layout, out, "apply the series") as keep:
        ensure_vendored(layout, out, force=force)
        locked = read_lock(layout).series
        here = series.current(layout, locked.tree)
        if not relock:
            series.check_locked(layout, locked, here)
        tree, ref = Git(layout.tree, keep), f"{APPLIED_REFS}/{series.combined(here)}"
        refs = tree.refs()
        head = refs.get(ref)
        cached = head is not None and refs["HEAD"] == head
        if head is None:
            head = _apply(layout, out, tree)
        result = tree.tree_of(head)
        if result != locked.tree and not relock:
            raise HashMismatch(
                f"the applied series gives git tree {result}, locked is {locked.tree} ({layout.lock_file})",
                hint="turbotool patch apply --relock, if the change is meant",
            )
        if not cached:
            adopt(layout, tree, head, ref)
        if relock and (new := series.current(layout, result)) != locked:
            write_series(layout, new)
        return Applied(result, head, cached, len(here.patches))


def adopt(layout: Layout, tree: Git, head: str, ref: str) -> None:
    """Move the vendored tree to `head` and remember it as ours under `ref`; older results are forgotten."""
    # The ref comes first: a run that is killed in between must find HEAD on a commit that it knows as ours.
    tree.run("update-ref", ref, head)
    journal.move(layout, tree, head)
    for name in tree.refs():
        if name.startswith(APPLIED_REFS) and name != ref:
            tree.run("update-ref", "-d", name)


def _apply(layout: Layout, out: Output, tree: Git) -> str:
    patches = series.load(layout)
    out.say(f"applying the overlay and {len(patches)} patches")
    with work_tree(layout, tree, "apply") as scratch:
        commit_overlay(layout, scratch)
        if not _apply_exactly(scratch, patches):
            apply_rest(layout, out, tree, scratch, patches, 1)
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
    layout: Layout, out: Output, tree: Git, scratch: Git, patches: Sequence[Patch], first: int
) -> list[merge.Outcome]:
    """Apply the patches from the one at position `first` (from 1). Raises PatchConflict at the first that fails.

    `scratch` is then kept, as the place to repair it in, and `repair` remembers where it stands.
    """
    outcomes = []
    for position in range(first, len(patches) + 1):
        patch = patches[position - 1]
        outcome = merge.apply_patch(scratch, patch)
        if outcome.state == merge.CONFLICT:
            raise _stopped(layout, tree, scratch, patches, position, outcome)
        if outcome.state == merge.UPSTREAM:
            out.warn(f"{patch.name} can be dropped: {outcome.detail}; upstream has it")
        outcomes.append(outcome)
    return outcomes


def _stopped(
    layout: Layout, tree: Git, scratch: Git, patches: Sequence[Patch], position: int, outcome: merge.Outcome
) -> PatchConflict:
    files = conflict.classify(scratch, patches[position - 1], outcome.failing)
    place, begun = repair.keep(layout, tree, scratch, position)
    return conflict.stop(layout, tree, patches, position, files, place, begun=begun)


class work_tree:  # noqa: N801 - used as a context manager, like those of contextlib
    """A scratch work tree on the base commit; removed at the end unless it was moved away to be repaired."""

    def __init__(self, layout: Layout, tree: Git, purpose: str, base: str = BASE_REF) -> None:
        self.scratch = atomic.scratch(layout, purpose)
        self.tree = tree
        self.base = base

    def __enter__(self) -> Git:
        folder = self.scratch.__enter__() / "llama.cpp"
        self.tree.run("worktree", "add", "--quiet", "--force", "--detach", folder, self.base)
        return self.tree.at(folder)

    def __exit__(self, *error: object) -> None:
        self.scratch.__exit__(None, None, None)
        self.tree.run("worktree", "prune", check=False)


def commit_overlay(layout: Layout, scratch: Git) -> None:
    """Commit the overlay's files. Raises SeriesError when one would replace a file of upstream."""
    files = series.overlay(layout)
    if not files:
        return
    upstream = set(scratch.files("HEAD"))
    for file in files:
        parents = {parent.as_posix() for parent in Path(file.name).parents}
        if file.name in upstream or parents & upstream or (scratch.folder / file.name).exists():
            raise SeriesError(
                f"{file.path}: upstream has {file.name}; the overlay may only add files",
                hint="rename it, or change upstream's file with a patch",
            )
        _place(file, scratch.folder / file.name)
    scratch.run("add", "--force", "--all")
    scratch.run("commit", "--quiet", "--no-verify", "--message", OVERLAY_MESSAGE)


def _place(file: series.OverlayFile, to: Path) -> None:
    with atomic.space_guard(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, to)
        to.chmod(0o755 if file.executable else 0o644)


@dataclass(frozen=True)
class Trial:
    """How one patch fared: clean, merged (3-way), conflict or upstream; the files tell where a conflict is."""

    name: str
    state: str
    detail: str = ""
    files: tuple[conflict.FileReport, ...] = ()

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "state": self.state,
            "detail": self.detail,
            "files": [file.as_json() for file in self.files],
        }


def try_patches(
    layout: Layout, out: Output, tree: Git, patches: Sequence[Patch], *, base: str = BASE_REF, keep_as: str = ""
) -> list[Trial]:
    """Try every patch in one pass on `base` in a scratch work tree; the caller holds the lock.

    After a patch that fails the rest is tried as if it had been repaired, with its own lines wherever it clashes.
    With `keep_as` that ref keeps the commits, and with them every blob from which later merges start.
    """
    trials: list[Trial] = []
    with work_tree(layout, tree, "check", base) as scratch, out.progress("checking") as step:
        commit_overlay(layout, scratch)
        for done, patch in enumerate(patches):
            step(done, len(patches), patch.name)
            trials.append(_try(scratch, patch))
        if keep_as:
            tree.run("update-ref", keep_as, scratch.text("rev-parse", "HEAD"))
    return trials


def _try(scratch: Git, patch: Patch) -> Trial:
    outcome = merge.apply_patch(scratch, patch)
    if outcome.state != merge.CONFLICT:
        return Trial(patch.name, outcome.state, outcome.detail)
    files = conflict.classify(scratch, patch, outcome.failing)
    merge.assume_repaired(scratch, patch)
    failing = sum(not file.applies for file in files)
    return Trial(patch.name, outcome.state, outcome.detail or f"{failing} of {len(files)} files fail", files)
