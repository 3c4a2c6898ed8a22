"""The backends that a build can have: a table of rows, each with its CMake options and a check that takes no time."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import click

from turbotool import cudatoolkit
from turbotool.errors import BackendUnavailable
from turbotool.guess import did_you_mean
from turbotool.tools import Tools, installer

TARGETS = (
    "llama-cli",
    "llama-perplexity",
    "llama-bench",
    "llama-completion",
    "llama-server",
    "llama-quantize",
    "test-backend-ops",
    "test-quantize-fns",
    "test-llama-archs",
    "test-turbo",
    "test-kv-device",
    "test-turbo-backend",
)
# Upstream builds neither of the others with loadable backends and for a user.
PACKAGED = tuple(name for name in TARGETS if name not in ("test-quantize-fns", "test-llama-archs"))
VULKAN_HEADERS_NEED = "VkLayerSettingEXT"
VULKAN_HEADERS_KNOWN = "1.4.309"
VULKAN_SDK_PAGE = "https://vulkan.lunarg.com/sdk/home"


@dataclass(frozen=True)
class Host:
    """The machine that builds: `system` is Linux, Darwin or Windows; `prefixes` hold include/ and lib/."""

    system: str
    machine: str
    env: Mapping[str, str]
    prefixes: tuple[Path, ...] = (Path("/usr"), Path("/usr/local"), Path("/opt/homebrew"))


def this_host() -> Host:
    named = [os.environ.get("VULKAN_SDK", ""), *os.environ.get("CMAKE_PREFIX_PATH", "").split(os.pathsep)]
    prefixes = (*(Path(folder) for folder in named if folder), *Host.prefixes)
    return Host(platform.system(), platform.machine(), os.environ, prefixes)


@dataclass(frozen=True)
class Choices:
    """What the command line chose for a build: `portable` code instead of this CPU's own, GPU `archs` such as 86."""

    portable: bool = False
    archs: tuple[str, ...] = ()


class Backend(Protocol):
    """What the rest of turbotool knows about a backend."""

    @property
    def name(self) -> str: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def tools(self) -> tuple[str, ...]:
        """Names of the tools that it needs beyond CMake, ninja and the C and C++ compilers."""
        ...

    @property
    def run_env(self) -> Mapping[str, str]:
        """Environment that the built programs need."""
        ...

    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def disk_bytes(self) -> int:
        """Free space that a first build needs, with room to spare."""
        ...

    def options(self, tools: Tools, choices: Choices) -> dict[str, str]:
        """CMake options that only this backend needs."""
        ...

    def preflight(self, tools: Tools, host: Host, choices: Choices) -> None:
        """Raise BackendUnavailable, in under a second, if this machine cannot build it: the reason and the remedy."""
        ...


Check = Callable[[Tools, Host, Choices], None]


@dataclass(frozen=True)
class Row:
    """A Backend as data."""

    name: str
    fixed_options: Mapping[str, str]
    check: Check
    tools: tuple[str, ...] = ()
    targets: tuple[str, ...] = TARGETS
    run_env: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    disk_bytes: int = 500 << 20

    def options(self, tools: Tools, choices: Choices) -> dict[str, str]:
        options = dict(self.fixed_options)
        nvcc = tools.chosen("nvcc") if "nvcc" in self.tools else None
        if nvcc:
            options["CMAKE_CUDA_COMPILER"] = nvcc.path
            if choices.archs:
                options["CMAKE_CUDA_ARCHITECTURES"] = ";".join(choices.archs)
        return options

    def preflight(self, tools: Tools, host: Host, choices: Choices) -> None:
        if choices.archs and "nvcc" not in self.tools:
            raise click.UsageError(f"--arch belongs to --backend cuda, not to {self.name}")
        self.check(tools, host, choices)


def _check_cpu(tools: Tools, host: Host, choices: Choices) -> None:
    """The compilers are checked for every backend; nothing else is needed."""


def _check_cuda(tools: Tools, host: Host, choices: Choices) -> None:
    if host.system == "Darwin":
        raise BackendUnavailable("there is no CUDA on macOS", hint="turbotool build --backend metal")
    if tools.chosen("nvcc") is None:
        packages = [cudatoolkit.INSTALL, installer(host.env).hint("cuda")] if host.system == "Linux" else []
        raise BackendUnavailable(
            f"CUDA needs nvcc: {tools['nvcc'].describe_search()}",
            hint=" or ".join([*packages, "NVIDIA's own package from https://developer.nvidia.com/cuda-downloads"]),
        )
    if not (choices.archs or choices.portable or shutil.which("nvidia-smi", path=host.env.get("PATH", ""))):
        raise BackendUnavailable(
            "no GPU is visible here (no nvidia-smi), so nvcc cannot compile for the one at hand",
            hint="turbotool build --backend cuda --arch 86 (the compute capability of the GPU to run on, no dot)",
        )


