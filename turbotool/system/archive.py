"""Untrusted archives: nothing leaves the target folder, no size is believed, damage is an ArchiveError."""

from __future__ import annotations

import errno
import gzip
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, cast

from turbotool.errors import ArchiveError, NoSpace
from turbotool.system.files import space_guard

CHUNK = 1 << 20
HEADER_LIMIT = 1 << 20  # the longest name or pax record that is believed, bytes
LAST_TIME = 253_402_300_800  # seconds since 1970 at the end of the year 9999, the last that has a date
LINK_LIMIT = 4096  # bytes of a link's target in a zip
RATIO_FREE = 16 << 20  # unpacked bytes below which the ratio says nothing
HINT = "get the archive again, or name another one"
# What the decoders raise on damaged input; an OSError of the disk itself is told apart in `_guarded`.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    IndexError,  # zipfile, of a member without a name
    ValueError,
    OverflowError,
    RuntimeError,
    NotImplementedError,
    MemoryError,
)


@dataclass(frozen=True)
class Limits:
    """What an archive may cost: members, unpacked bytes, and unpacked bytes per archive byte."""

    members: int = 100_000
    total: int = 4 << 30
    ratio: float = 120.0


@dataclass
class Meter:
    """Counts bytes that were really read, whatever the headers say."""

    archive: Path
    limits: Limits
    size: int
    total: int = 0
    members: int = 0

    def member(self, name: str) -> None:
        self.members += 1
        if self.members > self.limits.members:
            raise ArchiveError(f"{self.archive}: more than {self.limits.members} members, at {name!r}", hint=HINT)

    def count(self, amount: int, name: str) -> None:
        self.total += amount
        if self.total > self.limits.total:
            raise ArchiveError(f"{self.archive}: unpacks to over {self.limits.total} bytes, at {name!r}", hint=HINT)
        if self.total > RATIO_FREE and self.total > self.limits.ratio * self.size:
            raise ArchiveError(
                f"{self.archive}: unpacks to over {self.limits.ratio:g} times its size, at {name!r}", hint=HINT
            )


@dataclass
class Target:
    """The folder being filled. Knows each name taken, so that nothing is written twice or through a link."""

    archive: Path
    folder: Path
    prefix: tuple[str, ...]
    kinds: dict[str, tuple[str, str]] = field(default_factory=dict)
    links: list[tuple[Path, str, str]] = field(default_factory=list)

    def place(self, name: str, kind: str) -> Path | None:
        """Where a member goes, or None when it is outside the wanted subfolder or git's own. Raises ArchiveError."""
        parts = self._parts(name)
        if parts[: len(self.prefix)] != self.prefix or len(parts) == len(self.prefix):
            return None
        inner = parts[len(self.prefix) :]
        if any(part.casefold() == ".git" for part in inner):
            return None
        for depth in range(1, len(inner)):
            self._take(inner[:depth], "folder", name)
        self._take(inner, kind, name)
        path = self.folder.joinpath(*inner)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _parts(self, name: str) -> tuple[str, ...]:
        if name.startswith("/") or "\\" in name or "\0" in name or name[1:2] == ":":
            raise ArchiveError(f"{self.archive}: member {name!r} is not a relative path", hint=HINT)
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if ".." in parts:
            raise ArchiveError(f"{self.archive}: member {name!r} escapes its folder", hint=HINT)
        return parts

    def _take(self, parts: tuple[str, ...], kind: str, member: str) -> None:
        # Two names that one file system or another takes for the same would overwrite each other there.
        name = "/".join(parts)
        key = unicodedata.normalize("NFC", name).casefold()
        taken = self.kinds.get(key)
        if taken is None:
            self.kinds[key] = (name, kind)
        elif taken != (name, "folder") or kind != "folder":
            raise ArchiveError(f"{self.archive}: member {member!r} collides with {taken[1]} {taken[0]!r}", hint=HINT)

    def unpacked(self, name: str) -> Path | None:
        """The file that a member of that name was unpacked to, or None."""
        inner = self._parts(name)[len(self.prefix) :]
        key = unicodedata.normalize("NFC", "/".join(inner)).casefold()
        return self.folder.joinpath(*inner) if self.kinds.get(key) == ("/".join(inner), "file") else None

    def make_links(self) -> None:
        """Create the symbolic links, last, and refuse those that lead out of the folder."""
        root = self.folder.resolve()
        for path, target, _ in self.links:
            path.symlink_to(target)
        for path, target, name in self.links:
            try:
                inside = not target.startswith("/") and path.resolve().is_relative_to(root)
            except (OSError, RuntimeError):
                inside = False
            if not inside:
                raise ArchiveError(f"{self.archive}: link {name!r} leads out of the tree, to {target!r}", hint=HINT)


