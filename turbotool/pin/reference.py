"""What a person means by REF: another release, an archive, or a ref of a git repository."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.errors import SourceError
from turbotool.layout import Layout
from turbotool.upstream.lock import Upstream, read_lock
from turbotool.upstream.packages import DEFAULT, PACKAGES, normalized, stem

REPOSITORY = "https://github.com/ggml-org/llama.cpp"
VERSION = re.compile(r"\d+(\.\d+)+([a-z]+\d+)?(\.post\d+)?")
RELEASE = re.compile(rf"([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)==({VERSION.pattern})", re.ASCII)
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
FORMS = (
    "REF is a version of llama-cpp-python such as 0.3.34, PACKAGE==VERSION, a file such as llama.cpp.tar.gz, "
    "a git ref, or ADDRESS@REF of a repository"
)


@dataclass(frozen=True)
class Reference:
    """Another upstream as it was named; `path` is the file of an archive."""

    text: str
    upstream: Upstream
    path: Path | None = None


def parse_reference(layout: Layout, text: str, *, subdir: str = "") -> Reference:
    """Understand REF; nothing is fetched.

    A bare version is one of llama-cpp-python, whatever is locked; a bare git ref is one of the locked repository, or of
    llama.cpp's own when the lock names none. `subdir` is the folder that holds the sources, in an archive or in that of
    a package. Raises SourceError, LockError.
    """
    locked = read_lock(layout).upstream
    if text.endswith(ARCHIVES):
        path = Path(text)
        if not path.is_file():
            raise SourceError(f"there is no archive {text}", hint=FORMS)
        return Reference(text, Upstream("archive", "", archive=path.name, subdir=subdir), path.absolute())
    if VERSION.fullmatch(text):
        return Reference(text, release(locked, DEFAULT, text))
    if match := RELEASE.fullmatch(text):
        return Reference(text, release(locked, match[1], match[2], subdir=subdir))
    address, at, ref = text.rpartition("@")
    if at and address and ref and (Path(address).is_dir() or re.match(r"[a-z+]+://|[^/]+:", address)):
        where = str(Path(address).absolute()) if Path(address).is_dir() else address
        return Reference(text, Upstream("git", "", url=where, ref=ref))
    if not text or text.startswith("-") or at or re.search(r"[\s~^:?*\\]", text):
        raise SourceError(f"{text!r} names no upstream", hint=FORMS)
    return Reference(text, Upstream("git", "", url=locked.url or REPOSITORY, ref=text))


def release(locked: Upstream, package: str, version: str, *, subdir: str = "") -> Upstream:
    """The source distribution of a release; of the locked one with everything that the lock says about it.

    `subdir` may leave out the folder at the top of the archive. Raises SourceError for a package of which nobody has
    said where llama.cpp is in it.
    """
    package, top = normalized(package), stem(package, version)
    known = PACKAGES.get(package)
    here = locked if locked.source == "pypi" and normalized(locked.package) == package else None
    if here and here.version == version and subdir in ("", here.subdir):
        return replace(here, tree="")
    inner = subdir.removeprefix(f"{top}/").strip("/") or (known.subdir if known else "")
    if not inner and here:
        inner = here.subdir.partition("/")[2]
    if not inner:
        raise SourceError(
            f"nobody has said where llama.cpp is in the source distribution of {package}",
            hint=f"name its folder with --subdir; known are {', '.join(PACKAGES)}",
        )
    tag = known.tag(version) if known else ""
    where = f"{top}/{inner}"
    return Upstream("pypi", "", package=package, version=version, archive=f"{top}.tar.gz", subdir=where, tag=tag)
