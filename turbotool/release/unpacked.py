"""A package as a user has it: unpacked in a folder of its own, checked against its sums, run in a bare environment."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from turbotool.build.backends import BACKENDS
from turbotool.build.record import NAME as RECORD
from turbotool.build.record import decode_record
from turbotool.errors import ArchiveError, HashMismatch, ToolMissing
from turbotool.programs.binaries import TESTS, TOOLS, Binaries
from turbotool.release.pack import SUMS
from turbotool.release.package import sums_beside
from turbotool.release.record import PackageRecord
from turbotool.system.archive import unpack
from turbotool.system.digest import sha256_file

SUM_LINE = re.compile(r"([0-9a-f]{64})  ([^/\0][^\0]*)")
TREE = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@contextmanager
def unpacked(archive: Path, wrapper: Sequence[str] = ()) -> Iterator[Binaries]:
    """The programs of a package in a temporary folder; `wrapper` are words to put before each of them.

    Raises ArchiveError if it is not there or no package, HashMismatch if it differs from its sums or from the `.sha256`
    beside it.
    """
    if not archive.is_file():
        raise ArchiveError(f"there is no archive {archive}", hint="turbotool package makes one")
    check_digest(archive)
    with tempfile.TemporaryDirectory(prefix="turbotool package ") as scratch:
        folder = unpack_package(archive, Path(scratch) / "unpacked")
        yield programs_in(folder, read_package(archive, folder), tuple(wrapper))


def unpack_package(archive: Path, place: Path) -> Path:
    """The one folder of a package, unpacked into `place`, which must be absent, and compared with its sums.

    Raises ArchiveError, HashMismatch and NoSpace; `place` must be thrown away then.
    """
    unpack(archive, place)
    folders = list(place.iterdir())
    if len(folders) != 1 or not folders[0].is_dir() or folders[0].is_symlink():
        raise ArchiveError(f"{archive} is no package: it holds {len(folders)} things instead of one folder")
    check_sums(archive, folders[0])
    return folders[0]


def check_digest(archive: Path) -> None:
    """Compare with the `.sha256` file beside the archive, if there is one, before anything is unpacked."""
    beside = sums_beside(archive)
    if beside.is_file():
        wanted = beside.read_text(encoding="utf-8", errors="replace").split(" ")[0]
        found = sha256_file(archive)
        if wanted != found:
            raise HashMismatch(f"{archive} has sha256 {found}, {beside.name} says {wanted}", hint="get both again")


def check_sums(archive: Path, folder: Path) -> None:
    """Compare every file with SHA256SUMS, which must name them all."""
    try:
        text = (folder / SUMS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{archive} is no package: no {SUMS} in it") from error
    wanted = {match[2]: match[1] for line in text.splitlines() if (match := SUM_LINE.fullmatch(line))}
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    found = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files if path.name != SUMS}
    names = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    if names:
        first = names[0]
        raise HashMismatch(
            f"{len(names)} files of {archive} differ from its {SUMS}, first {first}: "
            f"{found.get(first, 'missing')} instead of {wanted.get(first, 'nothing')}",
            hint="get the archive again",
        )


def read_package(archive: Path, folder: Path) -> PackageRecord:
    """What the package's build.json says that it is. Raises ArchiveError."""
    try:
        data = (folder / RECORD).read_bytes()
    except OSError as error:
        raise ArchiveError(f"{archive} is no package: no {RECORD} in it") from error
    hint = "get the archive again, or make it anew: turbotool package"
    record = decode_record(data, PackageRecord, f"{archive}: {RECORD}", hint=hint)
    if not TREE.fullmatch(record.tree) or record.backend not in BACKENDS:
        raise ArchiveError(f"{archive} is no package: its {RECORD} names no tree or no backend", hint=hint)
    return record


def programs_in(folder: Path, record: PackageRecord, wrapper: tuple[str, ...] = ()) -> Binaries:
    """The programs of an unpacked package."""
    programs = (*TOOLS, *(name for name in TESTS if name in record.targets))
    return Binaries(folder / "bin", record.tree, record.backend, programs, wrapper, bare=True)


def require_wrapper(wrapper: Sequence[str], hint: str) -> None:
    """Raise ToolMissing, with `hint`, unless the program that shall run the others is there."""
    if wrapper and shutil.which(wrapper[0]) is None:
        raise ToolMissing(f"there is no {wrapper[0]} to run the programs with", hint=hint)
