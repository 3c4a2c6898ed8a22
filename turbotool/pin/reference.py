"""What a person means by REF: another release, an archive, or a ref of a git repository."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.errors import SourceError
from turbotool.layout import Layout
from turbotool.upstream.lock import Upstream, read_lock

REPOSITORY = "https://github.com/ggml-org/llama.cpp"
PACKAGE = "llama-cpp-python"
VERSION = re.compile(r"\d+(\.\d+)+([a-z]+\d+)?(\.post\d+)?")
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
FORMS = "REF is a version such as 0.3.34, a file such as llama.cpp.tar.gz, a git ref, or ADDRESS@REF of a repository"


@dataclass(frozen=True)
class Reference:
    """Another upstream as it was named; `path` is the file of an archive."""

    text: str
    upstream: Upstream
    path: Path | None = None


def parse_reference(layout: Layout, text: str, *, subdir: str = "") -> Reference:
    """Understand REF; nothing is fetched.

    A bare git ref is one of the locked repository, or of llama.cpp's own when the lock names none. `subdir` is the
    folder of an archive that holds the sources. Raises SourceError, LockError.
    """
    locked = read_lock(layout).upstream
    if text.endswith(ARCHIVES):
        path = Path(text)
        if not path.is_file():
            raise SourceError(f"there is no archive {text}", hint=FORMS)
        return Reference(text, Upstream("archive", "", archive=path.name, subdir=subdir), path.absolute())
    if VERSION.fullmatch(text):
        return Reference(text, release(locked, text))
    address, at, ref = text.rpartition("@")
    if at and address and ref and (Path(address).is_dir() or re.match(r"[a-z+]+://|[^/]+:", address)):
        where = str(Path(address).absolute()) if Path(address).is_dir() else address
        return Reference(text, Upstream("git", "", url=where, ref=ref))
    if not text or text.startswith("-") or at or re.search(r"[\s~^:?*\\]", text):
        raise SourceError(f"{text!r} names no upstream", hint=FORMS)
    return Reference(text, Upstream("git", "", url=locked.url or REPOSITORY, ref=text))


def release(locked: Upstream, version: str) -> Upstream:
    """The source distribution of a release; of the locked one with everything that the lock says about it."""
    if locked.source == "pypi" and locked.version == version:
        return replace(locked, tree="")
    package = locked.package or PACKAGE
    stem = f"{package.replace('-', '_')}-{version}"
    inner = locked.subdir.partition("/")[2] or "vendor/llama.cpp"
    return Upstream("pypi", "", package=package, version=version, archive=f"{stem}.tar.gz", subdir=f"{stem}/{inner}")
