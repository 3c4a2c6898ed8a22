"""The place where a patch that does not apply is repaired, and the record of where the series stands there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from turbotool.layout import Layout
from turbotool.series.files import series_hash
from turbotool.system.files import remove, write_file
from turbotool.system.git import BASE_REF, Git


@dataclass(frozen=True)
class Repair:
    """`position` (from 1) is the patch that comes next on top of commit `head`; `waiting` says that a person is at it.

    `series` is the hash of the series that is being applied.
    """

    place: Path
    position: int
    head: str
    series: str
    waiting: bool = True


def keep(layout: Layout, tree: Git, scratch: Git, position: int) -> tuple[Path, bool]:
    """Keep `scratch` as the place to repair the patch in; returns it, and True when somebody had begun there before."""
    series, base = series_hash(layout), tree.text("rev-parse", BASE_REF)
    place = layout.state / f"repair-{hashlib.sha256(f'{series} {base}'.encode()).hexdigest()[:12]}"
    if place.exists() and place != scratch.folder:
        return place, True
    if place != scratch.folder:
        tree.run("worktree", "move", scratch.folder, place)
    save(layout, Repair(place, position, tree.at(place).text("rev-parse", "HEAD"), series))
    return place, False


def save(layout: Layout, repair: Repair) -> None:
    entry = {**asdict(repair), "place": repair.place.name}
    write_file(layout.state / f"{repair.place.name}.json", json.dumps(entry).encode())


def find(layout: Layout) -> Repair | None:
    """The repair that was begun last, or None."""
    records = sorted(layout.state.glob("repair-*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in records:
        entry = json.loads(path.read_text(encoding="utf-8"))
        place = layout.state / entry.pop("place")
        if place.is_dir():
            return Repair(place, **entry)
    return None


def forget(layout: Layout, tree: Git, repair: Repair) -> None:
    """Remove the place with everything in it."""
    remove(repair.place)
    tree.run("worktree", "prune")
    (layout.state / f"{repair.place.name}.json").unlink(missing_ok=True)
