"""The devices that a backend can run on: what its built programs see, or else what a tool of the system says.

A device that only the system's tool knows may still be one that llama.cpp leaves alone.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from turbotool.build import record
from turbotool.build.host import Host
from turbotool.errors import TurbotoolError, first_line
from turbotool.layout import Layout
from turbotool.system import process
from turbotool.system.output import Output

if TYPE_CHECKING:  # the command line imports this module to print its help
    from turbotool.programs.binaries import Binaries

TIMEOUT = 60.0  # seconds; drivers can hang
MIB = 1 << 20
LISTING = "llama-cli"
# Upstream passes over Vulkan devices that are the CPU, such as Mesa's llvmpipe, unless one is named by its number.
FIRST_VULKAN = (("GGML_VK_VISIBLE_DEVICES", "0"),)
_LISTED = re.compile(r"^  (?P<name>\S+): (?P<about>.+) \((?P<total>\d+) MiB, (?P<free>\d+) MiB free\)$", re.MULTILINE)
_NVIDIA = re.compile(r"^(?P<name>.+), (?P<arch>\d+\.\d+), (?P<memory>\d+)$", re.MULTILINE)
_VULKAN = re.compile(r"^\s*device(?P<key>Type|Name)\s*=\s*(?P<value>.*\S)", re.MULTILINE)


@dataclass(frozen=True)
class Device:
    """A device: `name` as -dev takes it, if the programs list it, `memory` and `free` in bytes; None if unknown."""

    about: str
    name: str | None = None
    memory: int | None = None
    free: int | None = None

    @property
    def label(self) -> str:
        return f"{self.name}: {self.about}" if self.name else self.about


@dataclass(frozen=True)
class Devices:
    """The devices of a backend and the `source` that lists them; `error` says why nothing could be listed."""

    backend: str
    found: tuple[Device, ...] = ()
    source: str = ""
    error: str = ""


@dataclass(frozen=True)
class ListingTool:
    """A command that lists devices, on the one `system` that has it (empty: any), and how to read what it prints."""

    command: tuple[str, ...]
    parse: Callable[[str], tuple[Device, ...]]
    system: str = ""


def parse_listed(output: str) -> tuple[Device, ...]:
    """What `llama-cli --list-devices` printed."""
    return tuple(
        Device(match["about"], match["name"], int(match["total"]) * MIB, int(match["free"]) * MIB)
        for match in _LISTED.finditer(output)
    )


def parse_nvidia(output: str) -> tuple[Device, ...]:
    """What nvidia-smi printed: name, compute capability, memory in MiB, one device a line."""
    return tuple(
        Device(f"{match['name']} (--arch {match['arch'].replace('.', '')})", memory=int(match["memory"]) * MIB)
        for match in _NVIDIA.finditer(output)
    )


def parse_vulkan(output: str) -> tuple[Device, ...]:
    """What `vulkaninfo --summary` printed: type and name of each device."""
    values = {"Type": list[str](), "Name": list[str]()}
    for match in _VULKAN.finditer(output):
        values[match["key"]].append(match["value"])
    kinds = [kind.removeprefix("PHYSICAL_DEVICE_TYPE_").lower().replace("_", " ") for kind in values["Type"]]
    return tuple(Device(f"{name} ({kind})") for name, kind in zip(values["Name"], kinds, strict=False))


def parse_displays(output: str) -> tuple[Device, ...]:
    """What `system_profiler SPDisplaysDataType -json` printed."""
    try:
        cards = json.loads(output)["SPDisplaysDataType"]
        return tuple(Device(str(card["sppci_model"])) for card in cards)
    except (ValueError, KeyError, TypeError):
        return ()


TOOLS: Mapping[str, ListingTool] = {
    "cuda": ListingTool(
        ("nvidia-smi", "--query-gpu=name,compute_cap,memory.total", "--format=csv,noheader,nounits"), parse_nvidia
    ),
    "vulkan": ListingTool(("vulkaninfo", "--summary"), parse_vulkan),
    "metal": ListingTool(("system_profiler", "SPDisplaysDataType", "-json"), parse_displays, "Darwin"),
}


def find_devices(layout: Layout, host: Host) -> tuple[Devices, ...]:
    """The devices of each GPU backend that this system can have. Never raises: what cannot be asked is told."""
    names = [name for name, tool in TOOLS.items() if tool.system in ("", host.system)]
    return tuple(_devices(layout, name, host.env) for name in names)


def _devices(layout: Layout, backend: str, env: Mapping[str, str]) -> Devices:
    built = record.last_record(layout.build(backend))
    try:
        if built is not None and LISTING in [output.name for output in built.outputs]:
            return _ask_programs(layout, backend)
        return _ask_system(backend, env)
    except TurbotoolError as error:
        return Devices(backend, error=first_line(error.message))


def _ask_programs(layout: Layout, backend: str) -> Devices:
    from turbotool.programs.binaries import Binaries

    binaries = Binaries(layout.build(backend) / "bin", backend=backend)
    return Devices(backend, listed_devices(binaries), "the built programs")


def _ask_system(backend: str, env: Mapping[str, str]) -> Devices:
    tool = TOOLS[backend]
    path = shutil.which(tool.command[0], path=env.get("PATH", ""))
    if path is None:
        return Devices(backend, error=f"not built, and there is no {tool.command[0]}")
    done = process.run([path, *tool.command[1:]], cwd=Path.cwd(), env=env, timeout=TIMEOUT, merge_stderr=False)
    return Devices(backend, tool.parse(done.output), tool.command[0])


def listed_devices(binaries: Binaries) -> tuple[Device, ...]:
    """What the programs list. Raises ToolMissing, or ToolFailed if they hang."""
    from turbotool.programs.runner import Runner

    with tempfile.TemporaryDirectory() as work:
        done = Runner(binaries, Path(work), threads=1).plain(LISTING, ["--list-devices"], timeout=TIMEOUT)
    return parse_listed(done.output)


def on_a_device(binaries: Binaries, out: Output) -> Binaries:
    """The same programs, told to use a Vulkan device that is the CPU if there is no other; says what they use."""
    if binaries.backend == "cpu":
        return binaries
    devices = listed_devices(binaries)
    if not devices and binaries.backend == "vulkan":
        chosen = replace(binaries, env=FIRST_VULKAN)
        devices = listed_devices(chosen)
        if devices:
            out.say(f"no GPU: verifying on {devices[0].label}, which is the CPU ({'='.join(FIRST_VULKAN[0])})")
            return chosen
    names = ", ".join(device.label for device in devices)
    out.say(f"devices: {names or 'none, so everything runs on the CPU'}")
    return binaries
