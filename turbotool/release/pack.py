"""Archives whose bytes depend on their contents alone: sorted members, one time, no owners."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from turbotool.system.files import space_guard

SUMS = "SHA256SUMS"
FILE, PROGRAM = 0o644, 0o755


@dataclass(frozen=True)
class Member:
    """A file of an archive, held in memory, or a symbolic `link` to a name in the same folder."""

    data: bytes = b""
    executable: bool = False
    link: str = ""


Members = Mapping[str, Member]


def with_sums(members: Members) -> dict[str, Member]:
    """`members` and a file of their sha256, as `sha256sum --check` reads it."""
    hashes = {name: hashlib.sha256(item.data).hexdigest() for name, item in _sorted(members) if not item.link}
    return {**members, SUMS: Member("".join(f"{digest}  {name}\n" for name, digest in hashes.items()).encode())}


def write_archive(target: Path, folder: str, members: Members, epoch: int) -> None:
    """Write `members` under `folder`, '' for none, to a .tar.gz, .zip or .whl; `epoch` is the time of everything.

    Raises NoSpace.
    """
    with space_guard(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        write = _write_zip if target.suffix in (".zip", ".whl") else _write_tar
        write(target, {str(PurePosixPath(folder, name)): member for name, member in members.items()}, epoch)


def _sorted(members: Members) -> list[tuple[str, Member]]:
    return sorted(members.items(), key=lambda item: item[0].encode())


def _write_tar(target: Path, members: Members, epoch: int) -> None:
    with (
        target.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, member in _sorted(members):
            info = tarfile.TarInfo(name)
            info.mtime = epoch
            info.mode = PROGRAM if member.executable else FILE
            if member.link:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, member.link, 0o777
            info.size = len(member.data)
            tar.addfile(info, io.BytesIO(member.data))


def _write_zip(target: Path, members: Members, epoch: int) -> None:
    # No links: a build for Windows makes none, and a wheel has none.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, member in _sorted(members):
            info = zipfile.ZipInfo(name, time.gmtime(epoch)[:6])
            info.create_system = 3
            info.external_attr = (0o100000 | (PROGRAM if member.executable else FILE)) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.data)
