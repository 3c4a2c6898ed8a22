"""The conflict report: what of a patch fails and why, who comes after it, and how and where to repair it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turbotool.errors import PatchConflict
from turbotool.layout import Layout
from turbotool.series.classify import FILE_MOVED, GONE, FileReport
from turbotool.series.patchfile import Patch
from turbotool.system.documents import plain
from turbotool.system.git import BASE_REF, Git
from turbotool.upstream.lock import read_lock

MARKS = """\
  in the files in conflict, what upstream has stands from <<<<<<< to |||||||, what the patch expects from ||||||| to
  =======, what it makes of that from ======= to >>>>>>>; let what is right remain, and none of these marks"""


def stop(
    layout: Layout,
    tree: Git,
    patches: Sequence[Patch],
    at: int,
    files: Sequence[FileReport],
    place: Path,
    *,
    begun: bool,
) -> PatchConflict:
    """The error, with its report, for the patch at position `at` (from 1) that is to be repaired in `place`."""
    report = _report(layout, tree, patches, at, files, place)
    return PatchConflict(_text(report, files, begun), hint=f"cd {shlex.quote(str(place))}", report=report)


def written_for(layout: Layout) -> Path:
    """The file in which an attempt to move the pin keeps the upstream that its patches were written for."""
    return layout.lock_file.with_name("written-for")


def old_base(layout: Layout) -> str:
    """What is known of the upstream that the patches were written for: tag, commit or git tree."""
    if written_for(layout).is_file():
        return written_for(layout).read_text(encoding="ascii").strip()
    return read_lock(layout).upstream.known_as


def new_base(layout: Layout, tree: Git) -> str:
    """What they are applied to: the upstream of an attempt to move the pin, else the vendored tree's commit."""
    attempted = read_lock(layout).upstream.known_as if written_for(layout).is_file() else ""
    return attempted or tree.text("rev-parse", BASE_REF)


@dataclass(frozen=True)
class LaterPatch:
    """A patch that comes after another one and touches some of the same files."""

    patch: str
    files: tuple[str, ...]


def later(patches: Sequence[Patch], at: int) -> list[LaterPatch]:
    """The patches after position `at` (from 1) that touch the same files, with these files."""
    touched = {file.path for file in patches[at - 1].files}
    shared = {other.name: sorted(touched & {file.path for file in other.files}) for other in patches[at:]}
    return [LaterPatch(name, tuple(both)) for name, both in shared.items() if both]


def _report(
    layout: Layout, tree: Git, patches: Sequence[Patch], at: int, files: Sequence[FileReport], place: Path
) -> dict[str, Any]:
    patch = patches[at - 1]
    return {
        "patch": patch.name,
        "path": str(patch.path),
        "position": at,
        "of": len(patches),
        "subject": patch.subject,
        "reason": patch.reason,
        "old_base": old_base(layout),
        "new_base": new_base(layout, tree),
        "files": plain(list(files)),
        "later": plain(later(patches, at)),
        "work_tree": str(place),
        "commands": {
            "continue": [f"cd {shlex.quote(str(place))}", "turbotool patch continue"],
            "skip": ["turbotool patch skip"],
            "abort": ["turbotool patch abort"],
        },
    }


def lines_of(files: Sequence[FileReport], indent: str = "  ") -> list[str]:
    """The files and hunks of a failing patch, as lines for people."""
    lines = []
    for file in files:
        said = f"{'in conflict, ' if file.unmerged else ''}{file.state}{f': {file.detail}' if file.detail else ''}"
        lines.append(f"{indent}{file.path}: {said}")
        if file.applies:
            continue
        if others := sum(not hunk.conflict for hunk in file.hunks):
            lines.append(f"{indent}  {others} of {len(file.hunks)} hunks cause no trouble")
        for hunk in (hunk for hunk in file.hunks if hunk.conflict):
            said = f"CONFLICT, {hunk.state}{f': {hunk.detail}' if hunk.detail else ''}"
            lines.append(f"{indent}  hunk of line {hunk.line}: {said}")
            if hunk.differs:
                lines.append(f"{indent}    the patch expects (-), upstream has (+):")
                lines += [f"{indent}    {line}" for line in hunk.differs]
            if hunk.change:
                lines.append(f"{indent}    the patch's own change:")
                lines += [f"{indent}    {line}" for line in hunk.change]
    return lines


def _text(report: dict[str, Any], files: Sequence[FileReport], begun: bool) -> str:
    lines = [
        f"{report['patch']} ({report['position']} of {report['of']}, {report['reason'] or 'no reason'}) does not apply",
        f"  subject: {report['subject']}",
        f"  written for upstream {report['old_base']}, applied to base {report['new_base']}",
        f"  the whole patch: {report['path']}",
        *lines_of(files),
    ]
    if any(file.unmerged and file.state not in (GONE, FILE_MOVED) for file in files):
        lines.append(MARKS)
    lines += [
        f"  a later patch touches the same files: {other['patch']} ({', '.join(other['files'])})"
        for other in report["later"]
    ]
    lines.append(
        f"  the work tree to repair it in{' (begun earlier, left as it is)' if begun else ''}: {report['work_tree']}"
    )
    for title, about in (
        ("continue", "after editing the files; nothing needs to be staged or committed"),
        ("skip", "without this patch: right where upstream does not have the code that it changes, yet or any more"),
        ("abort", "forget it; everything stays as it was before"),
    ):
        lines.append(f"  to {title} ({about}):")
        lines += [f"    {command}" for command in report["commands"][title]]
    return "\n".join(lines)
