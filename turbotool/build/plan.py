"""A build, decided but not begun: its tools, CMake options, key and environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from turbotool.build import cmake, cuda
from turbotool.build.environment import child_environment, reproducible
from turbotool.build.host import this_host
from turbotool.build.installers import installer
from turbotool.build.key import FLAG_VARIABLES, key_inputs, key_of
from turbotool.build.options import cmake_options
from turbotool.build.request import BuildRequest, PatchedSource
from turbotool.build.toolchain import Toolchain, toolchain
from turbotool.build.tools import Tools, find_tools
from turbotool.errors import ToolMissing
from turbotool.layout import Layout


@dataclass(frozen=True)
class BuildPlan:
    """One build, decided but not begun: `inputs` are what `key` is the hash of, `env` is the children's environment.

    `toolkit` must be assembled before CMake runs.
    """

    request: BuildRequest
    source: PatchedSource
    folder: Path
    log: Path
    chain: Toolchain
    options: Mapping[str, str]
    inputs: Mapping[str, str]
    key: str
    env: Mapping[str, str]
    toolkit: cuda.Toolkit | None = None

    @property
    def bin_dir(self) -> Path:
        return self.folder / "bin"

    @property
    def state(self) -> cmake.State:
        variables = {name: self.env[name] for name in FLAG_VARIABLES if self.env.get(name)}
        return cmake.state_of(self.source.path, self.folder, self.chain, self.options, variables)


def tools_for(request: BuildRequest, env: Mapping[str, str], *, private: bool = True) -> Tools:
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


def make_plan(
    layout: Layout, request: BuildRequest, source: PatchedSource, tools: Tools, env: Mapping[str, str]
) -> BuildPlan:
    """Decide a build; nothing is written. Raises ToolMissing, UsageMistake."""
    chain = toolchain(tools, env)
    options = cmake_options(request, source, tools)
    toolkit = None
    if chain.nvcc:
        toolkit = cuda.toolkit_of(Path(chain.nvcc.path), chain.nvcc.origin, layout.builds)
    if toolkit:
        options |= {**toolkit.options(portable=request.choices.portable), **dict(request.options)}
    inputs = key_inputs(request, source, chain, options, env)
    folder = layout.build(request.name)
    child = child_environment(env, chain, source, layout.work)
    if request.platform:
        child |= reproducible(child, chain, source, folder)
    log = layout.logs / f"build-{request.name}.log"
    return BuildPlan(request, source, folder, log, chain, options, inputs, key_of(inputs), child, toolkit)
