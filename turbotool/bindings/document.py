"""What `turbotool python-env --json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from turbotool.bindings.run import Wired
from turbotool.system.documents import document


@document("python-env")
@dataclass(frozen=True)
class PythonEnvDocument:
    """An environment whose llama-cpp-python runs on the libraries of a build; `tree` is git's id of the patched tree.

    `made` and `installed`: the environment, or the bindings, were not there before. `structs`, `functions` and
    `constants` count what the bindings have of llama.h; `added` are the fields that their structs were given,
    `unchecked` the structs that were not compared. `types` are the numbers of cache types, `calibration` what a
    quantized K is calibrated with.
    """

    ok: bool
    folder: str
    python: str
    python_version: str
    bindings: str
    made: bool
    installed: bool
    bin_dir: str
    backend: str
    tree: str
    types: Mapping[str, int]
    structs: int
    functions: int
    constants: int
    added: Mapping[str, tuple[str, ...]]
    unchecked: tuple[str, ...]
    calibration: str
    seconds: float


def python_env_document(wired: Wired) -> PythonEnvDocument:
    found, build = wired.environment, wired.build
    return PythonEnvDocument(
        ok=True,
        folder=str(found.folder),
        python=str(found.python),
        python_version=found.python_version,
        bindings=found.bindings,
        made=wired.made,
        installed=wired.installed,
        bin_dir=build.bin_dir,
        backend=wired.backend,
        tree=build.tree,
        types=build.types,
        structs=wired.structs,
        functions=wired.functions,
        constants=wired.constants,
        added=wired.added,
        unchecked=wired.unchecked,
        calibration=wired.calibration,
        seconds=round(wired.seconds, 1),
    )
