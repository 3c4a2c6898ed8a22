"""What a Vulkan build needs of a machine: glslc, headers that are new enough, the loader, SPIR-V headers."""

from __future__ import annotations

import re

from turbotool.build.host import Choices, Host, first_match, has_any
from turbotool.build.installers import installer
from turbotool.build.tools import Tools
from turbotool.errors import BackendUnavailable

VULKAN_HEADERS_NEED = "VkLayerSettingEXT"
VULKAN_HEADERS_KNOWN = "1.4.309"
VULKAN_SDK_PAGE = "https://vulkan.lunarg.com/sdk/home"


def check_vulkan(tools: Tools, host: Host, choices: Choices) -> None:
    """Raise BackendUnavailable, naming all that lacks and the command that installs it."""
    lacking = []
    if tools.chosen("glslc") is None:
        lacking.append(f"glslc ({tools['glslc'].describe_search()})")
    if not has_any(host, "include/vulkan/vulkan.h", "Include/vulkan/vulkan.h"):
        lacking.append("the header vulkan/vulkan.h")
    if not has_any(
        host, *(f"{lib}/{name}" for lib in ("lib", "lib64", "lib/*", "Lib") for name in ("libvulkan.*", "vulkan-1.lib"))
    ):
        lacking.append("the library libvulkan")
    if not has_any(host, "*/cmake/SPIRV-Headers/*onfig.cmake", "lib/*/cmake/SPIRV-Headers/*onfig.cmake"):
        lacking.append("the CMake package SPIRV-Headers")
    if lacking:
        raise BackendUnavailable(f"Vulkan needs {', '.join(lacking)}", hint=installer(host.env).hint("vulkan"))
    _check_vulkan_headers(host)


def _check_vulkan_headers(host: Host) -> None:
    """The headers that CMake finds first must have what llama.cpp uses; the compiler would say so ten minutes later."""
    core = first_match(host, "include/vulkan/vulkan_core.h", "Include/vulkan/vulkan_core.h")
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
