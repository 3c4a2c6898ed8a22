"""A build, decided but not begun: its tools, CMake options, key and environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from turbotool import cmake, ninja
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
from turbotool.layout import Layout
from turbotool.tools import Tools, find_tools, installer


@dataclass(frozen=True)
class Plan:
    """One build, decided but not begun: `inputs` are what `key` is the hash of, `env` is the children's environment."""

    request: Request
    source: Source
    folder: Path
    log: Path
    chain: Toolchain
    options: Mapping[str, str]
    inputs: Mapping[str, str]
    key: str
    env: Mapping[str, str]

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
    tools = find_tools(env, names, private=private)
    request.backend.preflight(tools, this_host(), request.choices)
    toolchain(tools, env)
    tools["git"].require(installer(env).hint("git"))
    return tools


def make_plan(layout: Layout, request: Request, source: Source, tools: Tools, env: Mapping[str, str]) -> Plan:
    chain = toolchain(tools, env)
    options = cmake_options(request, source, tools)
    inputs = key_inputs(request, source, chain, options, env)
    name = request.backend.name
    return Plan(
        request,
        source,
        layout.build(name),
        layout.logs / f"build-{name}.log",
        chain,
        options,
        inputs,
        key_of(inputs),
        child_environment(env, chain, source, layout.work),
    )


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
