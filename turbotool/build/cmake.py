"""The build folder's CMake state: when it can be kept, when its cache must go, and when the whole folder must.

`configured.json` is removed before CMake runs and written after it succeeded. A folder without it was interrupted
there, and what CMake wrote so far is not trusted.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from turbotool.build.toolchain import Toolchain, identity
from turbotool.errors import DocumentError
from turbotool.system.documents import document, read

STATE = "configured.json"
GENERATOR = "Ninja"


@document("cmake-state")
@dataclass(frozen=True)
class State:
    """What a build folder was configured for. Another `place` or `compilers` dates every object file."""

    place: Mapping[str, str]
    compilers: Mapping[str, str]
    settings: Mapping[str, str]


def state_of(
    source: Path, folder: Path, chain: Toolchain, options: Mapping[str, str], variables: Mapping[str, str]
) -> State:
    compilers = {"C": identity(chain.c, chain.c_flags), "C++": identity(chain.cxx, chain.cxx_flags)}
    if chain.nvcc:
        compilers["CUDA"] = identity(chain.nvcc)
    fixed = {name: value for name, value in options.items() if name != "LLAMA_BUILD_COMMIT"}
    tools = {"cmake": identity(chain.cmake), "ninja": identity(chain.ninja)}
    return State({"source": str(source), "folder": str(folder)}, compilers, {**fixed, **variables, **tools})


def read_state(folder: Path) -> State | None:
    """What `folder` is configured for; None if it is not, or if that cannot be read."""
    try:
        return read(folder / STATE, State)
    except DocumentError:
        return None


def moved(folder: Path, wanted: State) -> str | None:
    """Why the programs in `folder` belong elsewhere, or None: it or the tree was moved or copied since."""
    state = read_state(folder)
    if state is None:
        return None
    names = [name for name, value in wanted.place.items() if state.place.get(name) != value]
    return "; ".join(f"{name} folder moved: {state.place.get(name)} -> {wanted.place[name]}" for name in names) or None


def clean(folder: Path, wanted: State) -> str | None:
    """Remove what a configure for `wanted` must not meet; says in a few words why it removed something."""
    state = read_state(folder)
    if state is not None and state.place == wanted.place and state.compilers == wanted.compilers:
        if state.settings == wanted.settings:
            return None
        drop_cache(folder)
        return "the configuration changed"
    if state is None:
        return "an earlier configure step was interrupted" if drop_cache(folder) else None
    shutil.rmtree(folder)
    return "the compiler changed" if state.place == wanted.place else "the folder or the tree was moved"


def drop_cache(folder: Path) -> bool:
    """Remove CMake's cache and its own files, keeping objects: ninja rebuilds those whose command changed."""
    cache, files = folder / "CMakeCache.txt", folder / "CMakeFiles"
    there = cache.exists() or files.exists()
    cache.unlink(missing_ok=True)
    if files.exists():
        shutil.rmtree(files)
    return there


def command(source: Path, folder: Path, chain: Toolchain, options: Mapping[str, str]) -> list[str]:
    """The configure command. The launcher is always given, so that one that is gone leaves CMake's cache too."""
    launcher = chain.launcher.path if chain.launcher else ""
    languages = ("C", "CXX", "CUDA") if "GGML_CUDA" in options else ("C", "CXX")
    given = {
        "CMAKE_MAKE_PROGRAM": chain.ninja.path,
        "CMAKE_C_COMPILER": chain.c.path,
        "CMAKE_CXX_COMPILER": chain.cxx.path,
        **{f"CMAKE_{language}_COMPILER_LAUNCHER": launcher for language in languages},
        **options,
    }
    words = [f"-D{name}={value}" for name, value in given.items()]
    return [chain.cmake.path, "-S", str(source), "-B", str(folder), "-G", GENERATOR, *words]
