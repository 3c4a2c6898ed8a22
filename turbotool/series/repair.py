"""The place where a patch that does not apply is repaired, and the record of where the series stands there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import DocumentError
from turbotool.layout import Layout
from turbotool.series.files import series_hash
from turbotool.system.documents import document, encode, read
from turbotool.system.files import remove, write_file
from turbotool.system.git import BASE_REF, Git

ABORT = "turbotool patch abort gives it up, whatever its record says; the series stays as it is"


@document("repair")
@dataclass(frozen=True)
class Repair:
    """A series that stopped at a patch which does not apply, and how far it came.

    `position` (from 1) is the patch that comes next on top of commit `head`; `waiting` says that a person is at it.
    `place` is the name of the work tree's folder, `series` the hash of the series that is being applied.
    """

    place: str
    position: int
    head: str
    series: str
    waiting: bool

    def folder(self, layout: Layout) -> Path:
        """The work tree in which the patch is repaired."""
        return layout.state / self.place


def keep(layout: Layout, tree: Git, scratch: Git, position: int) -> tuple[Path, bool]:
    """Keep `scratch` as the place to repair the patch in; returns it, and True when somebody had begun there before."""
    series, base = series_hash(layout), tree.text("rev-parse", BASE_REF)
    place = layout.state / f"repair-{hashlib.sha256(f'{series} {base}'.encode()).hexdigest()[:12]}"
    if place.exists() and place != scratch.folder:
        return place, True
    if place != scratch.folder:
        tree.run("worktree", "move", scratch.folder, place)
    head = tree.at(place).text("rev-parse", "HEAD")
    save(layout, Repair(place.name, position, head, series, waiting=True))
    return place, False


def save(layout: Layout, repair: Repair) -> None:
    """Write down where the series stands."""
    write_file(_record(repair.folder(layout)), encode(repair))


def _record(place: Path) -> Path:
    return place.with_name(f"{place.name}.json")


def find_place(layout: Layout) -> Path | None:
    """The work tree of the repair that was begun last, whatever its record says; None if there is none."""
    records = sorted(layout.state.glob("repair-*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path.with_suffix("") for path in records if path.with_suffix("").is_dir()), None)


def find(layout: Layout) -> Repair | None:
    """The repair that was begun last, or None. Raises DocumentError if its record is damaged or of a newer version."""
    place = find_place(layout)
    if place is None:
        return None
    found = read(_record(place), Repair, hint=ABORT)
    if found.place != place.name:
        raise DocumentError(f"{_record(place)} is damaged: it is about {found.place!r}", hint=ABORT)
    return found


def forget(tree: Git, place: Path) -> None:
    """Remove the work tree of a repair with everything in it, and its record."""
    remove(place)
    tree.run("worktree", "prune")
    _record(place).unlink(missing_ok=True)
