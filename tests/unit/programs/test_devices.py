from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from fake_tools import fake_site, says

from turbotool.build.host import Host
from turbotool.build.tools import find_tools
from turbotool.doctor.document import doctor_document
from turbotool.doctor.examine import examine
from turbotool.doctor.render import render
from turbotool.layout import Layout
from turbotool.programs.devices import Device, find_devices, parse_displays, parse_listed, parse_nvidia, parse_vulkan
from turbotool.system.documents import as_builtins

GIB = 1 << 30
LISTED = """load_backend: loaded CPU backend
Available devices:
  CUDA0: NVIDIA GeForce RTX 4090 (24576 MiB, 23552 MiB free)
  Vulkan1: AMD Radeon (TM) Graphics (RADV RENOIR) (2048 MiB, 1024 MiB free)
"""
SUMMARY = """GPU0:
\tapiVersion         = 1.3.230
\tdeviceType         = PHYSICAL_DEVICE_TYPE_DISCRETE_GPU
\tdeviceName         = NVIDIA GeForce RTX 4090
GPU1:
\tdeviceType         = PHYSICAL_DEVICE_TYPE_CPU
\tdeviceName         = llvmpipe (LLVM 15.0.6, 256 bits)
\tdriverName         = llvmpipe
"""


def layout_in(folder: Path) -> Layout:
    return Layout(folder, folder / "work", folder / "cache")


def host(folder: Path, system: str = "Linux") -> Host:
    return Host(system, "x86_64", {"PATH": str(folder)}, ())


def test_what_the_programs_list_is_read_with_names_and_memory() -> None:
    assert parse_listed(LISTED) == (
        Device("NVIDIA GeForce RTX 4090", "CUDA0", 24 * GIB, 23 * GIB),
        Device("AMD Radeon (TM) Graphics (RADV RENOIR)", "Vulkan1", 2 * GIB, GIB),
    )
    assert parse_listed("Available devices:\n  (none)\n") == ()


def test_what_nvidia_smi_lists_says_what_to_compile_for() -> None:
    assert parse_nvidia("NVIDIA H100, 9.0, 81559\n[N/A], [N/A], [N/A]\n") == (
        Device("NVIDIA H100 (--arch 90)", memory=81559 << 20),
    )


def test_what_vulkaninfo_lists_says_which_devices_are_cpus() -> None:
    assert [device.about for device in parse_vulkan(SUMMARY)] == [
        "NVIDIA GeForce RTX 4090 (discrete gpu)",
        "llvmpipe (LLVM 15.0.6, 256 bits) (cpu)",
    ]


@pytest.mark.parametrize("output", ["", "{}", "[]", '{"SPDisplaysDataType": [1]}'])
def test_what_is_no_list_of_displays_has_no_device(output: str) -> None:
    assert parse_displays(output) == ()
    assert parse_displays(json.dumps({"SPDisplaysDataType": [{"sppci_model": "Apple M4"}]})) == (Device("Apple M4"),)


def test_metal_is_asked_on_macos_only(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    assert [devices.backend for devices in find_devices(layout, host(tmp_path))] == ["cuda", "vulkan"]
    assert [devices.backend for devices in find_devices(layout, host(tmp_path, "Darwin"))] == [
        "cuda",
        "vulkan",
        "metal",
    ]


def test_a_tool_that_is_missing_fails_or_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turbotool.programs.devices.TIMEOUT", 1.0)
    says(tmp_path / "bin" / "nvidia-smi", "no driver", status=9)
    hanging = tmp_path / "bin" / "vulkaninfo"
    hanging.write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    hanging.chmod(0o755)
    cuda, vulkan = find_devices(layout_in(tmp_path), host(tmp_path / "bin"))
    assert "exit status 9" in cuda.error
    assert "did not end" in vulkan.error
    assert not shutil.which("vulkaninfo", path=str(tmp_path))
    assert [devices.error for devices in find_devices(layout_in(tmp_path), host(tmp_path))] == [
        "not built, and there is no nvidia-smi",
        "not built, and there is no vulkaninfo",
    ]


def test_programs_of_a_build_are_asked_before_the_system(tmp_path: Path) -> None:
    site = fake_site(tmp_path, backend="vulkan")
    site.build()
    says(site.layout.build("vulkan") / "bin" / "llama-cli", LISTED)
    says(tmp_path / "system" / "vulkaninfo", SUMMARY)
    devices = find_devices(site.layout, host(tmp_path / "system"))[1]
    assert (devices.source, [device.name for device in devices.found]) == ("the built programs", ["CUDA0", "Vulkan1"])


def test_doctor_prints_each_device_and_who_says_so(tmp_path: Path) -> None:
    says(tmp_path / "bin" / "vulkaninfo", SUMMARY)
    found = examine(layout_in(tmp_path), find_tools({"PATH": os.defpath}), host(tmp_path / "bin"))
    assert "devices     vulkan: NVIDIA GeForce RTX 4090 (discrete gpu), says vulkaninfo" in render(found)
    assert "devices     cuda: unknown: not built, and there is no nvidia-smi" in render(found)
    document = json.loads(json.dumps(as_builtins(doctor_document(found))))
    assert document["devices"][1]["found"][0]["about"] == "NVIDIA GeForce RTX 4090 (discrete gpu)"
