"""A correction takes back what a packager changed in llama.cpp: a patch beside the lock, for one release of a package.

The sources of a release then are upstream's own, byte for byte, and `turbotool vendor check` can say so.
"""

from __future__ import annotations

from pathlib import Path

from turbotool.errors import HashMismatch, SourceError, ToolFailed
from turbotool.layout import Layout
from turbotool.system import git
from turbotool.system.digest import sha256_file
from turbotool.system.session import Session
from turbotool.upstream.lock import Upstream


def folder(layout: Layout) -> Path:
    """Where the corrections are, each named after the archive that it is for."""
    return layout.lock_file.parent / "corrections"


def file_for(layout: Layout, upstream: Upstream) -> Path:
    return folder(layout) / f"{upstream.archive.removesuffix('.tar.gz')}.patch"


def known(layout: Layout, upstream: Upstream) -> str:
    """The sha256 of the correction that there is for a release of a package; '' if there is none."""
    path = file_for(layout, upstream)
    return sha256_file(path) if upstream.source == "pypi" and path.is_file() else ""


def correct(session: Session, upstream: Upstream, files: Path, *, bound: bool) -> str:
    """Apply the correction of a release to its unpacked `files`; returns its sha256, '' where there is none.

    With `bound` it must be the locked one. Raises HashMismatch if it is another, SourceError if it does not apply.
    """
    layout, path = session.layout, file_for(session.layout, upstream)
    found = known(layout, upstream)
    if bound and found != upstream.correction:
        locked, there = upstream.correction or "no correction", found or "there is none"
        raise HashMismatch(
            f"{path}: locked is {locked}, {there}", hint="put the file back; or, if it is meant, vendor with --relock"
        )
    if not found:
        return ""
    session.out.say(f"taking back what {upstream.package} {upstream.version} changed: {path.name}")
    try:
        git.Git(files, session.keep).run("apply", "--whitespace=nowarn", path.absolute())
    except ToolFailed as error:
        lines = "\n".join(error.message.splitlines()[-4:])
        raise SourceError(f"{path} does not apply to {upstream.archive}:\n{lines}", hint="correct the patch") from error
    return found
