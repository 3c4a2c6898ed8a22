"""Export: the commits on top of the base become the series and the overlay again, the exact inverse of apply."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.errors import DirtyTree, SeriesError
from turbotool.layout import Layout
from turbotool.series import apply, merge
from turbotool.series import files as series
from turbotool.series.patchfile import slug
from turbotool.series.worktree import commit_overlay, work_tree
from turbotool.system.files import scratch_folder
from turbotool.system.git import APPLIED_REFS, BASE_REF, EMAIL, NAME, Git
from turbotool.system.locks import work_lock
from turbotool.system.session import Session
from turbotool.upstream import journal
from turbotool.upstream.journal import Journal
from turbotool.upstream.lock import with_series

FORMAT_PATCH = (
    "--literal-pathspecs",
    "format-patch",
    "--full-index",  # whole blob ids: abbreviations grow with the repository, and a 3-way merge needs them
    "--zero-commit",  # the commit's own id is not part of what the patch says
    "--no-signature",  # git's version would change the bytes
    "--keep-subject",  # no [PATCH n/m], which depends on the neighbours
    "-U3",  # the context that a person may have configured otherwise
    "--diff-algorithm=myers",  # one algorithm, one diff
    "--indent-heuristic",
    "--inter-hunk-context=0",
    "--no-renames",  # a rename found by likeness depends on git's version
    "--no-stat",  # its columns depend on the longest name
    "--binary",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--no-attach",
    "--no-thread",
    "--no-notes",
    "--no-base",
    "--no-cover-letter",
    "--no-encode-email-headers",  # people read the subject in UTF-8
    "--no-numbered",
)
# git writes dates the way RFC 2822 wants; this is DATE in that form.
MAIL_DATE = "Thu, 1 Jan 2026 00:00:00 +0000"


@dataclass(frozen=True)
class Exported:
    """What was written: patch names in order, overlay file names, and git's tree id of the whole."""

    patches: tuple[str, ...]
    overlay: tuple[str, ...]
    tree: str
    changed: bool


def export(session: Session, *, source: Path | None = None) -> Exported:
    """Write patches/, overlay/, series and the lock from the vendored tree, or from the repair work tree `source`.

    Everything is prepared and proved (applying it gives the same tree and messages) before a file is replaced.
    Raises DirtyTree when something is not committed, SeriesError when the commits cannot be a series, NoSpace.
    """
    with work_lock(session, "export the series") as held:
        journal.recover(held)
        tree = Git(held.layout.tree, held.keep)
        origin = tree.at(source.resolve()) if source else tree
        _check(held.layout, tree, origin)
        head = origin.text("rev-parse", "HEAD")
        before = (
            (series.current(held.layout, ""), held.layout.lock_file.read_bytes()) if _readable(held.layout) else None
        )
        with scratch_folder(held.layout, "export") as prepared:
            names, overlay, commits = _prepare(held.layout, tree, head, prepared)
            there = replace(held.layout, root=prepared)
            new = series.current(there, tree.tree_of(head))
            canonical = _prove(held.at(there), tree, head, commits)
            (prepared / "vendor").mkdir()
            (prepared / "vendor" / "lock.toml").write_bytes(with_series(held.layout, new))
            ref = f"{APPLIED_REFS}/{series.combined(new)}"
            tree.run("update-ref", ref, canonical)
            journal.begin(held.layout, Journal(export=journal.Export(str(prepared), canonical)))
            journal.install(held.layout, prepared)
            journal.finish(held.layout)
        apply.adopt(held.layout, tree, canonical, ref)
        if source:
            tree.run("worktree", "remove", "--force", origin.folder)
        changed = before != (series.current(held.layout, ""), held.layout.lock_file.read_bytes())
        return Exported(names, overlay, new.tree, changed)


def _readable(layout: Layout) -> bool:
    try:
        series.current(layout, "")
    except SeriesError:
        return False
    return True


def _check(layout: Layout, tree: Git, origin: Git) -> None:
    """The tree is vendored, `origin` belongs to it, and in neither is anything half done or not committed."""
    if not (layout.tree / ".git").is_dir() or tree.resolve(BASE_REF) is None:
        raise SeriesError(f"nothing is vendored at {layout.tree}", hint="turbotool patch apply")
    if not origin.folder.is_dir():
        raise SeriesError(f"there is no work tree {origin.folder}", hint="turbotool patch apply")
    common = origin.run("rev-parse", "--path-format=absolute", "--git-common-dir", check=False)
    if common.returncode != 0 or Path(common.output.strip()).resolve() != (layout.tree / ".git").resolve():
        raise SeriesError(f"{origin.folder} is not a work tree of {layout.tree}", hint="turbotool patch apply")
    state = origin.folder / origin.text("rev-parse", "--git-path", "rebase-apply")
    if state.exists():
        raise DirtyTree(
            f"git am is not finished in {origin.folder}", hint="finish it there: git am --continue, or git am --skip"
        )
    for place in {tree.folder: tree, origin.folder: origin}.values():
        if edits := place.status():
            shown = "\n".join(f"  {line}" for line in edits[:20])
            raise DirtyTree(
                f"{place.folder} holds what is not committed:\n{shown}",
                hint=f"cd {place.folder} && git add --all && git commit, then turbotool patch export",
            )
    if tree.run("merge-base", "--is-ancestor", BASE_REF, origin.text("rev-parse", "HEAD"), check=False).returncode != 0:
        raise SeriesError(f"{origin.folder}: its history does not start at {BASE_REF}", hint="git rebase onto that ref")


