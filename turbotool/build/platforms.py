"""The platforms that packages are made for: a table of rows, each compiled on itself or with a cross compiler."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass

from turbotool.errors import BackendUnavailable, UsageMistake
from turbotool.system.names import did_you_mean


@dataclass(frozen=True)
class Platform:
    """`system` and `processor` are CMake's names, `machines` are Python's; `cross` is the prefix of cross compilers.

    `emulator` runs the platform's programs on another Linux.
    """

    name: str
    system: str
    processor: str
    machines: tuple[str, ...]
    cross: str = ""
    emulator: tuple[str, ...] = ()

    @property
    def native(self) -> bool:
        """Whether this machine is one."""
        return platform.system() == self.system and platform.machine() in self.machines

    def options(self) -> dict[str, str]:
        """CMake options of every package for this platform."""
        crossing = {"CMAKE_SYSTEM_NAME": self.system, "CMAKE_SYSTEM_PROCESSOR": self.processor}
        return {
            # One library for each generation of CPUs, of which the programs load the best that runs here.
            "BUILD_SHARED_LIBS": "ON",
            "GGML_BACKEND_DL": "ON",
            "GGML_CPU_ALL_VARIANTS": "ON",
            # Libraries that a user's machine may lack; ggml has threads of its own.
            "GGML_OPENMP": "OFF",
            "LLAMA_OPENSSL": "OFF",
            **({} if self.native else crossing),
        }

    def compilers(self, env: Mapping[str, str]) -> dict[str, str]:
        """`env` with the cross compilers in CC and CXX, unless the user named some or none are needed."""
        if self.native or env.get("CC") or env.get("CXX"):
            return dict(env)
        return {**env, "CC": f"{self.cross}-gcc", "CXX": f"{self.cross}-g++"}


PLATFORMS: Mapping[str, Platform] = {
    row.name: row
    for row in (
        Platform("linux-x64", "Linux", "x86_64", ("x86_64",)),
        Platform(
            "linux-arm64",
            "Linux",
            "aarch64",
            ("aarch64",),
            "aarch64-linux-gnu",
            ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"),
        ),
        Platform("macos-arm64", "Darwin", "arm64", ("arm64",)),
        Platform("windows-x64", "Windows", "AMD64", ("AMD64",)),
    )
}


def find_platform(name: str | None) -> Platform:
    """The row of that name, or this machine's. Raises UsageMistake, or BackendUnavailable if it cannot be built."""
    if name is None:
        found = next((row for row in PLATFORMS.values() if row.native), None)
        if found is None:
            raise BackendUnavailable(
                f"there are no packages for {platform.system()} {platform.machine()}", hint="turbotool build"
            )
        return found
    if name not in PLATFORMS:
        guess = did_you_mean(name, PLATFORMS) or f"; choose from {', '.join(PLATFORMS)}"
        raise UsageMistake(f"no platform '{name}'{guess}")
    row = PLATFORMS[name]
    if not row.native and not (row.cross and platform.system() == row.system):
        raise BackendUnavailable(
            f"a package for {name} is built on {row.system} {row.processor}, and this is "
            f"{platform.system()} {platform.machine()}",
            hint="leave --platform out",
        )
    return row
