"""The environment of CMake, ninja and the compilers: nothing in it that the key does not cover."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from turbotool.build import ninja
from turbotool.build.request import PatchedSource
from turbotool.build.toolchain import Toolchain
from turbotool.errors import UsageMistake

EARLIEST = 315532800  # 1980-01-01


def reproducible(env: Mapping[str, str], chain: Toolchain, source: PatchedSource, folder: Path) -> dict[str, str]:
    """Variables with which neither the place nor the time of a build is in its outputs.

    A compiler cache that rewrites paths under a base also shortens `a/b/..` to `a`, and the name of a header is in the
    outputs: without a base its use changes nothing.
    """
    variables = {"SOURCE_DATE_EPOCH": str(source_epoch(env)), "CCACHE_BASEDIR": ""}
    if Path(chain.cxx.path).stem.lower() == "cl":
        return variables  # it has no such option
    maps = ((source.path, "llama.cpp"), (folder, "build"))
    flags = [f"-ffile-prefix-map={old}={new}" for old, new in maps]
    for variable in ("CFLAGS", "CXXFLAGS"):
        variables[variable] = " ".join([*map(shlex.quote, flags), env.get(variable, "")]).strip()
    if chain.nvcc:
        host = [shlex.quote(f"-Xcompiler={flag}") for flag in flags]
        variables["CUDAFLAGS"] = " ".join([*host, env.get("CUDAFLAGS", "")]).strip()
    return variables


def source_epoch(env: Mapping[str, str]) -> int:
    """SOURCE_DATE_EPOCH in seconds, or the earliest time that every archive format can hold: 1980-01-01."""
    text = env.get("SOURCE_DATE_EPOCH") or str(EARLIEST)
    if not text.isdecimal() or int(text) < EARLIEST:
        raise UsageMistake(f"SOURCE_DATE_EPOCH is '{text}', not a number of seconds from {EARLIEST} on")
    return int(text)


def child_environment(env: Mapping[str, str], chain: Toolchain, source: PatchedSource, work: Path) -> dict[str, str]:
    """The environment of CMake, ninja and the compilers: what the key does not cover must not change the outputs."""
    dropped = (
        "CC",
        "CXX",
        "CUDACXX",
        "MAKEFLAGS",
        "CLICOLOR_FORCE",
        "FORCE_COLOR",
        "CMAKE_GENERATOR",
        "CMAKE_BUILD_TYPE",
    )
    child = {name: value for name, value in env.items() if name not in dropped and not name.startswith("GIT_")}
    child.update(
        # No git call of upstream's CMake files may find a repository around the tree, nor the user's settings.
        GIT_CEILING_DIRECTORIES=str(source.path.parent),
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_CONFIG_NOSYSTEM="1",
        LC_ALL="C.UTF-8",
        NINJA_STATUS=ninja.STATUS,
    )
    # Two checkouts of the same tree share what the compiler cache holds.
    child.setdefault("CCACHE_BASEDIR", str(work))
    for variable, flags in (("CFLAGS", chain.c_flags), ("CXXFLAGS", chain.cxx_flags)):
        if flags:
            child[variable] = " ".join([*flags, env.get(variable, "")]).strip()
    return child
