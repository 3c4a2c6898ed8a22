"""The conflict report: what of a patch fails and why, who comes after it, and how and where to repair it."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from turbotool.errors import PatchConflict
from turbotool.git import BASE_REF, Git
from turbotool.layout import Layout
from turbotool.lock import read_lock
from turbotool.patchfile import FileDiff, Hunk, Patch
from turbotool.series import series_hash

APPLIES, MOVED, FILE_MOVED, GONE, UPSTREAM = "applies", "context moved", "file moved", "file gone", "already upstream"
ALIKE = 0.6  # below this ratio two groups of lines have nothing to do with each other
SEARCHED = 20_000  # lines of a file that the search for the nearest place looks at, to bound its time


@dataclass(frozen=True)
class HunkReport:
    """One hunk: its line in the old file, its class, and where the same lines are now."""

    line: int
    state: str
    detail: str = ""

    def as_json(self) -> dict[str, object]:
        return {"line": self.line, "state": self.state, "detail": self.detail}


@dataclass(frozen=True)
class FileReport:
    """One file of a failing patch. `unmerged` says that git's index holds both sides of it."""

    path: str
    state: str
    detail: str
    unmerged: bool
    hunks: tuple[HunkReport, ...]

    @property
    def applies(self) -> bool:
        return self.state == APPLIES and not self.unmerged

    def as_json(self) -> dict[str, object]:
        hunks = [hunk.as_json() for hunk in self.hunks]
        return {
            "path": self.path,
            "state": self.state,
            "detail": self.detail,
            "unmerged": self.unmerged,
            "hunks": hunks,
        }


