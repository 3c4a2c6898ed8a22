"""The one entry: a build, and an environment whose llama-cpp-python runs on its libraries."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turbotool.bindings import environment, wiring
from turbotool.bindings.environment import WITHOUT_LIBRARIES, Environment
from turbotool.bindings.releases import FITTING, NAME, BindingsRelease
from turbotool.bindings.wiring import PythonBuild
from turbotool.build.record import recorded_tree
from turbotool.errors import BindingsDiffer, ToolFailed, ToolMissing
from turbotool.programs.binaries import Binaries
from turbotool.programs.choose import choose_binaries
from turbotool.series.apply import ensure_applied
from turbotool.system.locks import work_lock
from turbotool.system.process import display
from turbotool.system.session import Session
from turbotool.upstream.lock import read_lock

AGAIN = "; type `"  # what follows is for those who import the bindings, not for those who run this


@dataclass(frozen=True)
class Wired:
    """An environment that works: which build it is for, and what of llama.h was compared with it.

    `made` and `installed` say what was not there before; `added` are the fields that structs of the bindings were
    given, `unchecked` the structs that were not compared. `calibration` is what a quantized K is calibrated with.
    """

    environment: Environment
    build: PythonBuild
    backend: str
    made: bool
    installed: bool
    structs: int
    functions: int
    constants: int
    added: Mapping[str, tuple[str, ...]]
    unchecked: tuple[str, ...]
    calibration: str
    seconds: float


def run(
    session: Session,
    folder: Path | None = None,
    *,
    backend: str = "cpu",
    bin_dir: Path | None = None,
    replace: bool = False,
    release: BindingsRelease = FITTING,
) -> Wired:
    """Make or extend the virtual environment in `folder`; the build is made if it is not there.

    A llama-cpp-python that is there stays if it fits; `replace` puts the release that is known in its place. Raises
    BindingsDiffer if it does not fit, UsageMistake for a folder that holds other things, ToolMissing, SourceError and
    what building raises.
    """
    started = time.monotonic()
    folder = (folder or session.layout.builds / "python-env").absolute()
    environment.require_place(folder)
    with work_lock(session, f"python-env {folder}") as held:
        binaries = _known(held, choose_binaries(held, backend, bin_dir))
        build = wiring.describe(str(binaries.bin_dir), binaries.tree, held.layout.tree)
        _say_pin(held, release)
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = environment.make(held, folder)
        found = environment.look(folder)
        installed = not found.bindings or (replace and found.bindings != release.version)
        if installed:
            environment.install(held, found, release)
            found = environment.look(folder)
        wiring.install(build, found.packages)
        told = _report(found, release)
    return Wired(
        found,
        build,
        binaries.backend,
        made,
        installed,
        structs=told["structs"],
        functions=told["functions"],
        constants=told["constants"],
        added={name: tuple(fields) for name, fields in told["added"].items()},
        unchecked=tuple(told["unchecked"]),
        calibration=told["calibration"],
        seconds=time.monotonic() - started,
    )


def _known(session: Session, binaries: Binaries) -> Binaries:
    """The programs with the tree that they come from, which must be the one whose llama.h is here.

    Raises ToolMissing if they are of another tree, or have no shared libraries.
    """
    if not any(binaries.bin_dir.glob("*llama.*")):
        raise ToolMissing(f"{binaries.bin_dir} has no libllama", hint="turbotool build")
    applied = ensure_applied(session)
    tree = binaries.tree or recorded_tree(binaries.bin_dir.parent)
    if tree != applied.tree:
        whose = f"are of tree {tree}" if tree else "have no build.json beside their folder that names a tree"
        raise ToolMissing(
            f"the libraries in {binaries.bin_dir} {whose}; the llama.h that is known here is of {applied.tree}",
            hint="leave out --bin-dir, or name the folder of a build of this tree",
        )
    return Binaries(binaries.bin_dir, tree, binaries.backend)


def _say_pin(session: Session, release: BindingsRelease) -> None:
    pinned = read_lock(session.layout).upstream.known_as
    if pinned != release.pin:
        session.out.warn(f"{NAME} {release.version} was tried with {release.pin}, and the pin is {pinned}")


def _report(found: Environment, release: BindingsRelease) -> dict[str, Any]:
    try:
        return environment.report(found)
    except ToolFailed as error:
        message = error.message.removeprefix("ImportError: ").partition(AGAIN)[0]
        text = f"{NAME} {found.bindings} in {found.folder} does not fit: {message}"
        raise BindingsDiffer(text, hint=_other(found, release)) from error


def _other(found: Environment, release: BindingsRelease) -> str:
    """How an environment comes to bindings that may fit."""
    again = display(["turbotool", "python-env", found.folder])
    if found.bindings != release.version:
        return f"{again} --replace, which installs {NAME} {release.version}"
    pip = display([found.python, "-m", "pip", "install", f"{NAME}==VERSION"])
    return f"CMAKE_ARGS={WITHOUT_LIBRARIES} {pip}, with another release, then {again}"
