"""The vendored upstream: a git work tree whose first commit, refs/turbotool/base, is the pristine source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.errors import DirtyTree, HashMismatch
from turbotool.layout import Layout
from turbotool.system import git
from turbotool.system.files import scratch_folder, space_guard, sync_folder
from turbotool.system.git import APPLIED_REFS, BASE_REF, PREVIOUS_REF, Git
from turbotool.system.locks import work_lock
from turbotool.system.session import Session
from turbotool.upstream import journal
from turbotool.upstream.lock import Upstream, read_lock, write_upstream
from turbotool.upstream.sources import SOURCES, FetchRequest

LISTED = 20
MESSAGE = "Upstream llama.cpp, as released\n"


@dataclass(frozen=True)
class Vendored:
    """The vendored tree: which upstream it is, where it is, and its base commit; `cached` if it was there already."""

    upstream: Upstream
    path: Path
    base: str
    cached: bool

    @property
    def tree(self) -> str:
        """Git's tree id of the pristine files."""
        return self.upstream.tree


def ensure_vendored(
    session: Session,
    *,
    upstream: Upstream | None = None,
    path: Path | None = None,
    relock: bool = False,
    force: bool = False,
    keep_edits: bool = False,
) -> Vendored:
    """Make `layout.tree` the locked upstream; nothing happens when it already is.

    `upstream` and `path` name another source, which must give the locked tree unless `relock` rewrites the lock.
    `keep_edits` asks only for the right base: edits on top of it are nobody's business then.
    Raises DirtyTree when the tree holds somebody's edits (kept unless `force`), HashMismatch, SourceError,
    ArchiveError, LockError, NoSpace.
    """
    with work_lock(session, "vendor upstream") as held:
        journal.recover(held)
        tree = Git(held.layout.tree, held.keep)
        refs = tree.refs() if (held.layout.tree / ".git").exists() else {}
        locked = read_lock(held.layout, held.out).upstream
        base = refs.get(BASE_REF)
        right = base is not None and tree.tree_of(BASE_REF) == locked.tree
        edits = [] if right and keep_edits else find_edits(held.layout, tree, refs)
        if edits and not force:
            raise dirty(held.layout, edits)
        if edits and right:
            _discard(tree)
        if right and base and upstream is None:
            return Vendored(locked, held.layout.tree, base, cached=True)
        return _materialise(held, wanted=upstream or locked, path=path, locked=locked, relock=relock)


def find_edits(layout: Layout, tree: Git, refs: Mapping[str, str]) -> list[str]:
    """What somebody did in the tree: changed or untracked files, and commits that are not ours."""
    if not layout.tree.exists():
        return []
    if BASE_REF not in refs:
        return [f"?? {item.name}" for item in sorted(layout.tree.iterdir())]
    edits = tree.status()
    ours = {commit for name, commit in refs.items() if name == BASE_REF or name.startswith(APPLIED_REFS)}
    if refs.get("HEAD") not in ours:
        known = [f"^{commit}" for commit in sorted(ours)]
        edits += [f"commit {line}" for line in tree.text("log", "--format=%h %s", "HEAD", *known).splitlines()]
        if not edits:  # HEAD stands on one of our own commits, in the middle of the series
            edits = [f"HEAD at {refs.get('HEAD')}, which is neither the base nor the whole series"]
    return edits


def dirty(layout: Layout, edits: list[str]) -> DirtyTree:
    """The error that lists the edits and says how to keep them or drop them."""
    shown = "\n".join(f"  {line}" for line in edits[:LISTED])
    more = f"\n  and {len(edits) - LISTED} more" if len(edits) > LISTED else ""
    return DirtyTree(
        f"{layout.tree} holds edits, which are kept:\n{shown}{more}",
        hint="commit them there and run `turbotool patch export`; or, to drop them, `turbotool vendor --force`",
    )


