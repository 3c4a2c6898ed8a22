"""The build.json of a package: what it was made from and what it needs, without the times and places of the build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from turbotool.build.record import BuildRecord, BuiltFrom
from turbotool.errors import ArchiveError
from turbotool.release.sharedlibs import Needs
from turbotool.system.documents import document

VARIABLE = "variable "  # how the inputs of a build call one of the environment
TOOLS = ("cmake", "ninja", "c", "c++", "nvcc")  # and no compiler cache, which does not change what comes out
PLACES = ("CMAKE_CUDA_COMPILER", "CUDAToolkit_ROOT")  # options that say where something was


@dataclass(frozen=True)
class PackedTool:
    """A program that took part in the build; `banner` is the first line that it says about itself."""

    version: str | None
    banner: str


@dataclass(frozen=True)
class PackedFile:
    """One file in bin/; `bytes` is its size."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Needed:
    """What the package expects of a machine; the lowest `glibc` and the `manylinux` level are empty but on Linux."""

    system_libraries: tuple[str, ...]
    driver_libraries: tuple[str, ...]
    glibc: str
    manylinux: str


@document("package-record", 2, error=ArchiveError)
@dataclass(frozen=True)
class PackageRecord:
    """What of a build is the same wherever and whenever it is done; `reports` is what the programs call the build.

    `variables` are those of the environment that changed what came out, `links` the symbolic links in bin/.
    """

    backend: str
    tree: str
    series: str
    lock: BuiltFrom
    reports: str
    targets: tuple[str, ...]
    notes: tuple[str, ...]
    options: Mapping[str, str]
    variables: Mapping[str, str]
    tools: Mapping[str, PackedTool]
    outputs: tuple[PackedFile, ...]
    links: Mapping[str, str]
    needs: Needed


def portable_record(record: BuildRecord, needs: Needs) -> PackageRecord:
    """The record of a package that is made of this build."""
    variables = {
        name.removeprefix(VARIABLE): value for name, value in record.inputs.items() if name.startswith(VARIABLE)
    }
    tools = {name: record.tools[name] for name in TOOLS if name in record.tools}
    return PackageRecord(
        backend=record.backend,
        tree=record.tree,
        series=record.series,
        lock=record.lock,
        reports=record.reports,
        targets=record.targets,
        notes=record.notes,
        options={name: value for name, value in record.options.items() if name not in PLACES},
        variables=variables,
        tools={name: PackedTool(tool.version, tool.banner) for name, tool in tools.items()},
        outputs=tuple(PackedFile(item.name, item.sha256, item.bytes) for item in record.outputs),
        links=record.links,
        needs=Needed(needs.system, needs.drivers, needs.glibc, needs.level),
    )
