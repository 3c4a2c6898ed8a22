"""Modification times by content: what ninja sees as newer is exactly what differs from what it compiled last.

Ninja compares times, but a patched tree is written anew when the series changes. Without this a change of one line
would compile everything again, and a file brought back with an old time would not be compiled at all.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from turbotool.system import process
from turbotool.system.files import write_file

NAME = "stamps.json"


def settle(tree: Path, tree_hash: str, folder: Path, env: Mapping[str, str]) -> int:
    """Give each file of the git tree `tree_hash` the time when its content first reached the build `folder`.

    Returns how many files are new or changed. The times are kept in `folder`/stamps.json, which is written first, so
    that an interruption can only make ninja compile too much. Raises ToolFailed if `tree` is not that git tree.
    """
    known = _read(folder / NAME)
    now = time.time_ns()
    stamps: dict[str, tuple[str, int]] = {}
    changed = 0
    for path, blob in tracked(tree, tree_hash, env).items():
        then = known.get(path)
        same = then is not None and then[0] == blob
        changed += not same
        stamps[path] = (blob, then[1] if then and same else now)
    _write(folder / NAME, stamps)
    for path, (_, stamp) in stamps.items():
        _touch(tree / path, stamp)
    # CMake depends on git's index: let git note the new times now rather than rewrite the index during the build.
    process.run(["git", "update-index", "-q", "--refresh"], cwd=tree, env=env, check=False)
    return changed


def tracked(tree: Path, tree_hash: str, env: Mapping[str, str]) -> dict[str, str]:
    """Path -> mode and blob hash of every file in a git tree."""
    listing = process.run(["git", "ls-tree", "-r", "-z", tree_hash], cwd=tree, env=env, merge_stderr=False).output
    entries = (entry.partition("\t") for entry in listing.split("\0") if entry)
    return {path: what for what, _, path in entries}


def _touch(path: Path, stamp: int) -> None:
    try:
        if path.lstat().st_mtime_ns != stamp:
            os.utime(path, ns=(stamp, stamp), follow_symlinks=os.utime not in os.supports_follow_symlinks)
    except FileNotFoundError:
        return


def _read(file: Path) -> dict[str, tuple[str, int]]:
    try:
        return {
            path: (blob, int(stamp)) for path, (blob, stamp) in json.loads(file.read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(file: Path, stamps: Mapping[str, tuple[str, int]]) -> None:
    write_file(file, json.dumps(stamps).encode())