def _discard(tree: Git) -> None:
    tree.run("checkout", "--quiet", "--force", "--detach", BASE_REF)
    tree.run("clean", "--quiet", "-ffd")


def _materialise(
    session: Session,
    *,
    wanted: Upstream,
    path: Path | None,
    locked: Upstream,
    relock: bool,
) -> Vendored:
    with scratch_folder(session.layout, "vendor") as scratch:
        session.out.say(f"vendoring llama.cpp {wanted.short} from {wanted.source}")
        folder = scratch / "llama.cpp"
        found = SOURCES[wanted.source](FetchRequest(session, wanted, scratch, path, relock), folder)
        new, tree_id = _commit_pristine(folder, session.keep)
        if tree_id != locked.tree and not relock:
            raise HashMismatch(
                f"the {wanted.source} source has git tree {tree_id}, "
                f"locked is {locked.tree} ({session.layout.lock_file})",
                hint="use the locked source, or repeat the command with --relock to lock this one",
            )
        found = replace(found, tree=tree_id)
        if tree_id == locked.tree:  # what is known of these very files stays known, whichever source gave them now
            found = replace(
                found,
                commit=found.commit or locked.commit,
                tag=found.tag or locked.tag,
                date=found.date or locked.date,
            )
        base = new.text("rev-parse", BASE_REF)
        if not session.layout.tree.exists() or Git(session.layout.tree, session.keep).resolve(BASE_REF) != base:
            _inherit(session.layout, new)
            _swap(session.layout, folder, scratch)
        if relock:
            write_upstream(session.layout, found)
    return Vendored(found, session.layout.tree, base, cached=False)


def _commit_pristine(folder: Path, keep: tuple[int, ...]) -> tuple[Git, str]:
    """Make `folder` a repository whose base is every file in it."""
    with space_guard(folder):
        new = git.init(folder, keep)
    tree_id, commit = commit_files(new, folder, folder / ".git" / "index")
    new.run("update-ref", BASE_REF, commit)
    new.run("checkout", "--quiet", "--detach", BASE_REF)
    return new, tree_id


def commit_files(repository: Git, folder: Path, index: Path) -> tuple[str, str]:
    """Commit every file in `folder`, ignored ones too, through the file `index`; returns ids of tree and commit.

    The commit id depends on the files only.
    """
    env = {"GIT_DIR": str(repository.folder / ".git"), "GIT_WORK_TREE": str(folder), "GIT_INDEX_FILE": str(index)}
    inside = repository.at(folder)
    inside.run("-c", "core.compression=1", "add", "--force", "--all", env=env)
    tree_id = inside.text("write-tree", env=env)
    return tree_id, inside.text("commit-tree", tree_id, stdin=MESSAGE, env=env)


def _inherit(layout: Layout, new: Git) -> None:
    """Keep the objects of the tree that is replaced: patches written for it are merged 3-way from its blobs."""
    old = new.at(layout.tree)
    refs = old.refs() if (layout.tree / ".git").is_dir() else {}
    if BASE_REF not in refs:
        return
    for item in (layout.tree / ".git" / "objects").rglob("*"):
        to = new.folder / ".git" / "objects" / item.relative_to(layout.tree / ".git" / "objects")
        if item.is_file() and not to.exists():
            to.parent.mkdir(parents=True, exist_ok=True)
            os.link(item, to)
    kept = next((commit for name, commit in refs.items() if name.startswith(APPLIED_REFS)), refs[BASE_REF])
    new.run("update-ref", PREVIOUS_REF, kept)


def _swap(layout: Layout, folder: Path, scratch: Path) -> None:
    # Killed between the two renames, there is no tree, and the next run vendors it again.
    with space_guard(layout.tree):
        layout.vendor.mkdir(parents=True, exist_ok=True)
        if layout.tree.exists():
            layout.tree.rename(scratch / "old")
        folder.rename(layout.tree)
        sync_folder(layout.vendor)
