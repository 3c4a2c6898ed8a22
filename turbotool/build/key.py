"""What a build depends on, as one flat document and one hash. No timestamps and no paths of the work folder."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path

from turbotool.build.request import BuildRequest, PatchedSource
from turbotool.build.toolchain import Toolchain, identity
from turbotool.system.machine import CPUINFO, cpu_flags

# Variables that compilers and CMake read by themselves and that change what comes out.
FLAG_VARIABLES = (
    "CFLAGS",
    "CXXFLAGS",
    "CUDAFLAGS",
    "LDFLAGS",
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "NVCC_PREPEND_FLAGS",
    "NVCC_APPEND_FLAGS",
    "CL",
    "_CL_",
    "LIBRARY_PATH",
    "CMAKE_PREFIX_PATH",
    "MACOSX_DEPLOYMENT_TARGET",
    "SDKROOT",
    "SOURCE_DATE_EPOCH",
    "CMAKE_TOOLCHAIN_FILE",
    "CUDAARCHS",
)


def key_inputs(
    request: BuildRequest, source: PatchedSource, chain: Toolchain, options: Mapping[str, str], env: Mapping[str, str]
) -> dict[str, str]:
    """Everything that the outputs depend on, name -> value, so that a difference can be told by name."""
    inputs = {
        "tree": source.tree,
        "backend": request.backend.name,
        "targets": " ".join(request.targets),
        "platform": f"{platform.system()} {platform.machine()}",
        "cmake": chain.cmake.version or "",
        "ninja": chain.ninja.version or "",
        "C compiler": identity(chain.c, chain.c_flags),
        "C++ compiler": identity(chain.cxx, chain.cxx_flags),
    }
    if request.backend.name == "cuda" and chain.nvcc:
        inputs["nvcc"] = identity(chain.nvcc)
    if options.get("GGML_NATIVE") == "ON":
        inputs["CPU"] = cpu_identity()
    # The build's own name follows from the tree and would only repeat it.
    inputs |= {f"option {name}": value for name, value in options.items() if name != "LLAMA_BUILD_COMMIT"}
    inputs |= {f"variable {name}": env[name] for name in FLAG_VARIABLES if env.get(name)}
    return inputs


def cpu_identity(cpuinfo: Path = CPUINFO) -> str:
    """The CPU whose instructions -march=native uses: its architecture and a digest of its feature flags."""
    words = " ".join(sorted(cpu_flags(cpuinfo))) or platform.processor()
    return f"{platform.machine()} {hashlib.sha256(words.encode()).hexdigest()[:12]}"


def key_of(inputs: Mapping[str, str]) -> str:
    """sha256 (hexadecimal) of the canonical JSON of `inputs`."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Each input that changed as `name: old -> new`; hashes shortened."""

    def show(values: Mapping[str, str], name: str) -> str:
        value = values.get(name, "(none)")
        return value[:12] if name == "tree" else value or "(empty)"

    names = dict.fromkeys((*old, *new))
    return [f"{name}: {show(old, name)} -> {show(new, name)}" for name in names if old.get(name) != new.get(name)]