def position(scratch: Git) -> int | None:
    """The number, from 1, of the patch at which `git am` stopped, or None when it never began."""
    state = Path(scratch.text("rev-parse", "--git-path", "rebase-apply"))
    try:
        return int((scratch.folder / state / "next").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def classify(scratch: Git, patch: Patch) -> tuple[FileReport, ...]:
    """Every file and hunk of a patch that `git am` just refused in `scratch`, whose HEAD is the state before it."""
    unmerged = _unmerged(scratch.folder)
    there = scratch.files("HEAD")
    return tuple(_file(scratch, file, there, file.path in unmerged) for file in patch.files)


def _unmerged(folder: Path) -> set[str]:
    """Paths of which the index holds both sides: git's text on conflicts changes, its index does not."""
    import git

    with git.Repo(folder) as repository:
        return {str(path) for path in repository.index.unmerged_blobs()}


def _file(scratch: Git, file: FileDiff, there: Sequence[str], unmerged: bool) -> FileReport:
    if file.created:
        state = MOVED if file.path in there else APPLIES
        return FileReport(file.path, state, "the file exists already" if state == MOVED else "", unmerged, ())
    if file.path not in there:
        return _absent(scratch, file, there, unmerged)
    now = scratch.run("show", f"HEAD:{file.path}").output.split("\n")
    hunks = tuple(_hunk(hunk, now) for hunk in file.hunks)
    states = {hunk.state for hunk in hunks}
    state = next((state for state in (MOVED, UPSTREAM) if state in states), APPLIES)
    return FileReport(file.path, state, "", unmerged, hunks)


def _absent(scratch: Git, file: FileDiff, there: Sequence[str], unmerged: bool) -> FileReport:
    """Gone or moved: a file with the same content, or with the same name in which the hunks' lines are."""
    by_blob = [line.split("\t", 1) for line in scratch.names("ls-tree", "-r", "-z", "HEAD")]
    target = next((name for about, name in by_blob if file.blob and about.split()[2].startswith(file.blob)), None)
    name = PurePosixPath(file.path).name
    for other in (other for other in there if target is None and PurePosixPath(other).name == name):
        now = scratch.run("show", f"HEAD:{other}").output.split("\n")
        if any(_hunk(hunk, now).state != MOVED or _hunk(hunk, now).detail for hunk in file.hunks):
            target = other
            break
    state, detail = (FILE_MOVED, f"it is {target} now") if target else (GONE, "no file of that name or content is left")
    return FileReport(file.path, state, detail, unmerged, tuple(HunkReport(hunk.start, state) for hunk in file.hunks))


def _hunk(hunk: Hunk, now: Sequence[str]) -> HunkReport:
    lines = [line.rstrip("\r") for line in now]
    before = [line.rstrip("\r") for line in hunk.before]
    after = [line.rstrip("\r") for line in hunk.after]
    if (line := _find(before, lines, hunk.start)) is not None:
        return HunkReport(hunk.start, APPLIES, "" if line == hunk.start else f"at line {line}")
    if (line := _find(after, lines, hunk.start)) is not None:
        return HunkReport(hunk.start, UPSTREAM, f"its result is at line {line}")
    place = _nearest(before, lines)
    return HunkReport(hunk.start, MOVED, f"the nearest lines are at line {place}, but differ" if place else "")


def _find(wanted: list[str], lines: list[str], near: int) -> int | None:
    """The line, from 1 and nearest to `near`, at which all the wanted lines stand."""
    size = len(wanted)
    if not size:
        return None
    hits = [i + 1 for i in range(len(lines) - size + 1) if lines[i] == wanted[0] and lines[i : i + size] == wanted]
    return min(hits, key=lambda line: abs(line - near), default=None)


def _nearest(wanted: list[str], lines: list[str]) -> int | None:
    """The line, from 1, at which most of the wanted lines stand in order, if that is more than chance."""
    strong = [line for line in wanted if line.strip()]
    if not strong:
        return None
    matcher = difflib.SequenceMatcher(None, lines[:SEARCHED], wanted, autojunk=True)
    blocks = matcher.get_matching_blocks()
    best = max(blocks, key=lambda block: block.size)
    found = sum(line in set(lines) for line in strong)
    return best.a - best.b + 1 if best.size and found >= ALIKE * len(strong) else None


def stop(layout: Layout, tree: Git, scratch: Git, patches: Sequence[Patch], at: int) -> PatchConflict:
    """Keep the scratch work tree for repair and make the error with its report. `at` counts from 1."""
    patch = patches[at - 1]
    files = classify(scratch, patch)
    folder = layout.state / f"repair-{series_hash(layout)[:12]}"
    begun = folder.exists()
    if not begun:  # otherwise somebody may be at work there, on this very series
        tree.run("worktree", "move", scratch.folder, folder)
    report = _report(layout, tree, patches, at, files, folder)
    return PatchConflict(_text(report, files, begun), hint=f"cd {shlex.quote(str(folder))}", report=report)


def _report(
    layout: Layout, tree: Git, patches: Sequence[Patch], at: int, files: Sequence[FileReport], folder: Path
) -> dict[str, Any]:
    patch, locked = patches[at - 1], read_lock(layout).upstream
    touched = {file.path for file in patch.files}
    later = {other.name: sorted(touched & {file.path for file in other.files}) for other in patches[at:]}
    where = shlex.quote(str(folder))
    return {
        "patch": patch.name,
        "position": at,
        "of": len(patches),
        "subject": patch.subject,
        "reason": patch.reason,
        "old_base": locked.commit or locked.tree,
        "new_base": tree.text("rev-parse", BASE_REF),
        "files": [file.as_json() for file in files],
        "later": [{"patch": name, "files": shared} for name, shared in later.items() if shared],
        "work_tree": str(folder),
        "commands": {
            "continue": [f"cd {where}", "git add --all", "git am --continue", f"turbotool patch export --from {where}"],
            "skip": [f"cd {where}", "git am --skip", f"turbotool patch export --from {where}"],
            "abort": [f"git -C {shlex.quote(str(layout.tree))} worktree remove --force {where}"],
        },
    }


def _text(report: dict[str, Any], files: Sequence[FileReport], begun: bool) -> str:
    lines = [
        f"{report['patch']} ({report['position']} of {report['of']}, {report['reason'] or 'no reason'}) does not apply",
        f"  subject: {report['subject']}",
        f"  written for upstream {report['old_base']}, applied to base {report['new_base']}",
    ]
    for file in files:
        lines.append(f"  {file.path}: {'in conflict, ' if file.unmerged else ''}{file.state} {file.detail}".rstrip())
        lines += [f"    hunk of line {hunk.line}: {hunk.state} {hunk.detail}".rstrip() for hunk in file.hunks]
    lines += [
        f"  a later patch touches the same files: {other['patch']} ({', '.join(other['files'])})"
        for other in report["later"]
    ]
    lines.append(
        f"  the work tree to repair it in{' (begun earlier, left as it is)' if begun else ''}: {report['work_tree']}"
    )
    for title, about in (
        ("continue", "after editing the files"),
        ("skip", "without this patch"),
        ("abort", "forget it"),
    ):
        lines.append(f"  to {title} ({about}):")
        lines += [f"    {command}" for command in report["commands"][title]]
    return "\n".join(lines)
