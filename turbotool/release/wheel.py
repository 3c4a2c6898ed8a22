"""A wheel: the libraries of a package, and the Python package that makes bindings load them.

A wheel holds no links, so that each library is there once, by the name that it is looked for. What each file of
`.dist-info` says is in PyPA's specifications: binary distribution format, core metadata, and PEP 770 for the bill.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from turbotool import __version__
from turbotool.build.platforms import Platform
from turbotool.build.record import NAME as BUILD_RECORD
from turbotool.errors import PackageError
from turbotool.layout import Layout
from turbotool.release import sbom, sharedlibs
from turbotool.release.pack import Member, write_archive
from turbotool.release.package import Package, refuse_paths
from turbotool.release.parts import PARTS
from turbotool.release.record import PackageRecord
from turbotool.release.sharedlibs import Binary, Needs, base_name
from turbotool.system.documents import decode
from turbotool.system.extras import require_library
from turbotool.system.session import Session

PYTHON = "py3-none"
LIBRARY = {"Linux": "lib{}.so", "Darwin": "lib{}.dylib", "Windows": "{}.dll"}
BACKEND = re.compile(r"(lib)?ggml-[\w-]+\.(so|dll)")  # what ggml looks for when it runs, whoever links it
OWN_LICENCE = "LICENSE-turbotool"


class Carried(Protocol):
    """The Python package of a wheel: its name and a page about it, the folder below it that libraries go to, those that
    its bindings load by name, such as `llama`, and an extra that brings these bindings."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def folder(self) -> str: ...
    @property
    def loaded(self) -> tuple[str, ...]: ...
    @property
    def extra(self) -> str: ...
    @property
    def requirement(self) -> str: ...

    def files(self, tree: str, sources: Path) -> Mapping[str, bytes]:
        """Its files as they lie in a folder of packages, for libraries of this git tree, which is in `sources`."""

    def try_out(self, session: Session, wheel: Path) -> None:
        """Raise an error unless the bindings run on the libraries of the wheel."""


@dataclass(frozen=True)
class Wheel(Package):
    """A wheel in place of an archive: its members lie in no folder of their own."""

    @property
    def file_name(self) -> str:
        return f"{self.name}.whl"

    def write(self, folder: Path) -> Path:
        """The wheel, in `folder`. Raises NoSpace."""
        target = folder / self.file_name
        write_archive(target, "", self.members, self.epoch)
        return target


def require() -> None:
    """Raise ToolMissing unless the library is installed."""
    require_library("packaging>=26", "package", "the metadata of a wheel need")


def gather(layout: Layout, package: Package, carried: Carried, max_glibc: str) -> Wheel:
    """The wheel of what a package holds.

    Raises PackageError if it would not run elsewhere or tells where it was built, and what `carried.files` raises.
    """
    record = decode(package.members[BUILD_RECORD].data, PackageRecord, BUILD_RECORD)
    named = libraries(package.binaries, record.links, carried.loaded, package.platform)
    inside = [*named, *record.links, *(binary.name for binary in package.binaries)]
    needs = sharedlibs.account([*named.values()], inside, package.platform, package.backend, max_glibc)
    version = version_of(record.reports, package.backend)
    info = f"{carried.name}-{version}.dist-info"
    tag = f"{PYTHON}-{platform_tag(package.platform, needs, [*named.values()])}"
    members = {name: Member(data) for name, data in carried.files(package.tree, layout.tree).items()}
    for name, binary in named.items():
        file = replace(package.members[f"bin/{binary.name}"], executable=True)
        members[f"{carried.name}/{carried.folder}/{name}"] = file
    parts = [part for part in PARTS if part.library]
    notices = sorted([OWN_LICENCE, *(part.file_name for part in parts)])
    members |= {f"{info}/licenses/{file}": package.members[f"licenses/{file}"] for file in notices}
    hashes = {name: hashlib.sha256(member.data).hexdigest() for name, member in members.items() if member.executable}
    bill = sbom.bill(carried.name, version, record.lock, hashes, layout.tree, package.epoch, parts)
    members[f"{info}/sboms/{carried.name}.cdx.json"] = Member(bill)
    members[f"{info}/METADATA"] = Member(metadata(carried, version, notices))
    members[f"{info}/WHEEL"] = Member(about(tag))
    members[f"{info}/RECORD"] = Member(sums(members, f"{info}/RECORD"))
    if package.platform.system != "Windows":
        refuse_paths(members, (layout.tree,))
    name = f"{carried.name}-{version}-{tag}"
    return Wheel(name, package.platform, package.backend, package.tree, members, needs, package.epoch)


