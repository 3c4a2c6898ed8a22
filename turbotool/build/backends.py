"""The backends that a build can have: a table of rows, each with its CMake options and a check that takes no time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from turbotool.build import cuda
from turbotool.build.host import Choices, Host
from turbotool.build.installers import installer
from turbotool.build.targets import TARGETS
from turbotool.build.tools import Tools
from turbotool.build.vulkan import check_vulkan
from turbotool.errors import BackendUnavailable, UsageMistake
from turbotool.system.names import did_you_mean


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


Preflight = Callable[[Tools, Host, Choices], None]


@dataclass(frozen=True)
class BackendRow:
    """A Backend as data."""

    name: str
    fixed_options: Mapping[str, str]
    check: Preflight
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
            raise UsageMistake(f"--arch belongs to --backend cuda, not to {self.name}")
        self.check(tools, host, choices)


def _check_cpu(tools: Tools, host: Host, choices: Choices) -> None:
    """The compilers are checked for every backend; nothing else is needed."""


def _check_cuda(tools: Tools, host: Host, choices: Choices) -> None:
    if host.system == "Darwin":
        raise BackendUnavailable("there is no CUDA on macOS", hint="turbotool build --backend metal")
    if tools.chosen("nvcc") is None:
        packages = [cuda.INSTALL, installer(host.env).hint("cuda")] if host.system == "Linux" else []
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


BACKENDS: Mapping[str, Backend] = {
    row.name: row
    for row in (
        BackendRow("cpu", {}, _check_cpu),
        BackendRow(
            "cuda",
            {"GGML_CUDA": "ON"},
            _check_cuda,
            ("nvcc",),
            disk_bytes=3 << 30,
        ),
        BackendRow(
            "metal",
            {"GGML_METAL": "ON", "GGML_METAL_EMBED_LIBRARY": "ON"},
            _check_metal,
            ("xcrun",),
        ),
        BackendRow(
            "vulkan",
            {"GGML_VULKAN": "ON"},
            check_vulkan,
            ("glslc",),
            disk_bytes=1 << 30,
        ),
    )
}


def find_backend(name: str) -> Backend:
    """The row of that name. Raises UsageMistake with the nearest name otherwise."""
    if name in BACKENDS:
        return BACKENDS[name]
    guess = did_you_mean(name, BACKENDS) or f"; choose from {', '.join(BACKENDS)}"
    raise UsageMistake(f"no backend '{name}'{guess}")
