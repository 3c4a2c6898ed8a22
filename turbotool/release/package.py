"""What a release archive holds: what a build made, with licences, records and sums; and its signature."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from turbotool.build.environment import source_epoch
from turbotool.build.platforms import Platform
from turbotool.build.record import NAME as RECORD
from turbotool.build.record import BuildRecord, read_record
from turbotool.build.request import BuildRequest
from turbotool.build.run import build_product
from turbotool.errors import PackageError
from turbotool.layout import Layout
from turbotool.release import sbom, sharedlibs
from turbotool.release.pack import Member, with_sums, write_archive
from turbotool.release.parts import licence_texts
from turbotool.release.record import portable_record
from turbotool.release.sharedlibs import Binary, Needs
from turbotool.system import process
from turbotool.system.digest import sha256_file
from turbotool.system.documents import encode
from turbotool.system.extras import require_library
from turbotool.system.locks import work_lock
from turbotool.system.output import Output
from turbotool.system.session import Session

MAX_GLIBC = "2.35"  # Ubuntu 22.04's


@dataclass(frozen=True)
class Package:
    """An archive's name without suffix, what it holds, and what it needs of a machine; `binaries` as they were read."""

    name: str
    platform: Platform
    backend: str
    tree: str
    members: Mapping[str, Member]
    needs: Needs
    epoch: int
    binaries: tuple[Binary, ...] = ()

    @property
    def file_name(self) -> str:
        return f"{self.name}{'.zip' if self.platform.system == 'Windows' else '.tar.gz'}"

    def write(self, folder: Path) -> Path:
        """The archive, in `folder`. Raises NoSpace."""
        target = folder / self.file_name
        write_archive(target, self.name, self.members, self.epoch)
        return target


def require_libraries(*, sign: bool) -> None:
    """Raise ToolMissing unless everything that a package needs beyond a build is installed."""
    sharedlibs.require()
    sbom.require()
    if sign:
        require_library("sigstore>=3", "sign", "--sign needs")


def collect(
    session: Session, request: BuildRequest, platform: Platform, max_glibc: str, env: Mapping[str, str]
) -> Package:
    """Build if needed, then `gather`. Raises what the two raise."""
    with work_lock(session, f"package {request.name}"):
        build_product(session, request, env)
        return gather(session.layout, request, platform, max_glibc, source_epoch(env))


def gather(layout: Layout, request: BuildRequest, platform: Platform, max_glibc: str, epoch: int) -> Package:
    """What the archive will hold of a finished build; `epoch` is the time of its members in seconds.

    Raises PackageError if it would not run elsewhere, tells where it was built, or lacks a licence.
    """
    folder = layout.build(request.name)
    record = read_record(folder)
    if record is None:
        raise PackageError(f"{folder} holds no {RECORD}", hint="turbotool package")
    files = {output.name: (folder / "bin" / output.name).read_bytes() for output in record.outputs}
    binaries = tuple(sharedlibs.read_binary(folder / "bin" / name) for name in files)
    needs = sharedlibs.account(binaries, [*files, *record.links], platform, request.backend.name, max_glibc)
    name = f"llama-{record.reports}-{platform.name}-{request.backend.name}"
    members = assemble(layout, record, files, needs, name, epoch)
    if platform.system != "Windows":  # Microsoft's compiler cannot leave paths out
        refuse_paths(members, (layout.tree, folder))
    return Package(name, platform, request.backend.name, record.tree, members, needs, epoch, binaries)


def assemble(
    layout: Layout, record: BuildRecord, files: Mapping[str, bytes], needs: Needs, name: str, epoch: int
) -> dict[str, Member]:
    """Programs, libraries and links in bin/, licences/, build.json, the bill of materials and the sums."""
    members = {f"bin/{file}": Member(data, executable=True) for file, data in files.items()}
    members |= {f"bin/{link}": Member(link=target) for link, target in record.links.items()}
    texts = {"LICENSE-turbotool": own_licence(layout), **licence_texts(layout.tree)}
    members |= {f"licenses/{file}": Member(text.encode()) for file, text in texts.items()}
    members[RECORD] = Member(encode(portable_record(record, needs)))
    hashes = {f"bin/{output.name}": output.sha256 for output in record.outputs}
    members[sbom.NAME] = Member(sbom.bill(name, record.reports, record.lock, hashes, layout.tree, epoch))
    return with_sums(members)


def own_licence(layout: Layout) -> str:
    """The words of turbotool's own licence."""
    file = layout.root / "LICENSE"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    text = importlib.metadata.distribution("turbotool").read_text("licenses/LICENSE")
    if text is None:
        raise PackageError("this installation of turbotool has no LICENSE", hint="install turbotool again")
    return text


def refuse_paths(members: Mapping[str, Member], folders: Sequence[Path]) -> None:
    """Raise PackageError if a member names one of the folders that it was built in."""
    found = [
        f"{name} names {folder}"
        for name, member in sorted(members.items())
        for folder in folders
        if os.fsencode(folder) in member.data
    ]
    if found:
        raise PackageError(
            "the package tells where it was built:\n" + "\n".join(found),
            hint="leave out compiler options that keep paths, such as -g",
        )


def publish(archive: Path, target: Path) -> str:
    """Move a proven archive to its place and write its sha256 beside it, as `sha256sum --check` reads it."""
    digest = sha256_file(archive)
    archive.replace(target)
    sums_beside(target).write_text(f"{digest}  {target.name}\n", encoding="utf-8")
    return digest


def sums_beside(archive: Path) -> Path:
    return archive.with_name(f"{archive.name}.sha256")


def sign(archive: Path, out: Output) -> Path:
    """Sign with sigstore, by the identity of the release job or of whoever logs in. Returns the bundle's file.

    Raises ToolFailed with what sigstore says.
    """
    bundle = archive.with_name(f"{archive.name}.sigstore.json")
    out.say(f"signing {archive.name}")
    words: list[str | Path] = [sys.executable, "-m", "sigstore", "sign", "--overwrite", "--bundle", bundle, archive]
    process.run(words, cwd=archive.parent)
    return bundle
