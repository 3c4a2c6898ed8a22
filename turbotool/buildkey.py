"""What a build depends on, as one flat document and one hash. No timestamps and no paths of the work folder."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turbotool.backend import PACKAGED, Backend, Choices
from turbotool.errors import ToolMissing
from turbotool.machine import CPUINFO, cpu_flags
from turbotool.platforms import Platform
from turbotool.tools import Candidate, Tools, compiler_hint

# Variables that compilers and CMake read by themselves and that change what comes out.
FLAG_VARIABLES = (
    "CFLAGS",
    "CXXFLAGS",
    "CUDAFLAGS",
    "LDFLAGS",
    "CPATH",
    "LIBRARY_PATH",
    "CMAKE_PREFIX_PATH",
    "MACOSX_DEPLOYMENT_TARGET",
    "SDKROOT",
    "SOURCE_DATE_EPOCH",
    "CMAKE_TOOLCHAIN_FILE",
    "CUDAARCHS",
)


@dataclass(frozen=True)
class Source:
    """The patched tree: its folder and git tree hash, the upstream commit and source, the series' hash."""

    path: Path
    tree: str
    commit: str
    origin: str
    series: str


@dataclass(frozen=True)
class Request:
    """What to build. `options` are the user's own CMake options; `jobs` (0: one per CPU) does not change the result.

    With `platform` it is what a package for that platform holds, otherwise a build for this machine.
    """

    backend: Backend
    choices: Choices = field(default_factory=Choices)
    options: tuple[tuple[str, str], ...] = ()
    extra_targets: tuple[str, ...] = ()
    jobs: int = 0
    platform: Platform | None = None

    @property
    def name(self) -> str:
        """The build folder's name: a package has one of its own."""
        return f"{self.backend.name}-{self.platform.name}" if self.platform else self.backend.name

    @property
    def words(self) -> tuple[str, ...]:
        """The options of `turbotool build` that ask for this and not for what it builds by default."""
        return (
            *(["--portable"] if self.choices.portable else []),
            *([f"--arch {','.join(self.choices.archs)}"] if self.choices.archs else []),
            *(f"--cmake-option {name}={value}" for name, value in self.options),
            *(f"--target {target}" for target in self.extra_targets),
        )

    @property
    def asked(self) -> dict[str, object]:
        """What the command line chose, for build.json and `again`."""
        choices, targets = self.choices, list(self.extra_targets)
        archs, options = list(choices.archs), dict(self.options)
        return {"portable": choices.portable, "archs": archs, "options": options, "targets": targets}

    @classmethod
    def again(cls, backend: Backend, asked: Mapping[str, Any]) -> Request:
        """The request that `asked` describes; what a build of the backend is by default where it says nothing."""
        choices = Choices(bool(asked.get("portable")), tuple(asked.get("archs", ())))
        return cls(backend, choices, tuple(asked.get("options", {}).items()), tuple(asked.get("targets", ())))

    @property
    def targets(self) -> tuple[str, ...]:
        wanted = PACKAGED if self.platform else self.backend.targets
        return tuple(dict.fromkeys((*wanted, *self.extra_targets)))


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


def cmake_options(request: Request, source: Source, tools: Tools) -> dict[str, str]:
    """Every CMake option of a build apart from compilers and launcher; the user's own come last and win."""
    return {
        "CMAKE_BUILD_TYPE": "Release",
        # Programs find their libraries beside themselves wherever the folder is moved. A path for the build alone would
        # be padded with a colon, which also means the folder that a user happens to be in.
        "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        "CMAKE_INSTALL_RPATH": "@loader_path" if platform.system() == "Darwin" else "$ORIGIN",
        # Otherwise the configure step downloads a web page.
        "LLAMA_USE_PREBUILT_UI": "OFF",
        "GGML_NATIVE": "OFF" if request.choices.portable else "ON",
        # The launcher below does this, and would do it twice.
        "GGML_CCACHE": "OFF",
        # Without git, ggml reports the commit that we name instead of whatever repository is around.
        "GIT_EXE": "",
        "LLAMA_BUILD_NUMBER": "0",
        "LLAMA_BUILD_COMMIT": build_commit(source),
        **(request.platform.options() if request.platform else {}),
        **request.backend.options(tools, request.choices),
        **dict(request.options),
    }


def build_commit(source: Source) -> str:
    """What the programs report with --version: nine digits each of the upstream commit and of the patched tree."""
    return f"{source.commit[:9]}-turbo-{source.tree[:9]}"


def key_inputs(
    request: Request, source: Source, chain: Toolchain, options: Mapping[str, str], env: Mapping[str, str]
) -> dict[str, str]:
    """Everything that the outputs depend on, name -> value, so that a difference can be told by name."""
    inputs = {
        "tree": source.tree,
        "backend": request.backend.name,
        "targets": " ".join(request.targets),
        "platform": f"{platform.system()} {platform.machine()}",
        "cmake": chain.cmake.version or "",
        "ninja": chain.ninja.version or "",
        "C compiler": identity(chain.c, chain.c_flags),
        "C++ compiler": identity(chain.cxx, chain.cxx_flags),
    }
    if request.backend.name == "cuda" and chain.nvcc:
        inputs["nvcc"] = identity(chain.nvcc)
    if options.get("GGML_NATIVE") == "ON":
        inputs["CPU"] = cpu_identity()
    # The build's own name follows from the tree and would only repeat it.
    inputs |= {f"option {name}": value for name, value in options.items() if name != "LLAMA_BUILD_COMMIT"}
    inputs |= {f"variable {name}": env[name] for name in FLAG_VARIABLES if env.get(name)}
    return inputs


def identity(candidate: Candidate, flags: Sequence[str] = ()) -> str:
    return " ".join([candidate.path, *flags, f"({candidate.banner})"])


def cpu_identity(cpuinfo: Path = CPUINFO) -> str:
    """The CPU whose instructions -march=native uses: its architecture and a digest of its feature flags."""
    words = " ".join(sorted(cpu_flags(cpuinfo))) or platform.processor()
    return f"{platform.machine()} {hashlib.sha256(words.encode()).hexdigest()[:12]}"


def key_of(inputs: Mapping[str, str]) -> str:
    """sha256 (hexadecimal) of the canonical JSON of `inputs`."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Each input that changed as `name: old -> new`; hashes shortened."""

    def show(values: Mapping[str, str], name: str) -> str:
        value = values.get(name, "(none)")
        return value[:12] if name == "tree" else value or "(empty)"

    names = dict.fromkeys((*old, *new))
    return [f"{name}: {show(old, name)} -> {show(new, name)}" for name in names if old.get(name) != new.get(name)]