def _prepare(
    layout: Layout, tree: Git, head: str, prepared: Path
) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    """Write patches/ into `prepared`; return patch names, overlay names, and the commits that gave the patches."""
    patches = prepared / "patches"
    patches.mkdir()
    upstream = set(tree.files(BASE_REF))
    names: list[str] = []
    commits: list[str] = []
    for line in tree.text("rev-list", "--reverse", "--parents", f"{BASE_REF}..{head}").splitlines():
        commit, *parents = line.split()
        if len(parents) != 1:
            raise SeriesError(f"{commit} is a merge; a series is a line of commits", hint="git rebase it away")
        changed = tree.names("diff-tree", "-r", "-z", "--no-renames", "--name-only", parents[0], commit)
        if ours := [name for name in changed if name in upstream]:
            names.append(_export_commit(tree, commit, ours, patches, names))
            commits.append(commit)
    overlay = [name for name in tree.files(head) if name not in upstream]
    _export_overlay(tree, head, overlay, prepared)
    (patches / "series").write_text(series.rewritten(layout, names), encoding="utf-8")
    return tuple(names), tuple(overlay), commits


def _export_commit(tree: Git, commit: str, files: Sequence[str], folder: Path, taken: Sequence[str]) -> str:
    subject = tree.text("log", "-1", "--format=%s", commit)
    if not subject.strip():
        raise SeriesError(f"{commit} has no message", hint="git commit --amend, in the vendored tree")
    stem = slug(subject)
    name = next(name for name in _candidates(stem) if name not in taken)
    path = folder / name
    tree.run(*FORMAT_PATCH, "-1", f"--output={path}", commit, "--", *files)
    path.write_bytes(_impersonal(path.read_bytes()))
    return name


def _candidates(stem: str) -> Sequence[str]:
    return [f"{stem}.patch", *(f"{stem}-{number}.patch" for number in range(2, 1000))]


def _impersonal(data: bytes) -> bytes:
    """The patch with the one author and date that all our patches have."""
    head, blank, rest = data.partition(b"\n\n")
    head = re.sub(rb"(?m)^From: .*(\n[ \t].*)*", f"From: {NAME} <{EMAIL}>".encode(), head, count=1)
    head = re.sub(rb"(?m)^Date: .*", f"Date: {MAIL_DATE}".encode(), head, count=1)
    return head + blank + rest


def _export_overlay(tree: Git, head: str, names: Sequence[str], prepared: Path) -> None:
    lines = (line.split("\t", 1) for line in tree.names("ls-tree", "-r", "-z", head))
    modes = {name: about for about, name in lines}
    for name in names:
        if modes[name].split()[0] not in ("100644", "100755"):
            raise SeriesError(
                f"{name} is a link or a submodule; the overlay holds plain files", hint="commit the file itself"
            )
    index = {"GIT_INDEX_FILE": str(prepared / "index")}
    tree.run("read-tree", head, env=index)
    words = ("checkout-index", f"--prefix={prepared}/patches/overlay/", "-z", "--stdin")
    tree.run(*words, stdin="".join(f"{name}\0" for name in names), env=index)


def _prove(there: Session, tree: Git, head: str, commits: Sequence[str]) -> str:
    """Apply what was prepared; it must give the same tree and the same messages. Returns the new last commit."""
    there.out.detail("proving that the exported series gives the same tree")
    patches = series.load(there.layout)
    with work_tree(there.layout, tree, "prove") as scratch:
        commit_overlay(there.layout, scratch)
        first = scratch.text("rev-parse", "HEAD")
        done = scratch.run(*merge.AM, *(patch.path for patch in patches), check=False) if patches else None
        got, wanted = scratch.tree_of("HEAD"), tree.tree_of(head)
        if (done and done.returncode != 0) or got != wanted:
            tail = done.tail if done else ""
            raise SeriesError(
                f"these commits do not survive as patches: applying them gives git tree {got}, not {wanted}\n{tail}",
                hint="let each commit change either files of upstream or our own, and add our own files first",
            )
        made = scratch.text("rev-list", "--reverse", f"{first}..HEAD").split()
        for old, was, now in zip(commits, _messages(tree, commits), _messages(tree, made), strict=True):
            if was != now:
                raise SeriesError(
                    f"the message of {old} does not survive as a patch",
                    hint="take lines like `---`, `diff --git` and a first `From:` out of it; its subject is one line",
                )
        return scratch.text("rev-parse", "HEAD")


def _messages(tree: Git, commits: Sequence[str]) -> list[str]:
    if not commits:
        return []
    words = ("log", "-z", "--no-walk=unsorted", "--format=tformat:%B", *commits)
    return [message.strip() for message in tree.run(*words).output.split("\0")[: len(commits)]]
