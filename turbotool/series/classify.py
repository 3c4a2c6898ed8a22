"""Which files and hunks of a patch fail, and why."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from turbotool.series.merge import Clash, Failing
from turbotool.series.patchfile import FileDiff, Hunk, Patch
from turbotool.system.git import Git

APPLIES, MERGES, UPSTREAM = "applies", "merges", "already upstream"
MOVED, FILE_MOVED, GONE = "context moved", "file moved", "file gone"
SHOWN = 16  # lines that the report shows for a hunk, of its change and of upstream's
ALIKE = 0.6  # below this ratio two groups of lines have nothing to do with each other
SEARCHED = 20_000  # lines of a file that the search for the nearest place looks at, to bound its time


@dataclass(frozen=True)
class HunkReport:
    """One hunk: its line in the old file, its class, and where the same lines are now.

    `conflict` tells whether this hunk is one that fails. `differs` are the lines, as in a diff, in which upstream is
    not what the hunk expects: minus for expected, plus for what is there. `change` is what a hunk that fails would do:
    the lines that it removes and adds, with one line around them.
    """

    line: int
    state: str
    detail: str = ""
    conflict: bool = False
    differs: tuple[str, ...] = ()
    change: tuple[str, ...] = ()


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
        return not self.unmerged and not any(hunk.conflict for hunk in self.hunks) and self.state in (APPLIES, MERGES)


def classify(scratch: Git, patch: Patch, failing: Failing) -> tuple[FileReport, ...]:
    """Every file and hunk of a patch that was just refused in `scratch`, whose HEAD is the state before it.

    `failing` names the hunks that a 3-way merge cannot place; None if none was possible: lines decide alone then.
    """
    unmerged = scratch.unmerged()
    there = scratch.files("HEAD")
    return tuple(_decided(_file(scratch, file, there, file.path in unmerged), file, failing) for file in patch.files)


def _decided(file: FileReport, diff: FileDiff, failing: Failing) -> FileReport:
    """Say of each hunk whether it fails: the merge knows, otherwise the lines do."""

    def decided(hunk: HunkReport) -> HunkReport:
        if failing is None:
            return replace(hunk, conflict=hunk.state not in (APPLIES, UPSTREAM))
        if (file.path, hunk.line) in failing:
            return _clashing(hunk, failing[file.path, hunk.line])
        return hunk if hunk.state in (APPLIES, UPSTREAM) else HunkReport(hunk.line, MERGES)

    pairs = ((decided(hunk), said) for hunk, said in zip(file.hunks, diff.hunks, strict=False))
    hunks = tuple(replace(hunk, change=_change(said)) if hunk.conflict else hunk for hunk, said in pairs)
    if file.state == MOVED and hunks and not any(hunk.conflict for hunk in hunks):
        return replace(file, state=MERGES, hunks=hunks)
    return replace(file, hunks=hunks)


def _change(hunk: Hunk) -> tuple[str, ...]:
    touched = [at for at, line in enumerate(hunk.lines) if line.startswith(("+", "-"))]
    shown = {near for at in touched for near in (at - 1, at, at + 1)}
    return _short([line for at, line in enumerate(hunk.lines) if at in shown])


def _short(lines: Sequence[str]) -> tuple[str, ...]:
    return (*lines[:SHOWN], f"and {len(lines) - SHOWN} more lines") if len(lines) > SHOWN else tuple(lines)


def _clashing(hunk: HunkReport, clashes: Sequence[Clash]) -> HunkReport:
    """The hunk with the place of its clash and what upstream has there, as the merge found them."""
    if not clashes:
        return replace(hunk, conflict=True)
    detail = f"upstream changed the same lines, at line {', '.join(str(clash.line) for clash in clashes)} now"
    differs = tuple(line for clash in clashes for line in _differs(clash.expected, clash.found))
    return HunkReport(hunk.line, hunk.state, detail, conflict=True, differs=differs)


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
        if any(_hunk(hunk, now).state != MOVED or _hunk(hunk, now).differs for hunk in file.hunks):
            target = other
            break
    state, detail = FILE_MOVED, f"it is {target} now; make the change there"
    if target is None:
        state, detail = GONE, "no file of that name or content is left; its change is left out"
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
    if place is None:
        return HunkReport(hunk.start, MOVED, "nothing like its lines is left")
    differs = _differs(before, lines[max(place - 1, 0) : place - 1 + len(before)])
    return HunkReport(hunk.start, MOVED, f"the nearest lines are at line {place}, but differ", differs=differs)


def _differs(before: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
    return _short([line.replace(" ", "", 1) for line in difflib.ndiff(before, now) if line.startswith(("- ", "+ "))])


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
    return max(best.a - best.b, 0) + 1 if best.size and found >= ALIKE * len(strong) else None
