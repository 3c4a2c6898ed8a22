"""build.json: what was built from what, written last; and the question whether it still holds.

The document: schema (1), key and its `inputs`, backend, tree, series, lock {commit, source}, version (what the programs
report), tools {name: {path, version, banner}}, options, targets, asked (what the command line chose), outputs
[{name, sha256, bytes, mtime_ns}], links {name: target}, run_env, notes, seconds, log (relative to the build folder).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from turbotool.build.key import differences
from turbotool.system.digest import sha256_file

SCHEMA = 1
NAME = "build.json"
_LIBRARY = re.compile(r"\.(so(\.[\d.]+)?|dylib|dll)$")


@dataclass(frozen=True)
class Built:
    """One file in bin/: `bytes` is its size, `mtime_ns` spares hashing it again."""

    name: str
    sha256: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class BuildRecord:
    """The parts of build.json that decisions rest on; `document` is all of it."""

    key: str
    inputs: Mapping[str, str]
    outputs: tuple[Built, ...]
    links: Mapping[str, str]
    document: Mapping[str, Any]


def read_record(folder: Path) -> BuildRecord | None:
    """The record of the last finished build in `folder`; None if there is none that can be read."""
    try:
        document = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA or not _may_be_asked(document.get("asked", {})):
            return None
        outputs = tuple(Built(**output) for output in document["outputs"])
        return BuildRecord(document["key"], document["inputs"], outputs, document["links"], document)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _may_be_asked(value: object) -> bool:
    """True for what Request.again reads."""
    if not isinstance(value, dict) or not isinstance(value.get("options", {}), dict):
        return False
    return all(isinstance(value.get(name, []), list) for name in ("archs", "targets"))


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
    except OSError:
        return False


def _defect(folder: Path, output: Built) -> str | None:
    try:
        status = (folder / output.name).stat()
    except OSError:
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


def as_documents(outputs: Sequence[Built]) -> list[dict[str, object]]:
    return [asdict(output) for output in outputs]
