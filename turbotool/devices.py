"""Which device the programs of a build run on."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path

from turbotool.binaries import Binaries, Runner
from turbotool.kvlog import whole_lines
from turbotool.output import Output

LISTED = re.compile(r"^  (?P<name>[A-Za-z]+\d+): (?P<description>.*) \(\d+ MiB, \d+ MiB free\)$")
# Upstream passes over Vulkan devices that are the CPU, such as Mesa's llvmpipe, unless one is named by its number.
FIRST_VULKAN = (("GGML_VK_VISIBLE_DEVICES", "0"),)


def listed_devices(binaries: Binaries) -> list[str]:
    """What `llama-cli --list-devices` names, as `Vulkan0: llvmpipe`; empty too if it does not run."""
    with tempfile.TemporaryDirectory() as work:
        done = Runner(binaries, Path(work), threads=1).plain("llama-cli", ["--list-devices"], timeout=120)
    matches = (LISTED.match(line) for line in whole_lines(done.output))
    return [f"{match['name']}: {match['description']}" for match in matches if match]


def on_a_device(binaries: Binaries, out: Output) -> Binaries:
    """The same programs, told to use a Vulkan device that is the CPU if there is no other; says what they use."""
    if binaries.backend == "cpu":
        return binaries
    devices = listed_devices(binaries)
    if not devices and binaries.backend == "vulkan":
        chosen = replace(binaries, env=FIRST_VULKAN)
        devices = listed_devices(chosen)
        if devices:
            out.say(f"no GPU: verifying on {devices[0]}, which is the CPU ({'='.join(FIRST_VULKAN[0])})")
            return chosen
    out.say(f"devices: {', '.join(devices) or 'none, so everything runs on the CPU'}")
    return binaries
