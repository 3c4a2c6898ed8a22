"""An attempt to move the pin: patches, lock and vendored tree of its own, beside the ones in use, until it succeeds."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import SeriesError
from turbotool.layout import Layout
from turbotool.pin import candidates
from turbotool.pin.reference import Reference
from turbotool.pin.rehearse import know_series
from turbotool.series import conflict, repair
from turbotool.series import files as series
from turbotool.system import git
from turbotool.system.digest import sha256_file
from turbotool.system.documents import document, encode, read
from turbotool.system.files import scratch_folder, space_guard, write_file
from turbotool.system.git import BASE_REF, PREVIOUS_REF, Git
from turbotool.system.locks import work_lock
from turbotool.system.session import Session
from turbotool.upstream import correction, journal
from turbotool.upstream.lock import Upstream, read_lock, write_upstream
from turbotool.upstream.tree import dirty, find_edits

RECORD = "attempt.json"
WAYS_ON = "turbotool patch continue, skip or abort"
ABORT = "turbotool patch abort gives it up, whatever its record says; the pin stays as it is"


@document("attempt")
@dataclass(frozen=True)
class Attempt:
    """A bump that is under way, to the upstream that was named as `ref`.

    `series` and `lock` are hashes of what the pin was when the attempt began, `names` its patches. `backend` is the one
    that proves it, None for no proof.
    """

    ref: str
    series: str
    lock: str
    names: tuple[str, ...]
    backend: str | None

    def layout(self, pin: Layout) -> Layout:
        """The layout in which the attempt is applied, built and verified."""
        return Layout(place(pin) / "root", place(pin) / "work", pin.cache)


def place(layout: Layout) -> Path:
    """Where everything of an attempt is, while one is under way."""
    return layout.state / "bump"


def find_attempt(layout: Layout) -> Attempt | None:
    """The attempt that is under way, or None. Raises DocumentError if its record is damaged or of a newer version."""
    if not place(layout).is_dir():
        return None
    return read(place(layout) / RECORD, Attempt, hint=ABORT)


def check_pin(session: Session, attempt: Attempt | None = None) -> None:
    """Nothing may be lost or overtaken by a bump.

    Raises DirtyTree for edits in the vendored tree, HashMismatch or SeriesError when patches/ or the lock is not what
    is locked, or not what the attempt started from.
    """
    layout = session.layout
    tree = Git(layout.tree, session.keep)
    if (layout.tree / ".git").exists() and (edits := find_edits(layout, tree, tree.refs())):
        raise dirty(layout, edits)
    if attempt and (attempt.series, attempt.lock) != (series.series_hash(layout), sha256_file(layout.lock_file)):
        raise SeriesError(
            f"{layout.patches} or {layout.lock_file} was changed since the bump to {attempt.ref} began",
            hint="turbotool patch abort, then bump again; or put the files back",
        )
    locked = read_lock(layout).series
    series.check_locked(layout, locked, series.current(layout, locked.tree))


def begin(session: Session, reference: Reference, backend: str | None) -> Attempt | None:
    """Set up an attempt on the upstream that `reference` names; None if that is the pin.

    The caller holds the work lock. Raises SeriesError while another attempt or a repair is under way, and what
    `check_pin` and fetching raise.
    """
    layout = session.layout
    if (earlier := find_attempt(layout)) is not None:
        raise SeriesError(f"the bump to {earlier.ref} is not finished, in {place(layout)}", hint=WAYS_ON)
    if (waiting := repair.find_place(layout)) is not None:
        raise SeriesError(f"a patch is waiting to be repaired in {waiting}", hint=WAYS_ON)
    check_pin(session)
    with work_lock(candidates.store(session), "prepare a bump") as there:
        journal.recover(there)
        onto = candidates.pristine(there, reference.upstream, reference.path)
        if onto.upstream.tree == read_lock(layout).upstream.tree:
            return None
        _, applied = know_series(layout, there, series.load(layout))
        with scratch_folder(layout, "bump") as scratch:
            new = scratch / "bump"
            _fill(layout, new, onto.upstream)
            _clone(there.layout.tree, new / "work" / "vendor" / "llama.cpp", onto.ref, applied)
            attempt = _describe(layout, reference.text, backend)
            write_file(new / RECORD, encode(attempt))
            with space_guard(place(layout)):
                new.rename(place(layout))
    return attempt


def _describe(layout: Layout, ref: str, backend: str | None) -> Attempt:
    lock = sha256_file(layout.lock_file)
    return Attempt(ref, series.series_hash(layout), lock, series.names(layout), backend)


def _fill(layout: Layout, to: Path, upstream: Upstream) -> None:
    """Copy the series and the lock; the lock names the new upstream."""
    new = Layout(to / "root", to / "work", layout.cache)
    new.overlay.mkdir(parents=True)
    with space_guard(to):
        for path in (layout.series, *(layout.patches / name for name in series.names(layout))):
            shutil.copyfile(path, new.patches / path.name)
        for file in series.overlay(layout):
            goal = new.overlay / file.name
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file.path, goal)
    write_file(new.lock_file, layout.lock_file.read_bytes())
    if correction.folder(layout).is_dir():
        shutil.copytree(correction.folder(layout), correction.folder(new))
    locked = read_lock(layout).upstream
    write_upstream(new, upstream)
    conflict.written_for(new).write_text(locked.known_as, encoding="ascii")


def _clone(store: Path, tree: Path, base: str, applied: str) -> None:
    """A vendored tree at `base` that also has the commits of the old series, for the blobs that merges start from."""
    new = git.init(tree)
    wanted = (f"+{base}:{BASE_REF}", f"+{applied}:{PREVIOUS_REF}")
    new.run("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", store, *wanted)
    new.run("checkout", "--quiet", "--detach", BASE_REF)
