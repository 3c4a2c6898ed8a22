"""What `turbotool doctor --json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from msgspec import UNSET, UnsetType, convert

from turbotool.build.tools import Tool
from turbotool.doctor.examine import BackendReport, DoctorReport
from turbotool.programs.devices import Devices
from turbotool.system.documents import ErrorFields, document

T = TypeVar("T")


@dataclass(frozen=True)
class CandidateFields:
    """One place where a tool was found; `version` is null for one that does not run."""

    path: str
    version: str | None
    banner: str
    origin: str
    chosen: bool


@dataclass(frozen=True)
class ToolFields:
    """A tool, what was tried to find it, and every candidate, best first."""

    name: str
    tried: tuple[str, ...]
    candidates: tuple[CandidateFields, ...]


@dataclass(frozen=True)
class PythonFields:
    """The Python that runs turbotool, and whether it is that of a virtual environment."""

    version: str
    executable: str
    venv: bool
    turbotool: str
    system: str


@dataclass(frozen=True)
class PinFields:
    """What is pinned and its age in days, null if unknown, or the `error` that keeps the lock from being read.

    `known_as` is the tag, else the commit, else git's tree id of the pristine files; what is not known is ''.
    """

    commit: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    tree: str | UnsetType = UNSET
    date: str | UnsetType = UNSET
    age_days: int | UnsetType | None = UNSET
    tag: str | UnsetType = UNSET
    known_as: str | UnsetType = UNSET
    error: str | UnsetType = UNSET


@dataclass(frozen=True)
class TreeFields:
    """The vendored tree, if it is there: git's tree id, how many files are edited, whether the series is applied."""

    present: bool
    tree: str | UnsetType = UNSET
    edited: int | UnsetType = UNSET
    applied: bool | UnsetType = UNSET
    error: str | UnsetType = UNSET


@dataclass(frozen=True)
class BuildFields:
    """A build folder: what its programs report and how many files it has, once finished."""

    backend: str
    finished: bool
    version: str | UnsetType = UNSET
    files: int | UnsetType = UNSET


@document("doctor")
@dataclass(frozen=True)
class DoctorDocument:
    """Everything that doctor found; sizes in bytes, null where the system does not say."""

    ok: bool
    warnings: tuple[str, ...]
    tools: tuple[ToolFields, ...]
    backends: tuple[BackendReport, ...]
    devices: tuple[Devices, ...]
    python: PythonFields
    packages: dict[str, str | None]
    disk_free: int
    memory_free: int | None
    work: str
    pin: PinFields
    tree: TreeFields
    builds: tuple[BuildFields, ...]
    error: ErrorFields | UnsetType = UNSET


def doctor_document(report: DoctorReport) -> DoctorDocument:
    return DoctorDocument(
        ok=report.ok,
        warnings=report.warnings,
        tools=tuple(_tool(name, tool) for name, tool in report.tools.by_name.items()),
        backends=report.backends,
        devices=report.devices,
        python=_part(report.python, PythonFields),
        packages=dict(report.packages),
        disk_free=report.disk_free,
        memory_free=report.memory_free,
        work=str(report.work),
        pin=_part(report.pin, PinFields),
        tree=_part(report.tree, TreeFields),
        builds=tuple(_part(build, BuildFields) for build in report.builds),
    )


def _tool(name: str, tool: Tool) -> ToolFields:
    candidates = (
        CandidateFields(found.path, found.version, found.banner, found.origin, found is tool.chosen)
        for found in tool.candidates
    )
    return ToolFields(name, tool.tried, tuple(candidates))


def _part(found: Mapping[str, object], of: type[T]) -> T:
    """What doctor tells field by field, as far as it could look."""
    return convert(dict(found), of)