def libraries(
    binaries: Sequence[Binary], links: Mapping[str, str], loaded: Sequence[str], platform: Platform
) -> dict[str, Binary]:
    """The libraries by the name that each is looked for: those that are loaded, ggml's backends, and what they need.

    `links` are names that stand for another. Raises PackageError if one that is to be loaded is not there.
    """
    there = {binary.name: binary for binary in binaries}
    wanted = [LIBRARY[platform.system].format(name) for name in loaded]
    if lacking := [name for name in wanted if _file(name, links) not in there]:
        raise PackageError(f"the build made no {', '.join(lacking)}", hint="leave out --cmake-option BUILD_SHARED_LIBS")
    wanted += sorted(name for name in there if BACKEND.fullmatch(name))
    named: dict[str, Binary] = {}
    for name in wanted:  # which grows
        found = there.get(_file(name, links))
        if found and name not in named:
            named[name] = found
            wanted += [base_name(needed) for needed in found.needed]
    return named


def _file(name: str, links: Mapping[str, str]) -> str:
    for _ in links:  # as many steps at most, should they lead in a circle
        name = links.get(name, name)
    return name


def version_of(reports: str, backend: str) -> str:
    """turbotool's version, and as PEP 440's local one what the libraries are: upstream, tree and backend.

    >>> version_of("b11549-turbo-087677133", "cpu")
    '0.1.0+b11549.turbo087677133.cpu'
    """
    # digits alone would be a number, and lose the zeros that they begin with
    local = f"{reports.replace('-turbo-', '.turbo')}.{backend}".lower()
    return f"{__version__}+{re.sub(r'[^a-z0-9]+', '.', local).strip('.')}"


def platform_tag(platform: Platform, needs: Needs, binaries: Sequence[Binary]) -> str:
    """The machines that a wheel is for, as its name tells pip. Raises PackageError if the libraries do not tell."""
    if platform.system == "Linux":
        return needs.level
    if platform.system == "Windows":
        return f"win_{platform.processor.lower()}"
    versions = {tuple(int(part) for part in binary.macos.split(".")) for binary in binaries if binary.macos}
    if not versions:
        raise PackageError("no library tells which macOS it is for", hint="turbotool build")
    major, minor = max(versions)
    return f"macosx_{major}_{minor if major == 10 else 0}_{platform.processor}"  # noqa: PLR2004 (the last with minor ones)


def metadata(carried: Carried, version: str, notices: Sequence[str]) -> bytes:
    """METADATA: what pip and people are told. Home and Python versions are those of turbotool."""
    from packaging.metadata import Metadata

    own = importlib.metadata.metadata("turbotool")
    pairs = [entry.partition(", ") for entry in own.get_all("Project-URL") or []]
    name = carried.name.replace("_", "-")
    fields = Metadata.from_raw(
        {
            "metadata_version": "2.4",
            "name": name,
            "version": version,
            "summary": "turbotool's libraries of llama.cpp, with a TurboQuant KV cache, for llama-cpp-python",
            "license_expression": " AND ".join(sorted({part.licence for part in PARTS if part.library})),
            "license_files": list(notices),
            "project_urls": {label: url for label, _, url in pairs},
            "requires_python": own["Requires-Python"],
            "provides_extra": [carried.extra],
            "requires_dist": [f'{carried.requirement}; extra == "{carried.extra}"'],
            "description_content_type": "text/markdown",
            "description": carried.description,
        }
    )
    return fields.as_rfc822().as_bytes()


def about(tag: str) -> bytes:
    """WHEEL: the format, and the machines."""
    lines = ("Wheel-Version: 1.0", f"Generator: turbotool {__version__}", "Root-Is-Purelib: false", f"Tag: {tag}")
    return "".join(f"{line}\n" for line in lines).encode()


def sums(members: Mapping[str, Member], itself: str) -> bytes:
    """RECORD: every file with its hash and size in bytes, the record itself with neither."""
    lines = []
    for name, member in sorted(members.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(member.data).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(member.data)}\n")
    return "".join([*lines, f"{itself},,\n"]).encode()
