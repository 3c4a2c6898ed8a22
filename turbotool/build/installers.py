"""The package manager of this machine, and the commands that install what is missing."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Installer:
    """The package manager of this machine: how packages are installed with it, and what it calls them."""

    name: str
    command: str
    packages: Mapping[str, str]

    def hint(self, *names: str) -> str:
        """The command that installs `names`, which are keys of `packages`."""
        return f"{self.command} {' '.join(self.packages.get(name, name) for name in names)}".strip()


INSTALLERS = (
    Installer(
        "apt",
        "sudo apt-get install",
        {"compiler": "build-essential", "cuda": "nvidia-cuda-toolkit", "vulkan": "glslc libvulkan-dev spirv-headers"},
    ),
    Installer(
        "dnf",
        "sudo dnf install",
        {"compiler": "gcc-c++", "cuda": "cuda-toolkit", "vulkan": "glslc vulkan-loader-devel spirv-headers-devel"},
    ),
    Installer(
        "pacman",
        "sudo pacman -S",
        {"compiler": "base-devel", "cuda": "cuda", "vulkan": "shaderc vulkan-headers vulkan-icd-loader spirv-headers"},
    ),
    Installer("brew", "brew install", {"vulkan": "shaderc vulkan-loader vulkan-headers spirv-headers"}),
)
UNKNOWN = Installer(
    "",
    "install with your system's package manager:",
    {
        "compiler": "a C and C++ compiler",
        "cuda": "NVIDIA's CUDA toolkit",
        "vulkan": "glslc, the Vulkan loader with headers, SPIRV-Headers",
    },
)


def installer(env: Mapping[str, str]) -> Installer:
    """The first known package manager on PATH (`apt-get`, `dnf`, `pacman`, `brew`)."""
    for known in INSTALLERS:
        if shutil.which("apt-get" if known.name == "apt" else known.name, path=env.get("PATH", "")):
            return known
    return UNKNOWN


def compiler_hint(env: Mapping[str, str]) -> str:
    """The command that installs a C and C++ compiler here."""
    if sys.platform == "darwin":
        return "xcode-select --install"
    if sys.platform == "win32":
        return "winget install Microsoft.VisualStudio.2022.BuildTools (with the C++ workload), then a developer prompt"
    return installer(env).hint("compiler")
