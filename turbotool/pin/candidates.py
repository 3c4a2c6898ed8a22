"""Other upstreams beside the pin, each a commit in one git repository of the cache: unpacked once, found by hash.

The repository shares what releases have in common, and a series can be tried there on any of them. Neither the vendored
tree nor the lock is touched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.errors import DocumentError, HashMismatch, SourceError
from turbotool.layout import Layout
from turbotool.system import git
from turbotool.system.digest import sha256_file
from turbotool.system.documents import document, encode, read
from turbotool.system.files import scratch_folder, write_file
from turbotool.system.git import BASE_REF, Git
from turbotool.system.session import Session
from turbotool.upstream import correction, pypi, sources
from turbotool.upstream.lock import RESTORE, Upstream, read_lock
from turbotool.upstream.sources import SOURCES, FetchRequest
from turbotool.upstream.tree import commit_files

REFS = "refs/turbotool/upstreams"


@document("upstream")
@dataclass(frozen=True)
class Found:
    """An upstream with everything that was found out about it, kept in the cache."""

    upstream: Upstream


@dataclass(frozen=True)
class Pristine:
    """An upstream (its `tree` is known) and the commit that holds exactly its files; `cached` if it was there."""

    upstream: Upstream
    base: str
    cached: bool

    @property
    def ref(self) -> str:
        return f"{REFS}/{self.upstream.tree}"


def store(session: Session) -> Session:
    """The place whose `tree` is the repository of upstreams; patches and lock are those of the session."""
    return session.at(replace(session.layout, work=session.layout.cache / "upstreams"))


def repository(there: Session) -> Git:
    """The repository of `store`, made if it is not there. The caller holds the work lock of `there`."""
    ready = there.layout.tree / ".git" / "info" / "attributes"  # what `init` writes last
    return Git(there.layout.tree, there.keep) if ready.is_file() else git.init(there.layout.tree, there.keep)


def pristine(there: Session, wanted: Upstream, path: Path | None) -> Pristine:
    """The upstream in the repository of `there`, fetched and unpacked unless it is known.

    `path` is the archive of an archive source. A PyPI release without sha256 gets the one that the index serves, which
    then counts as locked. Raises SourceError, ArchiveError, HashMismatch, NoSpace.
    """
    repo = repository(there)
    wanted = _identified(there, repo, wanted, path)
    record = there.layout.work / f"{_key(wanted)}.json"
    wanted = replace(wanted, correction=correction.known(there.layout, wanted))
    if (known := _known(repo, record, wanted)) is not None:
        return known
    with scratch_folder(there.layout, "upstream") as scratch:
        there.out.say(f"unpacking llama.cpp of {describe(wanted)}")
        folder = scratch / "llama.cpp"
        found = SOURCES[wanted.source](FetchRequest(there, wanted, scratch, path, relock=True), folder)
        tree, base = commit_files(repo, folder, scratch / "index")
        found = replace(found, tree=tree)
        repo.run("update-ref", f"{REFS}/{tree}", base)
    write_file(record, encode(Found(found)))
    return Pristine(found, base, cached=False)


def _known(repo: Git, record: Path, wanted: Upstream) -> Pristine | None:
    upstream = _noted(record)
    if upstream is None or _key(upstream) != record.stem:
        return None
    if _content(upstream) != _content(wanted):  # of the same archive
        return None
    base = repo.resolve(f"{REFS}/{upstream.tree}")
    return Pristine(upstream, base, cached=True) if base else None


def _content(upstream: Upstream) -> tuple[str, ...]:
    """What decides, beside the archive, which files an upstream has and what it is called."""
    return upstream.subdir, upstream.tag, upstream.correction


def _noted(record: Path) -> Upstream | None:
    """What was found out earlier; None if that is not there, damaged or of another version: it is found out again."""
    try:
        return read(record, Found).upstream
    except DocumentError:
        return None


def _identified(there: Session, repo: Git, wanted: Upstream, path: Path | None) -> Upstream:
    """`wanted` with the hash that says which bytes are meant: sha256 of an archive, full commit id of a git ref."""
    if wanted.source == "archive" and path is not None:
        if not path.is_file():
            raise SourceError(f"there is no archive {path}", hint="name a file that exists")
        return replace(wanted, sha256=sha256_file(path))
    if wanted.source == "git" and not wanted.commit:
        return replace(wanted, commit=sources.resolve(repo, wanted.url, wanted.ref))
    if wanted.source == "pypi" and not wanted.sha256:
        return _release(there, wanted)
    return wanted


def _release(there: Session, wanted: Upstream) -> Upstream:
    """The release's source distribution with what only it tells; asked of the index only once."""
    note = there.layout.work / f"release-{wanted.package}-{wanted.version}.json"
    noted = _noted(note)
    if noted is not None and noted.sha256 and noted == _learned(wanted, noted):
        return noted
    found = pypi.learn_release(wanted, there.layout.cache / "downloads", there.out)
    write_file(note, encode(Found(found)))
    return found


def _learned(wanted: Upstream, found: Upstream) -> Upstream:
    """`wanted` with what only the release itself tells."""
    return replace(wanted, sha256=found.sha256, size=found.size, commit=found.commit, date=found.date)


def _key(upstream: Upstream) -> str:
    return f"{upstream.source}-{upstream.commit if upstream.source == 'git' else upstream.sha256 or upstream.tree}"


def describe(upstream: Upstream) -> str:
    """An upstream as people call it."""
    if upstream.source == "pypi":
        return f"{upstream.package} {upstream.version}"
    if upstream.source == "git":
        return f"{upstream.url} {upstream.ref or upstream.short}"
    return upstream.archive or f"tree {upstream.tree[:9]}"


def pin(layout: Layout, there: Session) -> Pristine:
    """The locked upstream in the repository of `there`: from the vendored tree if it is there, else from its source.

    Raises HashMismatch if the source does not give the locked tree, and what `pristine` raises.
    """
    locked = read_lock(layout).upstream
    repo = repository(there)
    ref = f"{REFS}/{locked.tree}"
    if repo.resolve(f"{ref}^{{tree}}") == locked.tree:
        return Pristine(locked, repo.text("rev-parse", ref), cached=True)
    vendored = Git(layout.tree, there.keep)
    if (layout.tree / ".git").is_dir() and vendored.resolve(f"{BASE_REF}^{{tree}}") == locked.tree:
        repo.run("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", layout.tree, f"+{BASE_REF}:{ref}")
        return Pristine(locked, repo.text("rev-parse", ref), cached=False)
    found = pristine(there, locked, None)
    if found.upstream.tree != locked.tree:
        raise HashMismatch(
            f"the {locked.source} source has git tree {found.upstream.tree}, locked is {locked.tree}",
            hint=f"correct {layout.lock_file}: {RESTORE}",
        )
    return found
