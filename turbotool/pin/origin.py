"""Whether the pinned files are upstream's own: each is compared, by git's ids, with what upstream's repository has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from turbotool.errors import SourceError, TurbotoolError, UpstreamDiffers
from turbotool.pin import candidates
from turbotool.pin.reference import REPOSITORY
from turbotool.system import git
from turbotool.system.files import scratch_folder
from turbotool.system.git import Git
from turbotool.system.locks import work_lock
from turbotool.system.session import Session
from turbotool.upstream import journal, sources
from turbotool.upstream.lock import Upstream, read_lock


@dataclass(frozen=True)
class Entry:
    """A file as git knows it: its mode, such as 100755, and its blob id."""

    mode: str
    blob: str


@dataclass(frozen=True)
class Altered:
    """A file that upstream has otherwise: what the pin holds, and what upstream has there."""

    path: str
    pinned: Entry
    upstream: Entry

    @property
    def difference(self) -> str:
        """What differs, in words."""
        modes = f"mode {self.pinned.mode} instead of {self.upstream.mode}"
        if self.pinned.blob == self.upstream.blob:
            return modes
        return "other bytes" if self.pinned.mode == self.upstream.mode else f"other bytes, {modes}"


@dataclass(frozen=True)
class PinOrigin:
    """The pinned files beside those that the repository at `url` has under `ref`, where that is the commit `commit`.

    `altered` and `foreign` files (which upstream does not have) must not be there; `lacking` ones the packager left
    out. Where nothing could be compared `reason` says why, and nothing else is known.
    """

    pinned: Upstream
    url: str
    ref: str
    commit: str = ""
    reason: str = ""
    identical: int = 0
    altered: tuple[Altered, ...] = ()
    lacking: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    @property
    def checked(self) -> bool:
        """Whether the comparison was made."""
        return not self.reason

    def error(self) -> TurbotoolError | None:
        """SourceError if nothing was compared, UpstreamDiffers if a file is not upstream's; else None."""
        if not self.checked:
            message = f"NOT CHECKED whether the pinned {self.pinned.short} is upstream's own: {self.reason}"
            return SourceError(message, hint="turbotool vendor check, where there is a network")
        wrong = [*(file.path for file in self.altered), *self.foreign]
        if not wrong:
            return None
        message = f"{len(wrong)} pinned files are not those of {self.ref} at {self.url}; the first: {wrong[0]}"
        return UpstreamDiffers(message, hint="look at each; turbotool vendor bump takes another source of that version")


def check_origin(session: Session, url: str = "") -> PinOrigin:
    """Compare the locked upstream with the repository at `url`, llama.cpp's own or the locked one if that is ''.

    What keeps it from being compared is a part of the answer. Lock and vendored tree are only read. Raises HashMismatch
    if the source does not give the locked tree, LockError.
    """
    locked = read_lock(session.layout).upstream
    ref = locked.commit or (f"refs/tags/{locked.tag}" if locked.tag else "")
    asked = PinOrigin(locked, url or locked.url or REPOSITORY, ref)
    if not ref:
        return _unchecked(asked, f"the lock names neither commit nor tag of its {locked.source} source")
    with work_lock(candidates.store(session), "compare the pin with upstream") as there:
        journal.recover(there)
        try:
            pin = candidates.pin(session.layout, there)
            commit, theirs = _fetch(there, asked)
        except SourceError as error:
            return _unchecked(asked, error.message)
        return _compared(asked, commit, entries(Git(there.layout.tree, there.keep), pin.base), theirs)


def _unchecked(asked: PinOrigin, reason: str) -> PinOrigin:
    return PinOrigin(asked.pinned, asked.url, asked.ref, reason=reason)


def _fetch(there: Session, asked: PinOrigin) -> tuple[str, Mapping[str, Entry]]:
    """The commit that upstream has under that ref, and its files. Only names and ids are asked for, no contents."""
    with scratch_folder(there.layout, "origin") as scratch:
        repository = git.init(scratch / "fetched", there.keep)
        there.out.say(f"asking {asked.url} for the files of {asked.ref}")
        commit = sources.fetch_commit(repository, asked.url, asked.ref, "--filter=blob:none")
        return commit, entries(repository, commit)


def entries(repository: Git, revision: str) -> dict[str, Entry]:
    """Every file of a commit by its path."""
    lines = (line.split("\t", 1) for line in repository.names("ls-tree", "-r", "-z", revision))
    return {path: Entry(about.split()[0], about.split()[2]) for about, path in lines}


def _compared(asked: PinOrigin, commit: str, ours: Mapping[str, Entry], theirs: Mapping[str, Entry]) -> PinOrigin:
    both = sorted(ours.keys() & theirs.keys())
    altered = tuple(Altered(path, ours[path], theirs[path]) for path in both if ours[path] != theirs[path])
    return PinOrigin(
        asked.pinned,
        asked.url,
        asked.ref,
        commit,
        identical=len(both) - len(altered),
        altered=altered,
        lacking=tuple(sorted(theirs.keys() - ours.keys())),
        foreign=tuple(sorted(ours.keys() - theirs.keys())),
    )


def lines(origin: PinOrigin, *, shown: int) -> list[str]:
    """What was found, for people: every file that is wrong, and at most `shown` of those that the package left out."""
    if not origin.checked:
        return [f"NOT CHECKED: {origin.reason}"]
    found = [f"altered  {file.path}: {file.difference}" for file in origin.altered]
    found += [f"foreign  {path}: upstream does not have it" for path in origin.foreign]
    found += [f"lacking  {path}" for path in origin.lacking[:shown]]
    if len(origin.lacking) > shown:
        found.append(f"lacking  and {len(origin.lacking) - shown} more")
    counts = f"{len(origin.altered)} altered, {len(origin.foreign)} foreign, {len(origin.lacking)} lacking"
    where = f"{origin.ref} at {origin.url}, commit {origin.commit}"
    return [*found, f"{where}: {origin.identical} files identical, {counts}"]