def unpack(archive: Path, folder: Path, *, subdir: str = "", limits: Limits | None = None) -> int:
    """Unpack the files below `subdir` of a .tar, .tar.gz or .zip into `folder`, which must be empty or absent.

    Files become 0644 or 0755; `.git` is left out. Returns the number of members seen.
    Raises ArchiveError, and NoSpace when the disk fills; `folder` is then half full and must be thrown away.
    """
    with space_guard(folder), _guarded(archive):
        meter = Meter(archive, limits or Limits(), archive.stat().st_size)
        target = Target(archive, folder, tuple(part for part in subdir.split("/") if part))
        folder.mkdir(parents=True, exist_ok=True)
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, target, meter)
        else:
            _unpack_tar(archive, target, meter)
        target.make_links()
    if not target.kinds:
        where = f"folder {subdir!r}" if subdir else "file"
        raise ArchiveError(f"{archive}: holds no {where}", hint="name the folder that holds the sources with --subdir")
    return meter.members


def read_member(archive: Path, member: str, into: Path, *, limit: int = Limits.total) -> None:
    """Copy one member of a zip to `into`, at most `limit` bytes. Raises ArchiveError, OSError."""
    with _guarded(archive), zipfile.ZipFile(archive) as file:
        meter = Meter(archive, Limits(total=limit, ratio=1100.0), archive.stat().st_size)
        try:
            info = file.getinfo(member)
        except KeyError as error:
            raise ArchiveError(f"{archive}: holds no member {member!r}", hint=HINT) from error
        _check_compression(archive, info)
        with file.open(info) as source, into.open("wb") as stream:
            _copy(source, stream, meter, member)


def read_text(archive: Path, member: str, *, limit: int) -> str:
    """The first `limit` bytes of a file in a .tar or .tar.gz, '' if none has that name. Raises ArchiveError."""
    with _members(archive) as (tar, members):
        for item in members:
            if item.name == member and item.isreg():
                return cast(IO[bytes], tar.extractfile(item)).read(limit).decode("ascii", "replace")
    return ""


def newest_time(archive: Path, subdir: str) -> int:
    """The newest time, in whole seconds since 1970, of a file below `subdir` in a .tar or .tar.gz; 0 if there is none.

    Raises ArchiveError, also for a time that no calendar has.
    """
    with _members(archive) as (_, members):
        newest = max((item.mtime for item in members if item.isreg() and item.name.startswith(f"{subdir}/")), default=0)
        if not 0 <= newest < LAST_TIME:
            raise ArchiveError(f"{archive}: a member is of the time {newest}", hint=HINT)
        return int(newest)


@contextmanager
def _members(archive: Path) -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
    """A tar that is open to be read once, and its members in order, each counted."""
    with _guarded(archive), archive.open("rb") as raw, _decompressed(raw) as source:
        meter = Meter(archive, Limits(), archive.stat().st_size)
        headers = cast(IO[bytes], _Headers(cast(BinaryIO, source), archive))
        with tarfile.open(fileobj=headers, mode="r:") as tar:

            def counted() -> Iterator[tarfile.TarInfo]:
                for item in tar:
                    meter.member(item.name)
                    yield item

            yield tar, counted()


@contextmanager
def _guarded(archive: Path) -> Iterator[None]:
    try:
        yield
    except (ArchiveError, NoSpace):
        raise
    except DAMAGE as error:
        raise ArchiveError(
            f"{archive} is damaged or not an archive: {error or type(error).__name__}", hint=HINT
        ) from error
    except OSError as error:
        # From the system: a full disk, a missing file. Invalid is a place before the file's beginning, in a bad header.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise ArchiveError(f"{archive} is damaged: {error}", hint=HINT) from error


