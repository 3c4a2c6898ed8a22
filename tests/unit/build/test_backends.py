from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_tools import says

from turbotool.build import cuda, tools
from turbotool.build.backends import BACKENDS
from turbotool.build.host import Choices, Host
from turbotool.build.tools import ALL, Tools, find_tools
from turbotool.errors import BackendUnavailable, UsageMistake

HEADER = """#define VK_HEADER_VERSION {}
#define VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION(0, 1, 3, VK_HEADER_VERSION)
"""
NEW_HEADER = "typedef struct VkLayerSettingEXT {} VkLayerSettingEXT;\n"


def host(system: str, folder: Path) -> tuple[Tools, Host]:
    """A machine whose PATH is `folder`/bin and whose only prefix is `folder`."""
    env = {"PATH": str(folder / "bin")}
    return find_tools(env, [name for name in ALL if name not in ("cmake", "ninja")]), Host(system, "x", env, (folder,))


def refused(backend: str, machine: tuple[Tools, Host], choices: Choices | None = None) -> BackendUnavailable:
    with pytest.raises(BackendUnavailable) as caught:
        BACKENDS[backend].preflight(*machine, choices or Choices())
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("system", ["Linux", "Windows"])
def test_metal_is_refused_at_once_off_macos(tmp_path: Path, system: str) -> None:
    started = time.monotonic()
    error = refused("metal", host(system, tmp_path))
    assert time.monotonic() - started < 1
    assert error.message == f"Metal exists on macOS only, and this is {system}"


def test_metal_on_macos_needs_xcrun_and_embeds_its_shaders(tmp_path: Path) -> None:
    assert refused("metal", host("Darwin", tmp_path)).hint == "xcode-select --install"
    says(tmp_path / "bin" / "xcrun", "xcrun version 70.1")
    machine = host("Darwin", tmp_path)
    BACKENDS["metal"].preflight(*machine, Choices())
    assert BACKENDS["metal"].options(machine[0], Choices()) == {"GGML_METAL": "ON", "GGML_METAL_EMBED_LIBRARY": "ON"}


def test_cuda_without_nvcc_names_what_was_tried_and_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "USUAL_CUDA", str(tmp_path / "none"))
    monkeypatch.setattr(cuda, "package_places", tuple)
    says(tmp_path / "bin" / "dnf", "4.14.0")
    error = refused("cuda", host("Linux", tmp_path))
    assert "CUDA_PATH" in error.message
    assert error.hint is not None
    assert error.hint.startswith("python -m pip install 'turbotool[cuda]' or sudo dnf install cuda-toolkit or ")


def test_cuda_without_a_gpu_wants_the_architecture(tmp_path: Path) -> None:
    says(tmp_path / "bin" / "nvcc", "nvcc: NVIDIA (R)\nCuda compilation tools, release 12.4, V12.4.99")
    machine = host("Linux", tmp_path)
    assert "--arch" in str(refused("cuda", machine).hint)
    BACKENDS["cuda"].preflight(*machine, Choices(archs=("86",)))
    BACKENDS["cuda"].preflight(*machine, Choices(portable=True))
    says(tmp_path / "bin" / "nvidia-smi", "GPU 0")
    BACKENDS["cuda"].preflight(*machine, Choices())


def test_cuda_is_found_through_cuda_path(tmp_path: Path) -> None:
    nvcc = says(tmp_path / "cuda" / "bin" / "nvcc", "Cuda compilation tools, release 12.4, V12.4.99")
    found = find_tools({"PATH": "", "CUDA_PATH": str(tmp_path / "cuda")}, ["nvcc"])
    options = BACKENDS["cuda"].options(found, Choices(archs=("86", "90a")))
    assert options == {"GGML_CUDA": "ON", "CMAKE_CUDA_COMPILER": str(nvcc), "CMAKE_CUDA_ARCHITECTURES": "86;90a"}


def test_vulkan_names_each_missing_part_and_the_packages(tmp_path: Path) -> None:
    says(tmp_path / "bin" / "apt-get", "apt 2.6.1")
    error = refused("vulkan", host("Linux", tmp_path))
    assert all(part in error.message for part in ("glslc", "vulkan/vulkan.h", "libvulkan", "SPIRV-Headers"))
    assert error.hint == "sudo apt-get install glslc libvulkan-dev spirv-headers"


def vulkan_sdk(folder: Path, library: str = "lib/libvulkan.so", *, patch: int = 309, body: str = NEW_HEADER) -> None:
    """What a build for Vulkan looks for in a prefix."""
    for name, text in (
        ("include/vulkan/vulkan.h", ""),
        ("include/vulkan/vulkan_core.h", HEADER.format(patch) + body),
        (library, ""),
        ("share/cmake/SPIRV-Headers/SPIRV-HeadersConfig.cmake", ""),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("library", ["lib/x86_64-linux-gnu/libvulkan.so", "lib64/libvulkan.so.1"])
def test_vulkan_with_everything_is_accepted(tmp_path: Path, library: str) -> None:
    says(tmp_path / "bin" / "glslc", "shaderc v2023.2 v2023.2")
    vulkan_sdk(tmp_path, library)
    machine = host("Linux", tmp_path)
    BACKENDS["vulkan"].preflight(*machine, Choices())
    assert BACKENDS["vulkan"].options(machine[0], Choices()) == {"GGML_VULKAN": "ON"}


def test_vulkan_headers_without_what_llama_cpp_uses_are_refused_with_their_version(tmp_path: Path) -> None:
    says(tmp_path / "bin" / "glslc", "shaderc v2023.2 v2023.2")
    vulkan_sdk(tmp_path, patch=239, body="// VkLayerSettingEXTs are not known\n")
    error = refused("vulkan", host("Linux", tmp_path))
    assert f"headers in {tmp_path / 'include' / 'vulkan'} are too old: version 1.3.239" in error.message
    assert error.hint is not None
    assert "export VULKAN_SDK=FOLDER CMAKE_PREFIX_PATH=FOLDER" in error.hint


def test_a_newer_vulkan_sdk_that_is_named_comes_before_the_system_s_headers(tmp_path: Path) -> None:
    says(tmp_path / "bin" / "glslc", "shaderc v2023.2 v2023.2")
    vulkan_sdk(tmp_path / "system", patch=239, body="")
    vulkan_sdk(tmp_path / "sdk")
    tools, machine = host("Linux", tmp_path)
    named = replace(machine, prefixes=(tmp_path / "sdk", tmp_path / "system"))
    BACKENDS["vulkan"].preflight(tools, named, Choices())
    assert "too old" in refused("vulkan", (tools, replace(named, prefixes=named.prefixes[::-1]))).message


def test_arch_is_refused_off_cuda(tmp_path: Path) -> None:
    with pytest.raises(UsageMistake, match="--arch"):
        BACKENDS["cpu"].preflight(*host("Linux", tmp_path), Choices(archs=("86",)))
