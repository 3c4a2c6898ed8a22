"""The machine that builds, and what the command line chose for a build."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


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


def has_any(host: Host, *patterns: str) -> bool:
    return first_match(host, *patterns) is not None


def first_match(host: Host, *patterns: str) -> Path | None:
    return next((path for prefix in host.prefixes for pattern in patterns for path in prefix.glob(pattern)), None)
