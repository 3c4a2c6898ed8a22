"""The programs that every build needs, chosen among the candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from turbotool.build.installers import compiler_hint
from turbotool.build.tools import Candidate, Tools
from turbotool.errors import ToolMissing


@dataclass(frozen=True)
class Toolchain:
    """The programs that every build needs, the compiler cache if there is one, and the flags in CC and CXX."""

    cmake: Candidate
    ninja: Candidate
    c: Candidate
    cxx: Candidate
    launcher: Candidate | None
    c_flags: tuple[str, ...]
    cxx_flags: tuple[str, ...]
    nvcc: Candidate | None


def toolchain(tools: Tools, env: Mapping[str, str]) -> Toolchain:
    """The chosen tools. Raises ToolMissing, which lists what was tried and the command that installs it."""
    python_packages = "python -m pip install cmake ninja"
    try:
        c, cxx = tools["c"].require(compiler_hint(env)), tools["c++"].require(compiler_hint(env))
    except ToolMissing as error:
        # A compiler that the user named and that does not run is not cured by installing another one.
        named = " ".join(name for name in ("CC", "CXX") if env.get(name))
        if named and ("CC=" in error.message or "CXX=" in error.message):
            raise ToolMissing(error.message, hint=f"unset {named}, or {compiler_hint(env)}") from error
        raise
    return Toolchain(
        tools["cmake"].require(python_packages),
        tools["ninja"].require(python_packages),
        c,
        cxx,
        tools.launcher,
        tools["c"].flags,
        tools["c++"].flags,
        tools.chosen("nvcc"),
    )


def identity(candidate: Candidate, flags: Sequence[str] = ()) -> str:
    return " ".join([candidate.path, *flags, f"({candidate.banner})"])
