"""The memory that a server may take: what was named, or what is free now where the programs compute."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.errors import UsageMistake
from turbotool.programs.binaries import Binaries
from turbotool.programs.devices import listed_devices
from turbotool.system.machine import memory_free


@dataclass(frozen=True)
class Pool:
    """Bytes, and how a person knows them; `main` if it is main memory, which earlier prompts are kept in, too."""

    total: int
    about: str
    main: bool = True


def find_pool(binaries: Binaries, named: int | None) -> Pool:
    """Raises UsageMistake where nothing was named and the system does not say what is free, and what listing raises."""
    devices = () if binaries.backend == "cpu" else listed_devices(binaries)
    if named is not None:
        return Pool(named, "given with --memory", not devices)
    if devices:
        names = ", ".join(device.label for device in devices)
        return Pool(sum(device.free or 0 for device in devices), f"free on {names}", main=False)
    free = memory_free()
    if free is None:
        raise UsageMistake("the system does not say how much memory is free", hint="name it: --memory 8GiB")
    return Pool(free, "free")
