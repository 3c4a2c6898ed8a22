"""Random edits to an upstream and to a series: apply is a 3-way merge, or names exactly the hunks that clash.

The judge is git used by hand, on a history of its own: `git rebase` for the tree, `git merge` for single hunks.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tiny_series import QUIET, Project, commit, copy_project, make_project, write

from turbotool.errors import PatchConflict
from turbotool.pin import bump
from turbotool.pin.attempt import find_attempt
from turbotool.pin.bump import give_up
from turbotool.pin.reference import parse_reference
from turbotool.series.apply import ensure_applied
from turbotool.series.export import export
from turbotool.system.git import BASE_REF, Git
from turbotool.system.session import Session

NAMES = ("src/core.cpp", "src/cache.cpp")
SIZE = 40  # lines of each file


@dataclass(frozen=True)
class Edit:
    """Replace `cut` lines from line `at` (from 0) by `lines`."""

    name: str
    at: int
    cut: int
    lines: tuple[str, ...]


# Few different lines, so that the same ones stand in many places: what looks for lines finds the wrong ones then.
LINE = st.sampled_from(["{", "}", "", "return 0;", "new a", "new b", "line 10", "cache 3"])
EDIT = st.builds(Edit, st.sampled_from(NAMES), st.integers(0, SIZE - 1), st.integers(0, 3),
                 st.lists(LINE, max_size=4).map(tuple))  # fmt: skip
# A whole block is copied or moved to another place, the case that a search for lines gets wrong.
MOVE = st.tuples(st.sampled_from(NAMES), st.integers(0, SIZE - 9), st.integers(0, SIZE - 9), st.booleans())
SERIES = st.lists(st.lists(EDIT, min_size=1, max_size=3), min_size=1, max_size=3)
UPSTREAM = st.tuples(st.lists(EDIT, max_size=4), st.lists(MOVE, max_size=1))


def apply_edits(folder: Path, edits: list[Edit]) -> None:
    for edit in edits:
        path = folder / edit.name
        lines = path.read_text().splitlines()
        lines[edit.at : edit.at + edit.cut] = edit.lines
        write(folder, edit.name, "".join(f"{line}\n" for line in lines))


def apply_move(folder: Path, name: str, start: int, to: int, copy: bool) -> None:
    lines = (folder / name).read_text().splitlines()
    block = lines[start : start + 8]
    if not copy:
        del lines[start : start + 8]
    lines[to:to] = block
    write(folder, name, "".join(f"{line}\n" for line in lines))


def by_hand(project: Project, folder: Path) -> tuple[str | None, str]:
    """`git rebase` of the series' commits onto the new upstream, in a repository of its own.

    Returns the tree, or None and the subject of the commit that stops, in `folder`.
    """
    hand = Git(folder)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)  # noqa: S607
    hand.run("fetch", "-q", project.layout.tree, f"+{BASE_REF}:refs/heads/old", "+HEAD:refs/heads/series")
    hand.run("fetch", "-q", project.upstream.folder, "+main:refs/heads/new")
    hand.run("checkout", "-q", "series")
    done = hand.run("rebase", "-q", "--empty=drop", "--no-keep-empty", "--onto", "new", "old", check=False)
    if done.returncode == 0:
        return hand.tree_of("HEAD"), ""
    return None, hand.text("log", "-1", "--format=%s", "REBASE_HEAD")


def hunks_of(patch: Path, name: str) -> list[tuple[int, list[str]]]:
    """First old line and body of each hunk that a patch file has for one file, read without turbotool."""
    part = next(part for part in patch.read_text().split("diff --git ") if part.startswith(f"a/{name} "))
    pieces = re.split(r"^@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@.*\n", part, flags=re.MULTILINE)[1:]
    return [(int(start), body.splitlines()) for start, body in zip(pieces[::2], pieces[1::2], strict=True)]


def clashes(hand: Git, ours: str, parent: str, name: str, start: int, body: list[str]) -> bool:
    """`git merge` of upstream and of the file that this hunk alone gives, both on top of what the patch expects."""
    lines = hand.run("show", f"{parent}:{name}").output.splitlines()
    old = [line[1:] for line in body if line[:1] in (" ", "-")]
    at = max(start - 1, 0) if old else start
    assert lines[at : at + len(old)] == old
    lines[at : at + len(old)] = [line[1:] for line in body if line[:1] in (" ", "+")]
    hand.run("checkout", "-q", "--force", "--detach", parent)
    write(hand.folder, name, "".join(f"{line}\n" for line in lines))
    theirs = commit(hand, "one hunk")
    hand.run("checkout", "-q", "--force", "--detach", ours)
    return hand.run("merge", "-q", "--no-edit", theirs, check=False).returncode != 0


def expected(hand: Git, patch: Path) -> set[tuple[str, int]]:
    """The hunks that clash where the rebase stopped."""
    parent = hand.text("rev-parse", "REBASE_HEAD^")
    ours = hand.text("commit-tree", hand.tree_of("HEAD"), "-p", parent, stdin="upstream\n")
    found = [(name, *hunk) for name in NAMES if f"diff --git a/{name} " in patch.read_text()
             for hunk in hunks_of(patch, name)]  # fmt: skip
    return {(name, start) for name, start, body in found if clashes(hand, ours, parent, name, start, body)}


def reported(error: PatchConflict) -> set[tuple[str, int]]:
    files = (error.report or {})["files"]
    assert isinstance(files, list)
    return {(file["path"], hunk["line"]) for file in files for hunk in file["hunks"] if hunk["conflict"]}


Series = list[list[Edit]]
Upstream = tuple[list[Edit], list[tuple[str, int, int, bool]]]


def check_merge(project: Project, folder: Path, series: Series, upstream: Upstream) -> None:
    edits, moves = upstream
    ensure_applied(project.session)
    for number, group in enumerate(series):
        apply_edits(project.layout.tree, group)
        if project.tree.status():
            project.commit(f"Change {number}")
    export(project.session)
    for move in moves:
        apply_move(project.upstream.folder, *move)
    apply_edits(project.upstream.folder, edits)
    commit(project.upstream, "next release")
    before = (project.snapshot(), project.tree.refs(), project.tree.status())
    tree, subject = by_hand(project, folder / "hand")
    try:
        done = bump.bump(project.session, parse_reference(project.layout, "main"), backend=None)
    except PatchConflict as error:
        assert tree is None, "git merges what is reported as a conflict"
        report = error.report or {}
        assert report["subject"] == subject
        assert (project.snapshot(), project.tree.refs(), project.tree.status()) == before
        patch = project.layout.patches / str(report["patch"])
        assert reported(error) == expected(Git(folder / "hand"), patch)
        assert give_up(project.session) is not None
        assert (project.snapshot(), project.tree.refs(), project.tree.status()) == before
        return
    assert done.tree == tree
    assert project.tree.tree_of("HEAD") == tree
    assert project.tree.status() == []
    assert find_attempt(project.layout) is None
    assert ensure_applied(project.session).cached


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """In memory where the system has a folder for that: a trial runs more than a hundred git commands."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder inside it is a random one
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        ensure_applied(Session(make_project(Path(folder, "project")).layout, QUIET))
        yield Path(folder, "project")


def trial(template: Path, series: Series, upstream: Upstream) -> None:
    with tempfile.TemporaryDirectory(dir=template.parent) as folder:
        check_merge(copy_project(template, Path(folder, "project")), Path(folder), series, upstream)


def checked(trials: int) -> settings:
    # A trial takes a second or more, so that a failing one is reported as it was found.
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    return settings(max_examples=trials, deadline=None, phases=phases, suppress_health_check=list(HealthCheck))


@checked(5)
@given(series=SERIES, upstream=UPSTREAM)
def test_a_bump_is_a_merge_by_hand_or_names_the_hunks_that_clash(
    template: Path, series: Series, upstream: Upstream
) -> None:
    trial(template, series, upstream)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))  # for pytest -n auto to run them side by side
@checked(50)
@given(series=SERIES, upstream=UPSTREAM)
def test_five_hundred_bumps_are_merges_by_hand_or_name_the_hunks_that_clash(
    template: Path, part: int, series: Series, upstream: Upstream
) -> None:
    trial(template, series, upstream)
