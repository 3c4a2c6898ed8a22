"""Steps that must not stay half done (moving the tree, export, bump): recorded first, finished by the next run."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import DocumentError
from turbotool.layout import Layout
from turbotool.system.documents import document, encode, read
from turbotool.system.files import remove, scratch_folder, sweep, sync_folder, write_file
from turbotool.system.git import Git
from turbotool.system.session import Session


@dataclass(frozen=True)
class Move:
    """The vendored tree goes from one commit to another."""

    old: str
    new: str


@dataclass(frozen=True)
class Export:
    """The folder `prepared` becomes patches/ and the lock; HEAD of the vendored tree becomes the commit `head`."""

    prepared: str
    head: str


@dataclass(frozen=True)
class Bump:
    """What is below `folder` becomes the pin: patches/ and the lock are in `root`, the vendored tree is `tree`."""

    folder: str
    root: str
    tree: str


@document("journal")
@dataclass(frozen=True)
class Journal:
    """A step that was begun and not ended: one of the three, the other two are null."""

    move: Move | None = None
    export: Export | None = None
    bump: Bump | None = None


def recover(session: Session) -> None:
    """Finish what a killed run had begun and remove its remains. The caller holds the work lock.

    Holding it also means that no git of the killed run lives any more, so that its lock files are stale.
    Raises DocumentError for a journal that is damaged or of a newer version: what was begun stays as it is.
    """
    tree = Git(session.layout.tree, session.keep)
    inside = session.layout.tree / ".git"
    killed = session.layout.state / "lock.killed"
    if killed.exists() and inside.is_dir():  # otherwise a lock file is somebody's own git at work
        for stale in (*inside.glob("*.lock"), *inside.glob("refs/turbotool/**/*.lock")):
            session.out.detail(f"removing {stale}, left by a killed run")
            stale.unlink(missing_ok=True)
    begun = unfinished(session.layout)
    if begun is not None:
        _finish(session, tree, begun)
    finish(session.layout)
    killed.unlink(missing_ok=True)
    if sweep(session.layout) and inside.is_dir():
        tree.run("worktree", "prune")


def _finish(session: Session, tree: Git, begun: Journal) -> None:
    there = (session.layout.tree / ".git").is_dir()
    if begun.move and there:
        session.out.say("finishing a move of the vendored tree that was cut short")
        _finish_move(session.layout, tree, begun.move)
    elif begun.export and Path(begun.export.prepared).is_dir():
        session.out.say("finishing an export that was cut short")
        install(session.layout, Path(begun.export.prepared))
        if there and tree.tree_of("HEAD") == tree.tree_of(begun.export.head):
            tree.run("update-ref", "--no-deref", "HEAD", begun.export.head)
    elif begun.bump and Path(begun.bump.root).is_dir():
        session.out.say("finishing a bump that was cut short")
        _finish_bump(session.layout, begun.bump)


def move(layout: Layout, tree: Git, to: str) -> None:
    """Bring the clean vendored tree to commit `to`, touching only files that differ. The caller holds the work lock."""
    old = tree.text("rev-parse", "HEAD")
    if old == to:
        return
    begin(layout, Journal(move=Move(old, to)))
    tree.run("checkout", "--quiet", "--no-overwrite-ignore", "--detach", to)
    finish(layout)


def _finish_move(layout: Layout, tree: Git, step: Move) -> None:
    # The kill may have left any of these files absent or half written; every other file is left alone, so that its time
    # stamp stays and whatever somebody does to it is seen as an edit.
    changed = tree.names("diff-tree", "-r", "-z", "--no-renames", "--name-only", step.old, step.new)
    there = set(tree.files(step.new))
    tree.run("read-tree", step.new)
    for name in changed:
        if name not in there:
            remove(layout.tree / name)
    wanted = "".join(f"{name}\0" for name in changed if name in there)
    tree.run("checkout-index", "--force", "-z", "--stdin", stdin=wanted)
    tree.run("update-index", "--quiet", "--refresh", check=False)
    tree.run("update-ref", "--no-deref", "HEAD", step.new)


def adopt_bump(layout: Layout, folder: Path, new: Layout) -> None:
    """Make patches, lock and vendored tree of `new`, all below `folder`, those of `layout`, and remove `folder`.

    The caller holds the work lock and has checked that nothing of anybody's is in the vendored tree.
    """
    step = Bump(str(folder), str(new.root), str(new.tree))
    begin(layout, Journal(bump=step))
    _finish_bump(layout, step)
    finish(layout)


def _finish_bump(layout: Layout, step: Bump) -> None:
    install(layout, Path(step.root))
    tree = Path(step.tree)
    if tree.is_dir():  # otherwise it is in its place already
        discard(layout, layout.tree)
        layout.tree.parent.mkdir(parents=True, exist_ok=True)
        tree.rename(layout.tree)
        sync_folder(layout.tree.parent)
    discard(layout, Path(step.folder))


def discard(layout: Layout, folder: Path) -> None:
    """Remove a folder as a whole: killed half way, the rest of it is where every run sweeps."""
    if folder.exists():
        with scratch_folder(layout, "discarded") as scratch:
            folder.rename(scratch / folder.name)


def install(layout: Layout, prepared: Path) -> None:
    """Put a prepared export in place: new content first, what is no longer listed last. Safe to repeat."""
    for item in sorted((prepared / "patches").rglob("*")):
        if item.is_file():
            goal = layout.patches / item.relative_to(prepared / "patches")
            if goal.is_dir():  # a former folder of the overlay
                shutil.rmtree(goal)
            mode = 0o755 if item.stat().st_mode & 0o100 else 0o644
            if (
                not goal.is_file()
                or goal.read_bytes() != item.read_bytes()
                or (goal.stat().st_mode & 0o100) != (mode & 0o100)
            ):
                write_file(goal, item.read_bytes(), mode)
    lock = (prepared / "vendor" / "lock.toml").read_bytes()
    if layout.lock_file.read_bytes() != lock:
        write_file(layout.lock_file, lock)
    kept = {item.relative_to(prepared / "patches") for item in (prepared / "patches").rglob("*")}
    stale = [item for item in layout.overlay.rglob("*") if not item.is_dir()] + list(layout.patches.glob("*.patch"))
    for item in stale:
        if item.relative_to(layout.patches) not in kept and item.name != ".gitkeep":
            item.unlink(missing_ok=True)
    for folder in sorted((item for item in layout.overlay.rglob("*") if item.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def journal_file(layout: Layout) -> Path:
    return layout.state / "journal.json"


def begin(layout: Layout, step: Journal) -> None:
    """Record, durably, what is about to happen."""
    write_file(journal_file(layout), encode(step))


def unfinished(layout: Layout) -> Journal | None:
    """What a killed run had begun, or None. Raises DocumentError if the journal does not tell, and what to do then."""
    file = journal_file(layout)
    if not file.exists():
        return None
    hint = (
        f"a run was killed in the middle of a step: look at {layout.tree} and {layout.patches} with git status and put"
        f" right what is half done; then it is safe to remove {file}, and the command can be run again"
    )
    begun = read(file, Journal, hint=hint)
    steps = [step for step in (begun.move, begun.export, begun.bump) if step is not None]
    if len(steps) != 1:
        raise DocumentError(f"{file} names {len(steps)} steps instead of one", hint=hint)
    return begun


def finish(layout: Layout) -> None:
    journal_file(layout).unlink(missing_ok=True)
