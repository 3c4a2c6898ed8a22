"""Lint: whether the patches and the overlay keep to the policy, beyond whether they apply."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from turbotool.errors import SeriesError
from turbotool.layout import Layout
from turbotool.series import files as series
from turbotool.series import needs
from turbotool.series.files import OverlayFile, Problem
from turbotool.series.patchfile import SIZE_LIMIT, FileDiff, Hunk, Patch, trailer_problems
from turbotool.system import process
from turbotool.system.git import BASE_REF, Git

LINES_LIMIT = 400  # lines that a patch may add and remove; more is more than one concern, or code for the overlay
BLOCK_LIMIT = 60  # lines that a hunk may add in a row; a call site is short
TESTS = ("tests/", "examples/")  # upstream's test programs have no other place for a table of cases
FORMATTED = (".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp")
TEXT = (*FORMATTED, ".m", ".metal", ".comp", ".glsl", ".cmake", ".txt", ".md", ".py")
LINK = re.compile(r"https?://\S+")


@dataclass(frozen=True)
class Linted:
    """All problems, and what could not be looked at and why."""

    problems: tuple[Problem, ...]
    skipped: tuple[str, ...]
    patches: int
    overlay: int

    def error(self) -> SeriesError | None:
        if not self.problems:
            return None
        first = self.problems[0]
        message = f"{len(self.problems)} problems in the series; the first: {first.name}: {first.message}"
        return SeriesError(message, hint="correct them in the vendored tree, then turbotool patch export")


def lint(layout: Layout, env: Mapping[str, str]) -> Linted:
    """Look at every patch and overlay file. Raises SeriesError when the series cannot be read."""
    patches, files = series.load(layout), series.overlay(layout)
    problems = [Problem(patch.name, text) for patch in patches for text in _patch(patch)]
    problems += [Problem(f"overlay/{file.name}", text) for file in files for text in _overlay_file(file)]
    unformatted, skipped = _formatting(layout, files, env)
    lacking, unknown = _needs(layout, patches)
    return Linted(tuple(problems + lacking + unformatted), unknown + skipped, len(patches), len(files))


def _patch(patch: Patch) -> Iterator[str]:
    yield from trailer_problems(patch)
    yield from _trailers(patch)
    if patch.body.rpartition("\n\n")[0].strip() in ("", "TODO"):
        yield "its message does not say why: nothing of use is between subject and trailers"
    changed = sum(file.count("+") + file.count("-") for file in patch.files)
    if changed > LINES_LIMIT:
        yield f"it changes {changed} lines, more than {LINES_LIMIT}: split it by concern, or move code to the overlay"
    for file in patch.files:
        if file.deleted:
            yield f"it deletes {file.path}; a patch adds call sites"
        for hunk in file.hunks:
            yield from _hunk(file, hunk)


def _trailers(patch: Patch) -> Iterator[str]:
    upstream, drop = patch.trailers.get("Upstream", "none"), patch.trailers.get("Drop-when", "x y")
    if upstream != "none" and not LINK.match(upstream):
        yield f"Upstream is {upstream!r}, neither a link nor none"
    if drop.lower().strip(" .") in ("todo", "tbd", "unknown", "?", "none", "n/a"):
        yield f"Drop-when is {drop!r}, which is no condition that anybody can check"


def _needs(layout: Layout, patches: Sequence[Patch]) -> tuple[list[Problem], tuple[str, ...]]:
    """Paths that patches need and the pinned upstream does not have; or why that was not looked at."""
    if not any(patch.needs for patch in patches):
        return [], ()
    tree = Git(layout.tree)
    if not (layout.tree / ".git").is_dir() or tree.resolve(BASE_REF) is None:
        return [], (f"what patches need of upstream: nothing is vendored at {layout.tree}; turbotool vendor",)
    there = needs.paths(tree, BASE_REF)
    missed = ((patch.name, needs.missing(patch, there)) for patch in patches)
    return [Problem(name, f"Needs: {needs.lacks(paths)}") for name, paths in missed if paths], ()


def _hunk(file: FileDiff, hunk: Hunk) -> Iterator[str]:
    where = f"{file.path}, hunk of line {hunk.start}"
    row = longest = 0
    for line in hunk.lines:
        row = row + 1 if line.startswith("+") else 0
        longest = max(longest, row)
        if line.startswith("+") and line.rstrip("\r") != line.rstrip("\r").rstrip():
            yield f"{where}: a line that it adds ends in white space: {line[1:].strip()[:60]!r}"
        if re.match(r"\+ *\t", line) and PurePosixPath(file.path).suffix in FORMATTED:
            yield f"{where}: a line that it adds is indented with a tab"
    if longest > BLOCK_LIMIT and not file.path.startswith(TESTS):
        yield f"{where}: it adds {longest} lines in a row, more than {BLOCK_LIMIT}: our own code belongs in the overlay"


def _overlay_file(file: OverlayFile) -> Iterator[str]:
    if not file.name.endswith(TEXT):
        return
    data = file.path.read_bytes()
    if len(data) > SIZE_LIMIT:
        yield f"it has {len(data)} bytes"
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        if line != line.rstrip():
            yield f"line {number} ends in white space or a carriage return"
    if data and not data.endswith(b"\n"):
        yield "its last line has no end"


def _formatting(
    layout: Layout, files: tuple[OverlayFile, ...], env: Mapping[str, str]
) -> tuple[list[Problem], tuple[str, ...]]:
    """What clang-format would change, by the style of the vendored tree; or why that was not looked at."""
    places = os.pathsep.join((str(Path(sys.executable).parent), env.get("PATH", "")))
    tool = env.get("CLANG_FORMAT") or shutil.which("clang-format", path=places)
    style = layout.tree / ".clang-format"
    wanted = [file for file in files if file.name.endswith(FORMATTED)]
    if not wanted:
        return [], ()
    if not tool:
        return [], ("formatting of the overlay: there is no clang-format; pip install clang-format",)
    if not style.is_file():
        return [], (f"formatting of the overlay: there is no {style}; turbotool vendor",)
    found = []
    for file in wanted:
        words: list[str | Path] = [tool, "--dry-run", "--Werror", f"--style=file:{style}", file.path]
        done = process.run(words, cwd=layout.patches, check=False, timeout=120)
        if "rror reading" in done.output:  # an older clang-format than the style asks for
            return [], (f"formatting of the overlay: {tool} does not understand {_first(done.output)}",)
        lines = sorted({int(number) for number in re.findall(r":(\d+):\d+: (?:error|warning):", done.output)})
        if lines:
            shown = ", ".join(map(str, lines[:8])) + (" ..." if len(lines) > len(lines[:8]) else "")
            found.append(Problem(f"overlay/{file.name}", f"clang-format --style=file:{style} changes lines {shown}"))
    return found, ()


def _first(output: str) -> str:
    return next((line.strip() for line in output.splitlines() if line.strip()), "")