def _check_metal(tools: Tools, host: Host, choices: Choices) -> None:
    if host.system != "Darwin":
        raise BackendUnavailable(
            f"Metal exists on macOS only, and this is {host.system}", hint="turbotool build --backend cpu"
        )
    if tools.chosen("xcrun") is None:
        raise BackendUnavailable(
            f"Metal needs xcrun: {tools['xcrun'].describe_search()}", hint="xcode-select --install"
        )


def _check_vulkan(tools: Tools, host: Host, choices: Choices) -> None:
    lacking = []
    if tools.chosen("glslc") is None:
        lacking.append(f"glslc ({tools['glslc'].describe_search()})")
    if not _any(host, "include/vulkan/vulkan.h", "Include/vulkan/vulkan.h"):
        lacking.append("the header vulkan/vulkan.h")
    if not _any(
        host, *(f"{lib}/{name}" for lib in ("lib", "lib64", "lib/*", "Lib") for name in ("libvulkan.*", "vulkan-1.lib"))
    ):
        lacking.append("the library libvulkan")
    if not _any(host, "*/cmake/SPIRV-Headers/*onfig.cmake", "lib/*/cmake/SPIRV-Headers/*onfig.cmake"):
        lacking.append("the CMake package SPIRV-Headers")
    if lacking:
        raise BackendUnavailable(f"Vulkan needs {', '.join(lacking)}", hint=installer(host.env).hint("vulkan"))
    _check_vulkan_headers(host)


def _check_vulkan_headers(host: Host) -> None:
    """The headers that CMake finds first must have what llama.cpp uses; the compiler would say so ten minutes later."""
    core = _first(host, "include/vulkan/vulkan_core.h", "Include/vulkan/vulkan_core.h")
    text = core.read_text(encoding="utf-8", errors="replace") if core else ""
    if core and not re.search(rf"\b{VULKAN_HEADERS_NEED}\b", text):
        raise BackendUnavailable(
            f"the Vulkan headers in {core.parent} are too old: "
            f"{vulkan_header_version(text)} has no {VULKAN_HEADERS_NEED}, which llama.cpp uses",
            hint=f"unpack a newer Vulkan SDK ({VULKAN_SDK_PAGE}; {VULKAN_HEADERS_KNOWN} serves) "
            "and name its folder that holds include and lib: export VULKAN_SDK=FOLDER CMAKE_PREFIX_PATH=FOLDER",
        )


def vulkan_header_version(text: str) -> str:
    """The version that a vulkan_core.h says of itself, such as 1.3.239."""
    patch = re.search(r"^#define VK_HEADER_VERSION (\d+)", text, re.MULTILINE)
    rest = re.search(r"^#define VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION\(\d+, (\d+), (\d+),", text, re.MULTILINE)
    return f"version {rest[1]}.{rest[2]}.{patch[1]}" if rest and patch else "a version that names no number"


def _any(host: Host, *patterns: str) -> bool:
    return _first(host, *patterns) is not None


def _first(host: Host, *patterns: str) -> Path | None:
    return next((path for prefix in host.prefixes for pattern in patterns for path in prefix.glob(pattern)), None)


BACKENDS: Mapping[str, Backend] = {
    row.name: row
    for row in (
        Row("cpu", {}, _check_cpu),
        Row(
            "cuda",
            {"GGML_CUDA": "ON"},
            _check_cuda,
            ("nvcc",),
            disk_bytes=3 << 30,
        ),
        Row(
            "metal",
            {"GGML_METAL": "ON", "GGML_METAL_EMBED_LIBRARY": "ON"},
            _check_metal,
            ("xcrun",),
        ),
        Row(
            "vulkan",
            {"GGML_VULKAN": "ON"},
            _check_vulkan,
            ("glslc",),
            disk_bytes=1 << 30,
        ),
    )
}


def find_backend(name: str) -> Backend:
    """The row of that name. Raises click.UsageError (exit code 2) with the nearest name otherwise."""
    if name in BACKENDS:
        return BACKENDS[name]
    guess = did_you_mean(name, BACKENDS) or f"; choose from {', '.join(BACKENDS)}"
    raise click.UsageError(f"no backend '{name}'{guess}")
