"""The series: `patches/series` in order, the patches it names, the overlay, and their hashes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import HashMismatch, SeriesError, TurbotoolError
from turbotool.layout import Layout
from turbotool.series.patchfile import Patch, read_patch, slug, trailer_problems
from turbotool.upstream.lock import PatchHash, SeriesLock

# Not part of the overlay: a folder's placeholder, and what file managers and Python leave behind.
IGNORED = {".gitkeep", ".DS_Store", "__pycache__"}


@dataclass(frozen=True)
class OverlayFile:
    """A file of our own: its path in the tree (with `/`), where it is here, and whether it is executable."""

    name: str
    path: Path
    executable: bool


@dataclass(frozen=True)
class Problem:
    """Something wrong with the series that is not a conflict."""

    name: str
    message: str


def names(layout: Layout) -> tuple[str, ...]:
    """The patch names in order. Raises SeriesError for a missing series, an odd name, or a repeated one."""
    listed = [line.strip() for line in _read(layout).splitlines()]
    found = [line for line in listed if line and not line.startswith("#")]
    for name in found:
        if "/" in name or "\\" in name or not name.endswith(".patch") or name.startswith("."):
            raise SeriesError(
                f"{layout.series}: {name!r} is not the name of a patch in {layout.patches}", hint="correct that line"
            )
    for name, times in Counter(found).items():
        if times > 1:
            raise SeriesError(f"{layout.series} lists {name} {times} times", hint="remove all but one of these lines")
    return tuple(found)


def _read(layout: Layout) -> str:
    try:
        return layout.series.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SeriesError(f"{layout.series} cannot be read: {error}", hint="git checkout -- patches/series") from error


def rewritten(layout: Layout, new: Sequence[str]) -> str:
    """The text of `patches/series` for new names: unchanged names keep the comments above them, the header stays."""
    text = _read(layout)
    if tuple(new) == names(layout):
        return text
    header: list[str] = []
    above: dict[str, list[str]] = {}
    pending: list[str] = []
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            if not above:  # what stands above the first name is the header, whichever name comes first later
                header, pending = pending, []
            above[line.strip()] = pending
            pending = []
        else:
            pending.append(line)
    if not above:
        header, pending = pending, []
    lines = header + [line for name in new for line in (*above.get(name, []), name)] + pending
    return "".join(f"{line}\n" for line in lines)


def load(layout: Layout) -> tuple[Patch, ...]:
    """Every patch, parsed. Raises SeriesError at the first that is missing, malformed or creates a file."""
    patches = tuple(read_patch(_existing(layout, name)) for name in names(layout))
    for patch in patches:
        for problem in _creations(patch):
            raise SeriesError(f"{patch.path}: {problem}", hint="turbotool patch export puts it there")
    return patches


def _existing(layout: Layout, name: str) -> Path:
    path = layout.patches / name
    if not path.is_file():
        raise SeriesError(
            f"{layout.series} lists {name}, which is not in {layout.patches}", hint=f"git checkout -- patches/{name}"
        )
    return path


def _creations(patch: Patch) -> list[str]:
    return [f"it creates {file.path}; our own files belong in overlay/" for file in patch.files if file.created]


def overlay(layout: Layout) -> tuple[OverlayFile, ...]:
    """The overlay's files sorted by name. Raises SeriesError for links and special files."""
    found = []
    for path in sorted(layout.overlay.rglob("*")):
        inside = path.relative_to(layout.overlay)
        if IGNORED.intersection(inside.parts):
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise SeriesError(f"{path} is not a plain file", hint="replace it by the file itself")
        if path.is_file():
            found.append(OverlayFile(inside.as_posix(), path, bool(path.stat().st_mode & 0o100)))
    return tuple(sorted(found, key=lambda file: file.name))


def overlay_hash(layout: Layout) -> str:
    """SHA-256 over the overlay: sorted name, file mode and content, each with its length."""
    digest = hashlib.sha256()
    for file in overlay(layout):
        data = file.path.read_bytes()
        name = file.name.encode("utf-8", "surrogateescape")
        mode = "755" if file.executable else "644"
        digest.update(f"{mode} {len(name)} {len(data)}\n".encode() + name + data)
    return digest.hexdigest()


def patch_hashes(layout: Layout) -> tuple[PatchHash, ...]:
    """The sha256 of each listed patch, in order. Raises SeriesError."""
    paths = (_existing(layout, name) for name in names(layout))
    return tuple(PatchHash(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths)


def current(layout: Layout, tree: str) -> SeriesLock:
    """What the lock should say about the series as it is on disk and the tree that it gives."""
    return SeriesLock(tree, overlay_hash(layout), patch_hashes(layout))


def series_hash(layout: Layout) -> str:
    """SHA-256 over order, patches and overlay; the same on every machine. Raises SeriesError."""
    return combined(current(layout, ""))


def combined(series: SeriesLock) -> str:
    lines = [f"overlay {series.overlay}", *(f"patch {patch.name} {patch.sha256}" for patch in series.patches)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_locked(layout: Layout, locked: SeriesLock, here: SeriesLock) -> None:
    """Raise HashMismatch naming both values when the series on disk is not the locked one."""
    if differences := lock_differences(locked, here):
        raise HashMismatch(
            f"{layout.patches} is not what {layout.lock_file} locks:\n"
            + "\n".join(f"  {line}" for line in differences),
            hint="turbotool patch apply --relock, if the change is meant; otherwise git checkout -- patches",
        )


def lock_differences(locked: SeriesLock, here: SeriesLock) -> list[str]:
    """One line for each part of the series that differs from the lock, with both values."""
    was = {patch.name: patch.sha256 for patch in locked.patches}
    now = {patch.name: patch.sha256 for patch in here.patches}
    lines = [f"{name}: sha256 {now.get(name, 'absent')}, locked is {was.get(name, 'absent')}"
             for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]  # fmt: skip
    if not lines and list(was) != list(now):
        lines.append(f"order: {' '.join(now)}, locked is {' '.join(was)}")
    if locked.overlay != here.overlay:
        lines.append(f"overlay: sha256 {here.overlay}, locked is {locked.overlay}")
    return lines


def problems(layout: Layout, locked: SeriesLock) -> tuple[list[Patch], list[Problem]]:
    """The patches that can be tried, and everything wrong with the series itself, found in one pass."""
    found: list[Problem] = []
    patches: list[Patch] = []
    listed = names(layout)
    for name in listed:
        try:
            patch = read_patch(_existing(layout, name))
        except SeriesError as error:
            found.append(Problem(name, error.message))
            continue
        patches.append(patch)
        found += [Problem(name, text) for text in (*_creations(patch), *trailer_problems(patch))]
        if not name.startswith(slug(patch.subject)):
            found.append(
                Problem(name, f"its subject asks for the name {slug(patch.subject)}.patch; export will use that")
            )
    for path in sorted(layout.patches.glob("*.patch")):
        if path.name not in listed:
            found.append(Problem(path.name, f"{layout.series.name} does not list it"))
    try:
        found += [Problem("lock.toml", line) for line in lock_differences(locked, current(layout, ""))]
    except TurbotoolError as error:
        if not found:
            found.append(Problem("series", error.message))
    return patches, found
