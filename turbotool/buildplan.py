"""A build, decided but not begun: its tools, CMake options, key and environment."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from turbotool import cmake, cudatoolkit, ninja
from turbotool.backend import this_host
from turbotool.buildkey import (
    FLAG_VARIABLES,
    Request,
    Source,
    Toolchain,
    cmake_options,
    key_inputs,
    key_of,
    toolchain,
)
from turbotool.errors import ToolMissing
from turbotool.layout import Layout
from turbotool.tools import Tools, find_tools, installer

EARLIEST = 315532800  # 1980-01-01


@dataclass(frozen=True)
class Plan:
    """One build, decided but not begun: `inputs` are what `key` is the hash of, `env` is the children's environment.

    `toolkit` must be assembled before CMake runs.
    """

    request: Request
    source: Source
    folder: Path
    log: Path
    chain: Toolchain
    options: Mapping[str, str]
    inputs: Mapping[str, str]
    key: str
    env: Mapping[str, str]
    toolkit: cudatoolkit.Toolkit | None = None

    @property
    def bin_dir(self) -> Path:
        return self.folder / "bin"

    @property
    def state(self) -> cmake.State:
        variables = {name: self.env[name] for name in FLAG_VARIABLES if self.env.get(name)}
        return cmake.state_of(self.source.path, self.folder, self.chain, self.options, variables)


def tools_for(request: Request, env: Mapping[str, str], *, private: bool = True) -> Tools:
    """The tools that this build can use. Raises ToolMissing or BackendUnavailable; takes a fraction of a second."""
    names = ("cmake", "ninja", "c", "c++", "git", "ccache", "sccache", *request.backend.tools)
    if request.platform:
        env = request.platform.compilers(env)
    tools = find_tools(env, names, private=private)
    request.backend.preflight(tools, this_host(), request.choices)
    cross = request.platform.cross if request.platform and not request.platform.native else ""
    if cross and not (tools.chosen("c") and tools.chosen("c++")):
        raise ToolMissing(
            f"no compiler for {request.name}: {tools['c++'].describe_search()}",
            hint=installer(env).hint(f"g++-{cross}"),
        )
    toolchain(tools, env)
    tools["git"].require(installer(env).hint("git"))
    return tools


def make_plan(layout: Layout, request: Request, source: Source, tools: Tools, env: Mapping[str, str]) -> Plan:
    chain = toolchain(tools, env)
    options = cmake_options(request, source, tools)
    toolkit = None
    if chain.nvcc:
        toolkit = cudatoolkit.toolkit_of(Path(chain.nvcc.path), chain.nvcc.origin, layout.builds)
    if toolkit:
        options |= {**toolkit.options(portable=request.choices.portable), **dict(request.options)}
    inputs = key_inputs(request, source, chain, options, env)
    folder = layout.build(request.name)
    child = child_environment(env, chain, source, layout.work)
    if request.platform:
        child |= reproducible(child, chain, source, folder)
    log = layout.logs / f"build-{request.name}.log"
    return Plan(request, source, folder, log, chain, options, inputs, key_of(inputs), child, toolkit)


def reproducible(env: Mapping[str, str], chain: Toolchain, source: Source, folder: Path) -> dict[str, str]:
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
        raise click.UsageError(f"SOURCE_DATE_EPOCH is '{text}', not a number of seconds from {EARLIEST} on")
    return int(text)


def child_environment(env: Mapping[str, str], chain: Toolchain, source: Source, work: Path) -> dict[str, str]:
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
