"""Scratch work trees of the vendored repository, and the overlay's commit in them."""

from __future__ import annotations

import shutil
from pathlib import Path

from turbotool.errors import SeriesError
from turbotool.layout import Layout
from turbotool.series import files as series
from turbotool.system.files import scratch_folder, space_guard
from turbotool.system.git import BASE_REF, Git

OVERLAY_MESSAGE = "Add the turbotool overlay\n"


class work_tree:  # noqa: N801 - used as a context manager, like those of contextlib
    """A scratch work tree on the base commit; removed at the end unless it was moved away to be repaired."""

    def __init__(self, layout: Layout, tree: Git, purpose: str, base: str = BASE_REF) -> None:
        self.scratch = scratch_folder(layout, purpose)
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
    with space_guard(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, to)
        to.chmod(0o755 if file.executable else 0o644)
