"""Where upstream can come from: a row of SOURCES fills an empty folder with the pristine files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from turbotool.errors import SourceError, ToolFailed
from turbotool.system import archive, git
from turbotool.system.digest import check_sha256, sha256_file
from turbotool.system.files import need_space, space_guard
from turbotool.system.session import Session
from turbotool.upstream.correction import correct
from turbotool.upstream.lock import FULL_ID, Upstream
from turbotool.upstream.pypi import fetch_pypi, learn_release


@dataclass(frozen=True)
class FetchRequest:
    """What to fetch. With `relock` the locked archive hash does not bind; `scratch` is for anything temporary."""

    session: Session
    upstream: Upstream
    scratch: Path
    path: Path | None = None
    relock: bool = False


class Fetcher(Protocol):
    def __call__(self, request: FetchRequest, folder: Path) -> Upstream:
        """Fill `folder` (absent) with the pristine files; return what was found, with everything but `tree`.

        Raises SourceError, ArchiveError, HashMismatch, NoSpace.
        """


def pypi(request: FetchRequest, folder: Path) -> Upstream:
    """Unpack the source distribution of a release, locked or not: without a sha256 the index tells it."""
    up, into = request.upstream, request.session.layout.cache / "downloads"
    if not up.sha256:
        up = learn_release(up, into, request.session.out)
    path = fetch_pypi(up.package, up.version, up.archive, up.sha256, up.size, into, request.session.out)
    need_space(request.scratch, 8 * path.stat().st_size, f"unpacking {up.archive}")
    archive.unpack(path, folder, subdir=up.subdir)
    return replace(up, correction=correct(request.session, up, folder, bound=bool(up.tree) and not request.relock))


def local_archive(request: FetchRequest, folder: Path) -> Upstream:
    """Unpack a tar or zip of this machine. Raises SourceError, HashMismatch, ArchiveError, NoSpace."""
    up, path = request.upstream, request.path or Path(request.upstream.archive)
    if not path.is_file():
        raise SourceError(f"there is no archive {path}", hint="turbotool vendor --source archive --path FILE")
    if up.sha256 and not request.relock:
        check_sha256(path, up.sha256)
    need_space(request.scratch, 8 * path.stat().st_size, f"unpacking {path.name}")
    whole = request.scratch / "unpacked"
    archive.unpack(path, whole, subdir=up.subdir)
    inside = list(whole.iterdir())
    # Archives usually hold one folder named after the release; its content is what we want.
    single = not up.subdir and len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink()
    (inside[0] if single else whole).rename(folder)
    return replace(up, archive=path.name, sha256=sha256_file(path), size=path.stat().st_size)


def local_dir(request: FetchRequest, folder: Path) -> Upstream:
    """Copy a folder; of a checkout, what git would keep. Raises SourceError (also for a link out of it), NoSpace."""
    path = request.path
    if path is None or not path.is_dir():
        raise SourceError(f"there is no folder {path}", hint="turbotool vendor --source dir --path FOLDER")
    tracked = None
    if (path / ".git").exists():  # a checkout: what git would keep, not what somebody built in it
        tracked = git.Git(path, request.session.keep).names(
            "ls-files", "-z", "--cached", "--others", "--exclude-standard"
        )
    names = tracked if tracked is not None else [str(item.relative_to(path)) for item in path.rglob("*")]
    with space_guard(folder):
        folder.mkdir()
        for name in names:
            if ".git" not in Path(name).parts:
                _copy(path, path / name, folder / name)
    return request.upstream


def _copy(root: Path, item: Path, to: Path) -> None:
    if item.is_symlink():
        if not item.resolve().is_relative_to(root.resolve()):
            raise SourceError(f"{item} is a link out of {root}", hint="replace the link by the file, then run it again")
        to.parent.mkdir(parents=True, exist_ok=True)
        to.symlink_to(item.readlink())
    elif item.is_file():
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item, to)
        to.chmod(0o755 if item.stat().st_mode & 0o100 else 0o644)
    elif item.exists() and not item.is_dir():
        raise SourceError(f"{item} is neither file, folder nor link", hint="remove it, then run it again")


def from_git(request: FetchRequest, folder: Path) -> Upstream:
    """Fetch one commit of a repository, without its history. Raises SourceError."""
    up = request.upstream
    repository = git.init(request.scratch / "fetched", request.session.keep)
    wanted = up.commit or up.ref
    if not up.url or not wanted:
        raise SourceError(
            "a git source needs an address and a ref", hint="turbotool vendor --source git --url URL --ref REF"
        )
    request.session.out.say(f"fetching {wanted} from {up.url}")
    commit = fetch_commit(repository, up.url, wanted)
    folder.mkdir()
    index = {"GIT_INDEX_FILE": str(request.scratch / "fetched-index")}
    repository.run("read-tree", commit, env=index)
    repository.run("checkout-index", "--all", f"--prefix={folder}/", env=index)
    return replace(up, commit=commit, date=repository.text("show", "--no-patch", "--format=%cs", commit))


def fetch_commit(repository: git.Git, url: str, wanted: str, *options: str) -> str:
    """Bring a branch, tag or commit of the repository at `url` into this one, without its history; returns its id.

    `options` are further ones of git fetch. Raises SourceError.
    """
    commit = resolve(repository, url, wanted)
    url = address(url)
    _network(repository, url, wanted, "fetch", "--quiet", "--depth=1", "--no-tags", *options, "--", url, commit)
    return commit


def address(url: str) -> str:
    """A folder as an address that git treats like any other server."""
    return f"file://{Path(url).resolve()}" if Path(url).is_dir() else url


def resolve(repository: git.Git, url: str, ref: str) -> str:
    """The full commit id of a branch, tag or full ref name on the server. Raises SourceError."""
    if FULL_ID.fullmatch(ref):
        return ref
    url = address(url)
    lines = _network(repository, url, ref, "ls-remote", "--", url, ref, f"{ref}^{{}}").splitlines()
    matches = (re.fullmatch(r"([0-9a-f]{40})\t(.+)", line) for line in lines)
    found = {match[2]: match[1] for match in matches if match}
    for name in (f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", f"{ref}^{{}}", ref):
        if name in found:
            return found[name]
    hint = f"git ls-remote {url}"
    raise SourceError(f"{url} has no branch, tag or commit {ref!r}", hint=hint)


def _network(repository: git.Git, url: str, ref: str, *words: str) -> str:
    try:
        return repository.run(*words, network=True).output
    except ToolFailed as error:
        tail = error.message.splitlines()[-4:]
        hint = "check the address and the network; git must be able to read it without asking for a password"
        if "not allowed" in error.message:
            hint = "use the https:// or ssh:// address: the others are not encrypted"
        raise SourceError(f"git cannot fetch {ref} from {url}:\n" + "\n".join(tail), hint=hint) from error


SOURCES: Mapping[str, Fetcher] = {"pypi": pypi, "git": from_git, "archive": local_archive, "dir": local_dir}
