"""build.json: what was built from what, written last; and the question whether it still holds."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from turbotool.build.backends import BACKENDS
from turbotool.build.key import differences
from turbotool.build.request import Asked
from turbotool.errors import DocumentError
from turbotool.system.digest import sha256_file
from turbotool.system.documents import convert, document, kind_of, parse
from turbotool.upstream.lock import known_as

NAME = "build.json"
T = TypeVar("T")
_LIBRARY = re.compile(r"\.(so(\.[\d.]+)?|dylib|dll)$")


@dataclass(frozen=True)
class Built:
    """One file in bin/: `bytes` is its size, `mtime_ns` spares hashing it again."""

    name: str
    sha256: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class BuiltFrom:
    """The locked upstream: commit and tag, '' if not known, tree, and the kind of its source, such as `pypi`."""

    commit: str
    source: str
    tag: str = ""
    tree: str = ""

    @property
    def known_as(self) -> str:
        return known_as(self.tag, self.commit, self.tree)


@dataclass(frozen=True)
class UsedTool:
    """A program that took part in a build; `banner` is the first line that it says about itself."""

    path: str
    version: str | None
    banner: str


@document("build-record", 2)
@dataclass(frozen=True)
class BuildRecord:
    """A finished build: `key` is the hash of its `inputs`, `tree` the git tree, `reports` what the programs call it.

    `asked` is what the command line chose, `links` are symbolic links in bin/ with what they point at, `run_env` is
    what the programs need in their environment, `seconds` is wall time, `log` is relative to the build folder.
    """

    key: str
    inputs: Mapping[str, str]
    backend: str
    tree: str
    series: str
    lock: BuiltFrom
    reports: str
    tools: Mapping[str, UsedTool]
    options: Mapping[str, str]
    targets: tuple[str, ...]
    asked: Asked
    outputs: tuple[Built, ...]
    links: Mapping[str, str]
    run_env: Mapping[str, str]
    notes: tuple[str, ...]
    seconds: float
    log: str


def read_record(folder: Path) -> BuildRecord | None:
    """The record of the last finished build in `folder`; None if there is none.

    Raises DocumentError for one that is damaged or of another version: no build to go on from.
    """
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DocumentError(f"cannot read {folder / NAME}: {error.strerror}", hint="turbotool build") from error
    return decode_record(data, BuildRecord, NAME, hint="turbotool build")


def last_record(folder: Path) -> BuildRecord | None:
    """As `read_record`, with None also for a record that is damaged or of another version."""
    try:
        return read_record(folder)
    except DocumentError:
        return None


def decode_record(data: bytes, of: type[T], where: str, *, hint: str) -> T:
    """A build.json, as `documents.decode` reads it. The form of turbotool 0.1.0, which numbered it, was version 1."""
    fields = parse(data, of, where, hint=hint)
    if isinstance(fields, dict) and fields.get("schema") == 1:
        kind = kind_of(of)
        message = f"{where} is of version 1, older than {kind.version}: an older turbotool made it"
        raise kind.error(message, hint=hint)
    return convert(fields, of, where, hint=hint)


def recorded_backend(folder: Path) -> str:
    """The backend that the build.json in `folder` names, be it of a build or of a package; "" where none is named.

    Of any version: a folder of programs may be older or newer than this turbotool, and each version has this field.
    """
    backend = _recorded(folder).get("backend")
    return backend if isinstance(backend, str) and backend in BACKENDS else ""


def recorded_tree(folder: Path) -> str:
    """The git tree that the build.json in `folder` names, be it of a build or of a package; "" where none is named."""
    tree = _recorded(folder).get("tree")
    return tree if isinstance(tree, str) else ""


def _recorded(folder: Path) -> dict[str, object]:
    """The fields of a build.json of any version; none where it cannot be read."""
    try:
        fields = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def stale_reasons(record: BuildRecord | None, key: str, inputs: Mapping[str, str], folder: Path) -> list[str]:
    """Why `record` does not describe a build with these inputs in `folder`; empty if it does."""
    if record is None:
        return ["no previous build"]
    if record.key != key:
        return differences(record.inputs, inputs) or ["the key changed"]
    broken = [reason for output in record.outputs if (reason := _defect(folder / "bin", output))]
    links = [name for name, target in record.links.items() if not _points(folder / "bin" / name, target)]
    return broken + [f"output {name} is missing" for name in links]


def _points(link: Path, target: str) -> bool:
    try:
        return os.readlink(link) == target  # noqa: PTH115 (the stored text, not a resolved path)
    except (OSError, ValueError):  # ValueError: no name that a file can have
        return False


def _defect(folder: Path, output: Built) -> str | None:
    try:
        status = (folder / output.name).stat()
    except (OSError, ValueError):  # ValueError: no name that a file can have
        return f"output {output.name} is missing"
    if status.st_size != output.bytes:
        return f"output {output.name} has {status.st_size} bytes instead of {output.bytes}"
    if status.st_mtime_ns != output.mtime_ns and sha256_file(folder / output.name) != output.sha256:
        return f"output {output.name} was changed after the build"
    return None


def scan_outputs(folder: Path, known: Sequence[Built] = ()) -> tuple[tuple[Built, ...], dict[str, str]]:
    """The programs and shared libraries in `folder`, hashed, and the symbolic links among them.

    A file that `known` has with the same size and modification time is not read again.
    """
    by_name = {output.name: output for output in known}
    files: list[Built] = []
    links: dict[str, str] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_symlink():
            links[path.name] = os.readlink(path)  # noqa: PTH115
        elif path.is_file() and is_product(path):
            files.append(_describe(path, by_name.get(path.name)))
    return tuple(files), links


def is_product(path: Path) -> bool:
    """True for a program or a shared library."""
    return bool(_LIBRARY.search(path.name)) or (path.suffix == ".exe" if os.name == "nt" else os.access(path, os.X_OK))


def _describe(path: Path, known: Built | None) -> Built:
    status = path.stat()
    if known and (known.bytes, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
        return known
    return Built(path.name, sha256_file(path), status.st_size, status.st_mtime_ns)
