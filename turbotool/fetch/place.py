"""Where fetched releases stand, one for each platform and backend; which one is there, and what may replace it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from turbotool import __version__
from turbotool.build.backends import BACKENDS
from turbotool.build.platforms import PLATFORMS, Platform
from turbotool.errors import ArchiveError, AttestationError, DocumentError, HashMismatch, OlderRelease, UsageMistake
from turbotool.layout import Layout
from turbotool.release.record import PackageRecord
from turbotool.system.digest import sha256_file
from turbotool.system.documents import document, encode, read
from turbotool.system.files import remove, space_guard
from turbotool.upstream.lock import read_lock

if TYPE_CHECKING:  # the command line imports this module to print its help
    from packaging.version import Version

RECORD, RELEASE = "fetched.json", "release"
NAME = re.compile(rf"llama-(.+)-({'|'.join(PLATFORMS)})-({'|'.join(BACKENDS)})\.(?:tar\.gz|zip)")


@document("fetched")
@dataclass(frozen=True)
class Fetched:
    """A release that was checked and put in its place: where it comes from, as attested, and its sha256."""

    tag: str
    commit: str
    repository: str
    archive: str
    sha256: str
    tree: str


@dataclass(frozen=True)
class ArchiveName:
    """What an archive is for, as its name says; `reports` is what its programs call themselves."""

    reports: str
    platform: Platform
    backend: str

    @property
    def name(self) -> str:
        return f"{self.platform.name}-{self.backend}"


def target_of(archive: str) -> ArchiveName:
    """Raises UsageMistake for a name that no archive of a release has."""
    match = NAME.fullmatch(archive)
    if match is None:
        raise UsageMistake(
            f"{archive} is not named as an archive of a release",
            hint="keep its name: llama-<commit>-turbo-<tree>-<platform>-<backend>.tar.gz",
        )
    return ArchiveName(match[1], PLATFORMS[match[2]], match[3])


def folder_of(layout: Layout) -> Path:
    """The folder that holds all of them."""
    return layout.builds / "fetched"


def installed(layout: Layout, target: ArchiveName) -> Fetched | None:
    """The release that is there; None also for what is damaged, which is replaced."""
    try:
        return read(folder_of(layout) / target.name / RECORD, Fetched)
    except DocumentError:
        return None


def require_newer(tag: str, there: Fetched | None, *, older: bool) -> str:
    """What the release was compared with. Raises OlderRelease, unless `older` is allowed, for one that is older than
    the one that is there, or than this turbotool."""
    known = {f"turbotool {__version__}": __version__}
    if there:
        known[f"{there.tag}, which is here"] = there.tag.removeprefix("v")
    found = _version(tag)
    newer = next((name for name, version in known.items() if _version(version) > found), None)
    if newer and not older:
        raise OlderRelease(
            f"{tag} is older than {newer}: who serves an old release may want its defects",
            hint="get the newest release, or add --allow-older",
        )
    return f"{tag} is older than {newer}, which --allow-older allows" if newer else f"not older than {', '.join(known)}"


def _version(text: str) -> Version:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(text.removeprefix("v"))
    except InvalidVersion as error:
        raise AttestationError(f"the tag {text} is no version", hint="get a release whose tag is one") from error


def require_same(layout: Layout, folder: Path, record: PackageRecord, target: ArchiveName, tag: str) -> str:
    """Compare what was unpacked with its name, its record and, where it is of this version, with this turbotool's lock.

    Says what the lock was compared with. Raises ArchiveError, HashMismatch, and what reading the lock raises.
    """
    if (record.reports, record.backend) != (target.reports, target.backend):
        raise ArchiveError(
            f"the archive is named after {target.reports} for {target.backend}, its build.json says {record.reports} "
            f"for {record.backend}",
            hint="get the archive again, from the release's own page",
        )
    files = {path.name: path for path in folder.glob("bin/*") if path.is_file()}
    for output in record.outputs:
        found = sha256_file(files[output.name]) if output.name in files else "missing"
        if found != output.sha256:
            raise HashMismatch(f"bin/{output.name} is {found}, build.json says {output.sha256}", hint="get it again")
    if tag != f"v{__version__}":
        return f"not compared: {tag} has a lock of its own, this is turbotool {__version__}"
    lock = read_lock(layout)
    wanted, upstream = lock.series.tree, lock.upstream
    if (record.tree, record.lock.tag, record.lock.commit) != (wanted, upstream.tag, upstream.commit):
        raise HashMismatch(
            f"the archive is built from tree {record.tree} of {record.lock.known_as}, {layout.lock_file} locks "
            f"{wanted} of {upstream.known_as}",
            hint=f"compare with the lock of {tag}, or get the release of this turbotool",
        )
    return f"tree {wanted} of llama.cpp {upstream.known_as}, as in vendor/lock.toml"


def put(layout: Layout, target: ArchiveName, ready: Path, record: Fetched) -> Path:
    """Swap a checked release in, with its record; returns its folder. Raises NoSpace.

    `ready` is a folder on the same disk, in a scratch folder that is thrown away.
    """
    place = folder_of(layout) / target.name
    whole, old = ready.parent / "whole", ready.parent / "old"
    with space_guard(place):
        whole.mkdir()
        ready.replace(whole / RELEASE)
        (whole / RECORD).write_bytes(encode(record))
        if place.exists():
            place.replace(old)
        whole.replace(place)
    return place / RELEASE


def sweep(layout: Layout, prefix: str) -> None:
    """Remove what a killed run left. The caller holds the lock."""
    for left in folder_of(layout).glob(f"{prefix}*"):
        remove(left)
