"""Modification times by content: what ninja sees as newer is exactly what differs from what it compiled last.

Ninja compares times, but a patched tree is written anew when the series changes. Without this a change of one line
would compile everything again, and a file brought back with an old time would not be compiled at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import DocumentError
from turbotool.system.documents import document, encode, read
from turbotool.system.files import write_file
from turbotool.system.git import Git

NAME = "stamps.json"


@document("stamps")
@dataclass(frozen=True)
class Stamps:
    """What a build folder knows of each source file: mode, kind and blob as git lists them, and its time in ns."""

    files: Mapping[str, tuple[str, int]]


def settle(tree: Git, tree_hash: str, folder: Path) -> int:
    """Give each file of the git tree `tree_hash` the time when its content first reached the build `folder`.

    Returns how many files are new or changed. The times are kept in `folder`/stamps.json, which is written first, so
    that an interruption can only make ninja compile too much. Raises ToolFailed if `tree` is not that git tree.
    """
    now = time.time_ns()
    known = _read(folder / NAME)
    stamps: dict[str, tuple[str, int]] = {}
    changed = 0
    for path, blob in tracked(tree, tree_hash).items():
        then = known.get(path)
        # A time to come is no time at which anything reached the folder.
        same = then is not None and then[0] == blob and 0 <= then[1] <= now
        changed += not same
        stamps[path] = (blob, then[1] if then and same else now)
    write_file(folder / NAME, encode(Stamps(stamps), indent=None))
    for path, (_, stamp) in stamps.items():
        _touch(tree.folder / path, stamp)
    # CMake depends on git's index: let git note the new times now rather than rewrite the index during the build.
    tree.run("update-index", "-q", "--refresh", check=False)
    return changed


def tracked(tree: Git, tree_hash: str) -> dict[str, str]:
    """Path -> mode, kind and blob hash of every file in a git tree."""
    entries = (entry.partition("\t") for entry in tree.names("ls-tree", "-r", "-z", tree_hash))
    return {path: what for what, _, path in entries}


def _touch(path: Path, stamp: int) -> None:
    try:
        if path.lstat().st_mtime_ns != stamp:
            os.utime(path, ns=(stamp, stamp), follow_symlinks=os.utime not in os.supports_follow_symlinks)
    except FileNotFoundError:
        return


def _read(file: Path) -> Mapping[str, tuple[str, int]]:
    try:
        return read(file, Stamps).files
    except DocumentError:
        return {}