def _copy(source: IO[bytes], stream: BinaryIO, meter: Meter, name: str) -> int:
    done = 0
    while data := source.read(CHUNK):
        meter.count(len(data), name)
        stream.write(data)
        done += len(data)
    return done


class _Headers:
    """A tar that refuses long reads: tarfile reads a whole name or pax record at once, whatever size it claims."""

    def __init__(self, stream: BinaryIO, archive: Path) -> None:
        self.stream, self.archive = stream, archive

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= max(HEADER_LIMIT, CHUNK):
            raise ArchiveError(f"{self.archive}: a header claims {size} bytes", hint=HINT)
        return self.stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        return self.stream.tell()


def _unpack_tar(archive: Path, target: Target, meter: Meter) -> None:
    # The plain tar goes to a file first: limits hold before anything is parsed, and every seek is cheap.
    with tempfile.TemporaryFile(dir=target.folder.parent) as plain:
        with archive.open("rb") as raw, _decompressed(raw) as source:
            _copy(source, cast(BinaryIO, plain), Meter(archive, meter.limits, meter.size), "the archive itself")
        plain.seek(0)
        headers = cast(IO[bytes], _Headers(cast(BinaryIO, plain), archive))
        with tarfile.open(fileobj=headers, mode="r:") as tar:
            for member in tar:
                meter.member(member.name)
                _tar_member(tar, member, target, meter)
            plain.seek(tar.offset)
        # tarfile ends silently at a header that it cannot read; a real end is zeros or the end of the file.
        if plain.read(512).strip(b"\0"):
            raise ArchiveError(f"{archive}: a damaged header follows member {meter.members}", hint=HINT)


def _decompressed(raw: BinaryIO) -> IO[bytes]:
    magic = raw.read(2)
    raw.seek(0)
    if magic == b"\x1f\x8b":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    return raw


def _tar_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Target, meter: Meter) -> None:
    name, archive = member.name, target.archive
    if member.isdir():
        if path := target.place(name, "folder"):
            path.mkdir(exist_ok=True)
    elif member.issym():
        if path := target.place(name, "link"):
            target.links.append((path, member.linkname, name))
    elif member.islnk():
        origin = target.unpacked(member.linkname)
        if path := target.place(name, "file"):
            if origin is None:
                raise ArchiveError(
                    f"{archive}: hard link {name!r} leads to no unpacked file, {member.linkname!r}", hint=HINT
                )
            with origin.open("rb") as source:
                _write(source, path, bool(origin.stat().st_mode & stat.S_IXUSR), meter, name)
    elif member.isreg() and not member.issparse():
        if path := target.place(name, "file"):
            with cast(IO[bytes], tar.extractfile(member)) as content:
                size = _write(content, path, bool(member.mode & stat.S_IXUSR), meter, name)
            if size != member.size:
                raise ArchiveError(
                    f"{archive}: member {name!r} is cut off after {size} of {member.size} bytes", hint=HINT
                )
    else:
        raise ArchiveError(f"{archive}: member {name!r} is neither file, folder nor link", hint=HINT)


def _unpack_zip(archive: Path, target: Target, meter: Meter) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            name, mode = member.filename, member.external_attr >> 16
            meter.member(name)
            kind = stat.S_IFMT(mode)
            _check_compression(archive, member)
            if member.is_dir():
                if path := target.place(name, "folder"):
                    path.mkdir(exist_ok=True)
            elif kind == stat.S_IFLNK:
                if path := target.place(name, "link"):
                    with file.open(member) as source:
                        target.links.append((path, source.read(LINK_LIMIT).decode("utf-8"), name))
            elif kind in (0, stat.S_IFREG):
                if path := target.place(name, "file"):
                    with file.open(member) as source:
                        _write(source, path, bool(mode & stat.S_IXUSR), meter, name)
            else:
                raise ArchiveError(f"{archive}: member {name!r} is neither file, folder nor link", hint=HINT)


def _check_compression(archive: Path, member: zipfile.ZipInfo) -> None:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others may ask for any memory
        raise ArchiveError(f"{archive}: member {member.filename!r} has an unsupported compression", hint=HINT)


def _write(source: IO[bytes], path: Path, executable: bool, meter: Meter, name: str) -> int:
    with path.open("xb") as stream:
        size = _copy(source, stream, meter, name)
    path.chmod(0o755 if executable else 0o644)
    return size
